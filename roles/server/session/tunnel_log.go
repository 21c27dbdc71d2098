package session

import (
	"sync/atomic"
	"unsafe"

	"trafficd/queue"
	"trafficd/roles/server/accesslog"
	"trafficd/roles/server/buffer"
	"trafficd/roles/server/custody"
	"trafficd/roles/server/tunnel"
)

// A tunnelTale is the tale of a request that became a tunnel, which lives long after it. It lies at the beginning of a page that the
// tunnel keeps, and the head of the request behind it. Once made only logged changes.
type tunnelTale struct {
	tale   tale
	conn   uint64 // cookie of the client's connection
	served uint32
	length uint32 // of the head
	status uint32
	logged atomic.Uint32 // 1: its line is in the access log
}

const tunnelTaleSize = int(unsafe.Sizeof(tunnelTale{}))

func (h *Host) tunnelTale(keep buffer.Ref) (*tunnelTale, []byte) {
	page := h.Arena.Bytes(keep)
	if len(page) < tunnelTaleSize {
		return nil, nil
	}
	t := (*tunnelTale)(unsafe.Pointer(unsafe.SliceData(page)))
	rest := page[tunnelTaleSize:]
	return t, rest[:min(int(t.length), len(rest))]
}

// keepTale makes the page, and marks the request as told: its tunnel's end has the line. headLen is the length of the reply's
// head. 0: nothing is logged.
func (s *Session) keepTale(status, headLen int, slot *queue.Slot) buffer.Ref {
	h, w := s.host, s.work
	if h.Log == nil || s.in == 0 || w.req.HeadLen == 0 {
		return 0
	}
	ref, ok := h.Arena.Get(tunnelTaleSize + w.req.HeadLen)
	if !ok {
		return 0
	}
	w.logged = true
	t, _ := h.tunnelTale(ref)
	o := w.txn.Outcome()
	*t = tunnelTale{tale: w.tale, served: uint32(s.served - 1), length: uint32(w.req.HeadLen), status: uint32(status)}
	t.tale.first, t.tale.headLen = s.tx, uint32(headLen)
	t.tale.client, t.tale.origin, t.tale.result = pack(s.Peer()), pack(o.Origin), accesslog.Tunnelled
	if slot != nil {
		t.conn = slot.Cookie()
	}
	copy(h.Arena.Bytes(ref)[tunnelTaleSize:], h.Arena.Bytes(s.in)[w.tale.at:][:w.req.HeadLen])
	return ref
}

// tunnelEnds writes the line of a tunnel. The commit that ends the tunnel follows, and nothing else before that.
func (h *Host) tunnelEnds(sum tunnel.Summary, keep buffer.Ref) {
	h.logTunnel(sum.ClientRx, sum.ClientTx, keep)
}

// AcknowledgeTunnel is Acknowledge for a tunnel. The slot's tag is custody.Tunnel.
func (h *Host) AcknowledgeTunnel(slot *queue.Slot) {
	t, _ := h.tunnelTale(tunnel.Kept(h.Book, slot))
	if h.Log != nil && t != nil && h.Log.Logged(t.conn, t.tale.request) {
		t.logged.Store(1)
		queue.Killpoint(custody.StepLogged)
	}
}

// GoneTunnel is Gone for a tunnel. The slot's tag is custody.Tunnel.
func (h *Host) GoneTunnel(l Left) {
	h.logTunnel(l.Progress.Consumed, l.Progress.Written, tunnel.Kept(h.Book, l.Slot))
}

// logTunnel writes the line of a tunnel that came to number rx of the client's stream and number tx of ours.
func (h *Host) logTunnel(rx, tx uint64, keep buffer.Ref) {
	t, head := h.tunnelTale(keep)
	if h.Log == nil || t == nil || t.logged.Load() != 0 {
		return
	}
	e := &h.entry
	*e = accesslog.Entry{
		Conn: t.conn, Request: t.tale.request, Client: t.tale.client.unpack(), Began: t.tale.began, Ended: h.Env.Loop.Wall(),
		Status: int(t.status), Served: int(t.served), Outcome: t.tale.outcome(), Head: head,
		Received: int64(rx - min(rx, t.tale.request)), Sent: int64(tx - min(tx, t.tale.first)),
	}
	e.Body = max(e.Sent-int64(t.tale.headLen), 0)
	w := h.takeWork()
	if w.req.Parse(head, &h.Limits.Head) == nil {
		e.Req = &w.req
	}
	h.Log.Add(e)
	h.putWork(w)
}
