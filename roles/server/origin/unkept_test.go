package origin

import (
	"testing"

	"trafficd/roles/server/buffer"
	"trafficd/roles/server/custody"
	"trafficd/roles/server/custody/custodytest"
)

// newKeptRig is a rig whose connections are in custody, with so many records to spare and slots for as many connections.
func newKeptRig(t *testing.T, records, slots int) *rig {
	t.Helper()
	shape := buffer.Shape{Records: records, Smalls: 8, Larges: 4}
	j := custodytest.Journal(t, slots, shape)
	r := newRig(t, nil)
	r.on(func() {
		r.arena = buffer.Over(j.Pool(0), shape)
		b := custody.NewBook(j, 0, r.arena, nil)
		b.Ledger = j.Ledger(0)
		r.pool.arena, r.pool.book = r.arena, b
	})
	return r
}

// Whoever sends a request of which a successor would not know that it was sent is told so before anything is sent.
func TestARequestThatNoSuccessorWillKnowOf(t *testing.T) {
	known := custody.Name{Page: 1, Serial: 1}
	for _, c := range []struct {
		name           string
		records, slots int // 0: there is no custody at all
		taken          int // slots, by other connections
		token          custody.Name
		told           bool
	}{
		{"in custody", 2, 2, 0, known, false},
		{"without a record", 0, 2, 0, known, true},
		{"without a slot", 2, 1, 1, known, true},
		{"the fetch has no record", 2, 2, 0, custody.Name{}, true},
		{"custody is off", 0, 0, 0, custody.Name{}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr := serve(t, func(p *peer) {
				if _, ok := p.request(); ok {
					p.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"))
				}
			})
			var r *rig
			if c.slots > 0 {
				r = newKeptRig(t, c.records, c.slots)
			} else {
				r = newRig(t, nil)
			}
			r.on(func() {
				for n := range c.taken {
					if _, err := r.pool.book.Ledger.Open(uint64(1000+n), custody.Client); err != nil {
						t.Error(err)
					}
				}
			})
			q := r.get(addr)
			q.Token = c.token
			told := false
			q.hook = func(where string) {
				if where != "unkept" {
					return
				}
				told = true
				if q.conn.tx != 0 {
					t.Errorf("%d bytes were sent before", q.conn.tx)
				}
			}
			if q.start().wait(); q.status != 200 {
				t.Fatalf("got %d, %+v", q.status, q.failure)
			}
			if told != c.told {
				t.Errorf("told %v, want %v", told, c.told)
			}
		})
	}
}
