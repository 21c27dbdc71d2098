package accesslog

import (
	"net/netip"

	"trafficd/roles/server/http1"
)

// An Entry is what there is to tell of a transaction. Nothing in it is kept.
type Entry struct {
	// Conn is the client's connection (its cookie), and Request the number in the client's stream of the
	// request's first byte: no two requests have the same. Conn 0: the connection is not in
	// custody, and has none.
	Conn, Request uint64

	Client       netip.AddrPort
	Began, Ended int64 // wall ns

	Req      *http1.Request // nil: it was not understood
	Head     []byte         // what Req was parsed from, or else what has come of it
	Received int64          // bytes

	Status  int    // of the reply; 499 if the client went before there was one
	Lines   []byte // its field lines
	Extra   []byte // further ones
	Sent    int64  // bytes of it, head and framing included
	Body    int64  // bytes of its body
	Aborted bool   // it did not come to its end
	Keep    bool   // the connection goes on
	Served  int    // requests on the connection before this one

	Outcome
}

// ClientGone is the status of a transaction whose client went before there was a
// reply. It is nginx's; the registry has none.
const ClientGone = 499

// An Outcome is the part that cache and origin had in a transaction.
type Outcome struct {
	Result Result
	Origin netip.AddrPort // that was asked for this request; the zero value: none was
	Host   string         // its name
}

// A Result says what the cache did, in the words of Squid and Traffic Server.
type Result uint8

// The results.
const (
	None          Result = iota // the cache was not asked, or there was no need to: errors of our own, redirects
	MemHit                      // answered from memory
	Hit                         // answered from the persistent tier
	IMSHit                      // the client's copy is good, as the cache knew
	NegativeHit                 // a stored error
	StaleHit                    // stale, and served while it is validated in the background
	RefreshHit                  // stale, and the origin says that it is good
	RefreshMiss                 // stale, and the origin gave another
	RefFailHit                  // stale, and served since the origin failed
	ClientRefresh               // the client wanted it from the origin
	Miss                        // from the origin
	Denied                      // not allowed
	Tunnelled                   // CONNECT or Upgrade
	numResults
)

var resultNames = [numResults]string{
	None: "NONE", MemHit: "TCP_MEM_HIT", Hit: "TCP_HIT", IMSHit: "TCP_IMS_HIT", NegativeHit: "TCP_NEGATIVE_HIT",
	StaleHit: "TCP_STALE_HIT", RefreshHit: "TCP_REFRESH_HIT", RefreshMiss: "TCP_REFRESH_MISS", RefFailHit: "TCP_REF_FAIL_HIT",
	ClientRefresh: "TCP_CLIENT_REFRESH", Miss: "TCP_MISS", Denied: "TCP_DENIED", Tunnelled: "TCP_TUNNEL",
}

// String is the name in the log.
func (r Result) String() string {
	if r >= numResults {
		r = None
	}
	return resultNames[r]
}

// hierarchy says whom the response was had of.
func (o *Outcome) hierarchy() string {
	if o.Origin.IsValid() || o.Host != "" {
		return "DIRECT"
	}
	return "NONE"
}
