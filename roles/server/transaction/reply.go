package transaction

import (
	"net/netip"

	"trafficd/roles/server/origin"
)

// A Client is the session as its transaction sees it. All calls are made on
// the session's loop.
type Client interface {
	// Peer is the address of the client; the zero value if it has none.
	Peer() netip.AddrPort
	// Identity is who asks and for what: by it a fetch that outlives this process finds its
	// leader again.
	Identity() Identity
	// LeaveCustody says that a successor would not know what has become of the request, and that it must not be sent
	// twice: so no successor may find it. The connection then ends with this process.
	LeaveCustody()
	// Wake says that there is something to do: a reply has come, its body has
	// grown, ended or failed, or a tunnel has opened.
	Wake()
	// Interim passes an interim response on, the n-th of this request; lines are its field lines.
	// One that was passed on already is not again.
	Interim(n, status int, lines []byte)
	// RequestBody is where the request's body comes from; nil without one.
	RequestBody() origin.RequestBody
}

// An Identity names a request for ever. The zero value names none.
type Identity struct {
	Conn    uint64 // cookie of the client's connection; 0 if it is not in custody
	Request uint64 // number in the client's stream of the request's first byte
}

// A Body gives the bytes of a reply by their offset in the representation that
// was received or stored. Reading the same offset again gives the same bytes
// until they are released.
type Body interface {
	// Bytes returns a run of bytes at off. Without any, the state says whether
	// to wait for Client.Wake, or that the body ends or fails here.
	Bytes(off int64) (p []byte, state origin.BodyState)
	// Release says that nothing below off will be read again.
	Release(off int64)
}

// A Reply is the answer to a request, for the session to frame and send. It is
// valid, like all it refers to, until the transaction ends.
type Reply struct {
	Status int
	// Lines are the field lines to send as they are, each ending in CRLF:
	// end-to-end fields only, without any of the framing.
	Lines []byte
	// Extra are further lines that belong to this reply alone.
	Extra []byte
	// Age in seconds, or -1 for a reply that does not come from the cache.
	Age int64
	// Length is the number of bytes of the body, -1 when the body's end says.
	// For HEAD and 304 it is what a GET would have brought, and Body is nil.
	Length int64
	// Body is nil when none is sent. Offset is where it begins in Body.
	Body   Body
	Offset int64
	// Local: the reply was made here, not by an origin.
	Local bool
	// Close: the connection ends with this reply.
	Close bool
}

// Memory is a body at hand as a whole.
type Memory []byte

// Bytes implements Body.
func (m *Memory) Bytes(off int64) ([]byte, origin.BodyState) { return (*m)[off:], origin.BodyEnd }

// Release implements Body.
func (m *Memory) Release(int64) {}
