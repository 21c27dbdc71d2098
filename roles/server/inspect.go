package server

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"trafficd/roles/internal/cacheview"
	"trafficd/roles/internal/link"
	"trafficd/roles/server/cache"
	"trafficd/roles/server/freshness"
	"trafficd/roles/server/purge"
	"trafficd/roles/server/remap"
)

// inspector answers what operators ask of the cache. A question may take as long as a walk over everything; the link has
// other things to say meanwhile, so whoever asks gets a ticket after a while, and asks for the result by that.
type inspector struct {
	server *Server

	mu      sync.Mutex // guards below
	last    uint64
	pending map[uint64]chan cacheview.Answer
}

// patience is how long the link waits for an answer at a time. maxPending bounds the questions that nobody comes back for.
const (
	patience   = 50 * time.Millisecond
	maxPending = 64
)

var errTooMany = errors.New("too many questions at once")

func (i *inspector) init(s *Server) { i.server, i.pending = s, map[uint64]chan cacheview.Answer{} }

// ask is the operation "cache".
func (i *inspector) ask(m *link.Message) (link.Reply, error) {
	var q cacheview.Question
	if err := m.Decode(&q); err != nil {
		return link.Reply{}, err
	}
	ticket, answer, err := i.begin(&q)
	if err != nil {
		return link.Reply{}, err
	}
	select {
	case a := <-answer:
		i.forget(ticket)
		return link.Reply{Body: a}, nil
	case <-time.After(patience):
		return link.Reply{Body: cacheview.Answer{Ticket: ticket}}, nil
	}
}

// begin finds the answer that is being waited for, or has somebody begin to find one.
func (i *inspector) begin(q *cacheview.Question) (uint64, chan cacheview.Answer, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if q.Ask == cacheview.Result {
		answer := i.pending[q.Ticket]
		if answer == nil {
			return 0, nil, fmt.Errorf("no question has ticket %d", q.Ticket)
		}
		return q.Ticket, answer, nil
	}
	if len(i.pending) >= maxPending && !i.giveUpOne() {
		return 0, nil, errTooMany
	}
	i.last++
	answer := make(chan cacheview.Answer, 1)
	i.pending[i.last] = answer
	go func() { answer <- i.answer(q) }()
	return i.last, answer, nil
}

// giveUpOne forgets the oldest answer that nobody has come for: whoever asked has gone away. False: all are being found still.
func (i *inspector) giveUpOne() bool {
	oldest := uint64(0)
	for ticket, answer := range i.pending {
		if len(answer) > 0 && (oldest == 0 || ticket < oldest) {
			oldest = ticket
		}
	}
	delete(i.pending, oldest)
	return oldest != 0
}

func (i *inspector) forget(ticket uint64) {
	i.mu.Lock()
	delete(i.pending, ticket)
	i.mu.Unlock()
}

func (i *inspector) answer(q *cacheview.Question) (a cacheview.Answer) {
	store := i.server.opened.Load()
	if store == nil {
		return refuse(false, errors.New("there is no cache: cache.size is 0, or the server does not serve yet"))
	}
	switch q.Ask {
	case cacheview.Stat:
		a.Stats = i.stats(store)
	case cacheview.Lookup:
		uri, err := i.uri(q.URL)
		if err != nil {
			return refuse(true, err)
		}
		a.Stored = stored(store, uri, time.Now().UnixNano())
	case cacheview.Purge:
		return i.purge(store, q)
	default:
		return refuse(true, fmt.Errorf("%.20q is nothing that can be asked of the cache", q.Ask))
	}
	return a
}

func refuse(usage bool, err error) cacheview.Answer {
	return cacheview.Answer{Error: &cacheview.Problem{Text: err.Error(), Usage: usage}}
}

func (i *inspector) stats(store *cache.Store) *cacheview.Stats {
	s := store.Stats()
	v := &cacheview.Stats{Memory: cacheview.Memory{
		Objects: s.Objects, Bytes: s.Bytes, Capacity: s.Capacity, Protected: s.Protected, Segments: s.Segments, Pinned: s.Pinned,
		Stored: s.Published, Updated: s.Updated, Removed: s.Removed, Evictions: s.Evicted, Kept: s.Forwarded, Lost: s.Lost,
		Returned: s.Returned, Displaced: s.Displaced, NoSpace: s.NoSpace,
	}}
	trouble := i.server.diskTrouble()
	if _, below := store.Below(nil); below || trouble != nil {
		v.Disk = &cacheview.Disk{}
	}
	if trouble != nil {
		v.Disk.Trouble = &cacheview.Trouble{Since: trouble.Since, Off: trouble.Off, Reason: trouble.Reason}
	}
	return v
}

// uri is the name under which the cache keeps a URL.
func (i *inspector) uri(text string) ([]byte, error) {
	host, path, query, err := split(text)
	if err != nil {
		return nil, err
	}
	if len(path) == 0 {
		path = []byte("/")
	}
	if !remap.Normal(path) {
		path = remap.AppendNormal(nil, path)
	}
	if m, ok := i.server.settings.Load().Remap.Lookup(host, path); ok && m.Policy().IgnoreQuery {
		query = nil
	}
	return cache.AppendURI(nil, schemeHTTP, host, path, query), nil
}

var schemeHTTP = []byte("http")

// split takes a URL to pieces as the client of a proxy would have sent them. query has its "?".
func split(text string) (host, path, query []byte, err error) {
	scheme, rest, ok := strings.Cut(text, "://")
	if ok && !strings.EqualFold(scheme, "http") {
		return nil, nil, nil, fmt.Errorf("URL %.100q: only http is cached here", text)
	}
	u, err := url.Parse("http://" + rest)
	if !ok || err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || strings.ContainsAny(rest, " #") {
		return nil, nil, nil, fmt.Errorf("URL %.100q: a URL is http://host[:port]/path[?query]", text)
	}
	at := strings.IndexAny(rest, "/?")
	if at < 0 {
		return []byte(rest), nil, nil, nil
	}
	path = []byte(rest[at:])
	if q := bytes.IndexByte(path, '?'); q >= 0 {
		path, query = path[:q], path[q:]
	}
	return []byte(rest[:at]), path, query, nil
}

// stored tells what there is for a URI.
func stored(store *cache.Store, uri []byte, now int64) *cacheview.Stored {
	v := &cacheview.Stored{URI: string(uri), Alternates: []cacheview.Alternate{}}
	below := false
	store.WalkURI(uri, func(o *cache.Object) bool {
		v.Alternates = append(v.Alternates, alternate(o, now))
		below = below || o.OnDisk()
		return len(v.Alternates) < maxAlternates
	})
	if has, _ := store.Below(uri); has && !below {
		v.Disk = true
	}
	return v
}

// Bounds of an answer.
const (
	maxAlternates = 100
	maxShownTags  = 100
)

func alternate(o *cache.Object, now int64) cacheview.Alternate {
	m := o.Meta()
	a := cacheview.Alternate{
		Status: int(m.Status), Age: float64(freshness.CurrentAge(m, now)) / 1e9, Lifetime: float64(m.Lifetime) / 1e9,
		Fresh: freshness.TTL(m, now) > 0 && m.Flags&cache.NoCache == 0, Soft: o.Softened(), Size: o.BodyLen(), Tier: "memory", Kept: o.Protected(), Hits: o.Hits(),
	}
	if o.OnDisk() {
		a.Tier = "memory and disk"
	}
	if m.RangeTotal != 0 {
		a.Part = fmt.Sprintf("%d-%d/%d", m.RangeFrom, m.RangeFrom+o.BodyLen()-1, m.RangeTotal)
	}
	purge.Tagged(o.Head(), func(tag []byte) bool {
		a.Tags = append(a.Tags, string(tag))
		return len(a.Tags) == maxShownTags
	})
	for line := range strings.SplitSeq(string(o.Vary()), "\n") {
		if line = strings.TrimSpace(line); line != "" {
			a.Vary = append(a.Vary, line)
		}
	}
	return a
}

// purge does what a PURGE of a client does.
func (i *inspector) purge(store *cache.Store, q *cacheview.Question) cacheview.Answer {
	p := cache.Purge{Soft: q.Soft, Now: time.Now().UnixNano()}
	err := q.Check()
	switch {
	case err != nil:
	case q.URL != "":
		p.URI, err = i.uri(q.URL)
	case q.Prefix != "":
		p.Prefix, err = prefixOf(q.Prefix)
	default:
		for _, tag := range q.Tags {
			if err = purge.CheckTag(tag); err != nil {
				break
			}
			p.Tags = append(p.Tags, []byte(tag))
		}
	}
	if err != nil {
		return refuse(true, err)
	}
	n, err := store.Purge(&p)
	if err != nil {
		return refuse(false, err)
	}
	i.server.log.Info().Int("purged", n.Memory+n.Below).Str("url", q.URL).Str("prefix", q.Prefix).Strs("tags", q.Tags).
		Bool("soft", q.Soft).Msg("purge")
	return cacheview.Answer{Purged: &cacheview.Purged{Purged: n.Memory + n.Below, Memory: n.Memory, Disk: n.Below, Soft: q.Soft}}
}

// prefixOf is what a prefix is in the names that the cache knows. A star at its end is none of it.
func prefixOf(text string) ([]byte, error) {
	host, path, query, err := split(strings.TrimSuffix(text, "*"))
	if err != nil {
		return nil, err
	}
	if path == nil && query == nil {
		path = []byte("/") // all of this host, and no other one whose name begins like it
	}
	return cache.AppendURI(nil, schemeHTTP, host, path, query), nil
}
