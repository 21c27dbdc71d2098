package origin

import (
	"fmt"
	"strings"
	"testing"
)

// While much lies untaken in the kernel origins send little at a time; when it has gone, as much as they like.
func TestOriginsSendLittleWhileMuchIsUntaken(t *testing.T) {
	const size = 32 << 10
	r := newRig(t, func(l *Limits) { l.Untaken = size })
	large := func(p *peer) {
		p.request()
		p.say(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", 4*size, strings.Repeat("x", 4*size)))
		p.stay()
	}
	addr := serve(t, large, large)
	still := r.get(addr)
	still.most = 0
	still.start()
	r.until("much to lie there", func() bool { return r.pool.untaken > size })
	next := r.get(addr)
	next.most = 1000
	next.start()
	r.until("the next one to be full", func() bool { return next.conn != nil && next.conn.paused })
	r.on(func() {
		if !next.conn.little {
			t.Error("the next origin may send as much as it likes")
		}
		still.Cancel()
		next.most = 2000
		next.Resume()
	})
	r.until("the next one to be full again", func() bool { return next.conn.paused })
	r.on(func() {
		// Its own is counted, too: what it has not taken is more than may lie there.
		if want := r.pool.untaken; want != int64(next.conn.untaken) {
			t.Errorf("%d bytes are counted, %d lie there", want, next.conn.untaken)
		}
		r.pool.limits.Untaken = 1 << 40
		next.most = -1
		next.Resume()
	})
	if next.wait(); len(next.body) != 4*size {
		t.Fatalf("got %d bytes, %+v", len(next.body), next.failure)
	}
	r.on(func() {
		if r.pool.untaken != 0 {
			t.Errorf("%d bytes are counted when all is taken", r.pool.untaken)
		}
		for _, l := range r.pool.idle {
			if len(l.conns) != 1 || l.conns[0].little {
				t.Error("the connection that is kept is still limited")
			}
		}
	})
}
