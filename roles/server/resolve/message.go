package resolve

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// A question is one that is asked of a name server.
type question struct {
	id   uint16
	name dnsmessage.Name // absolute
	kind dnsmessage.Type // TypeA or TypeAAAA
}

// newQuestion asks for the addresses of one family of an absolute name.
func newQuestion(host string, kind dnsmessage.Type, id uint16) (question, error) {
	n, err := dnsmessage.NewName(host)
	if err != nil {
		return question{}, fmt.Errorf("name %q: %w", host, err)
	}
	return question{id: id, name: n, kind: kind}, nil
}

// pack gives the message to send.
func (q *question) pack() ([]byte, error) {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: q.id, RecursionDesired: true})
	if err := b.StartQuestions(); err != nil {
		return nil, err
	}
	if err := b.Question(dnsmessage.Question{Name: q.name, Type: q.kind, Class: dnsmessage.ClassINET}); err != nil {
		return nil, err
	}
	return b.Finish()
}

// What can be wrong with a message.
var (
	errStranger  = errors.New("the message does not answer our question")
	errTruncated = errors.New("the answer is truncated")
	errServer    = errors.New("the name server cannot answer")
)

// A reply is what a name server says to a question. found: the name exists; addrs may be empty even so.
type reply struct {
	addrs []netip.Addr
	ttl   time.Duration // of the addresses, or of there being none
	found bool
}

// maxAliases bounds a chain of CNAME records.
const maxAliases = 16

// parse reads the message that came for q. errStranger: it is not for us, and another may still come.
func (q *question) parse(msg []byte) (reply, error) {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil || !h.Response || h.ID != q.id {
		return reply{}, errStranger
	}
	asked, err := p.AllQuestions()
	if err != nil || len(asked) != 1 || asked[0].Type != q.kind || asked[0].Class != dnsmessage.ClassINET || !sameName(asked[0].Name, q.name) {
		return reply{}, errStranger
	}
	switch {
	case h.Truncated:
		return reply{}, errTruncated
	case h.RCode == dnsmessage.RCodeNameError:
		return q.missing(&p, false)
	case h.RCode != dnsmessage.RCodeSuccess:
		return reply{}, fmt.Errorf("%w: %s", errServer, h.RCode.GoString())
	}
	return q.answers(&p)
}

// sameName compares as RFC 4343 wants it: ASCII letters of either case are the same.
func sameName(a, b dnsmessage.Name) bool { return strings.EqualFold(a.String(), b.String()) }

// record is one of the answers that matter.
type record struct {
	name  dnsmessage.Name
	alias dnsmessage.Name // of a CNAME
	addr  netip.Addr      // of an address; invalid for a CNAME
	ttl   uint32
}

// answers follows the name asked for through its aliases to its addresses. Records of other names are of no interest.
func (q *question) answers(p *dnsmessage.Parser) (reply, error) {
	records, err := q.records(p)
	if err != nil {
		return reply{}, err
	}
	name, least := q.name, uint32(1<<31-1) // RFC 2181 §8: a TTL has 31 bits
	for range maxAliases {
		r := reply{found: true}
		next, aliased := dnsmessage.Name{}, false
		for _, rec := range records {
			switch {
			case !sameName(rec.name, name):
			case rec.addr.IsValid():
				r.addrs = append(r.addrs, rec.addr)
				least = min(least, rec.ttl)
			case !aliased:
				next, aliased = rec.alias, true
				least = min(least, rec.ttl)
			}
		}
		if len(r.addrs) > 0 {
			r.ttl = time.Duration(least) * time.Second
			return r, nil
		}
		if !aliased {
			return q.missing(p, true)
		}
		name = next
	}
	return reply{}, fmt.Errorf("%w: more than %d aliases", errServer, maxAliases)
}

// records reads the answer section.
func (q *question) records(p *dnsmessage.Parser) (list []record, err error) {
	for {
		h, err := p.AnswerHeader()
		if err == dnsmessage.ErrSectionDone {
			return list, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errServer, err)
		}
		rec := record{name: h.Name, ttl: h.TTL}
		if h.TTL > 1<<31-1 {
			rec.ttl = 0
		}
		known := h.Class == dnsmessage.ClassINET
		switch {
		case known && h.Type == dnsmessage.TypeA && q.kind == dnsmessage.TypeA:
			var r dnsmessage.AResource
			if r, err = p.AResource(); err == nil {
				rec.addr = netip.AddrFrom4(r.A)
			}
		case known && h.Type == dnsmessage.TypeAAAA && q.kind == dnsmessage.TypeAAAA:
			var r dnsmessage.AAAAResource
			if r, err = p.AAAAResource(); err == nil {
				rec.addr = netip.AddrFrom16(r.AAAA).Unmap()
			}
		case known && h.Type == dnsmessage.TypeCNAME:
			var r dnsmessage.CNAMEResource
			if r, err = p.CNAMEResource(); err == nil {
				rec.alias = r.CNAME
			}
		default:
			known = false
			err = p.SkipAnswer()
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errServer, err)
		}
		if known {
			list = append(list, rec)
		}
	}
}

// missing says for how long there are no addresses: what the zone's SOA record allows (RFC 2308 §5); 0 without one.
func (q *question) missing(p *dnsmessage.Parser, found bool) (reply, error) {
	r := reply{found: found}
	if err := p.SkipAllAnswers(); err != nil && err != dnsmessage.ErrSectionDone {
		return r, nil
	}
	for {
		h, err := p.AuthorityHeader()
		if err != nil {
			return r, nil
		}
		if h.Type != dnsmessage.TypeSOA {
			if p.SkipAuthority() != nil {
				return r, nil
			}
			continue
		}
		soa, err := p.SOAResource()
		if err == nil && h.TTL <= 1<<31-1 && soa.MinTTL <= 1<<31-1 {
			r.ttl = time.Duration(min(h.TTL, soa.MinTTL)) * time.Second
		}
		return r, nil
	}
}
