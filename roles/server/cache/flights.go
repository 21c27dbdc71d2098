package cache

import "sync"

// Verdict is what Join decided.
type Verdict uint8

// The verdicts.
const (
	Lead   Verdict = iota // nobody fetches this key: the caller does, and ends with Finish
	Follow                // somebody does: wait for it
	Pass                  // the key was not cacheable lately: fetch it without waiting or making others wait
)

func (v Verdict) String() string { return [...]string{"lead", "follow", "pass"}[v] }

// Flights collapses concurrent misses of one key into one fill (collapsed
// forwarding). T is what leads a fill, a pointer. It lives in process memory: a fetch dies
// with its process. Keys found uncacheable are remembered for a while, in a bounded set,
// so that requests for them are never serialised (hit-for-miss). The zero value is not usable; see NewFlights.
type Flights[T comparable] struct {
	shards [flightShards]flightShard[T]
}

const (
	flightShards = 64
	passSlots    = 64 // remembered keys per shard; a new one overwrites what is in its slot
)

type flightShard[T comparable] struct {
	mu     sync.Mutex
	leads  map[Key]T           // guarded by mu
	passes [passSlots]passSlot // guarded by mu
}

type passSlot struct {
	key   Key
	until int64
	by    Asker // whose requests pass
}

// An Asker is who a request is from, as far as the responses to some can be stored and those to others cannot
// (RFC 9111 §3.5).
type Asker uint8

// The askers. What is uncacheable for Anybody is so for Somebody too.
const (
	Anybody  Asker = iota
	Somebody       // with credentials: Authorization
)

// NewFlights returns an empty table.
func NewFlights[T comparable]() *Flights[T] {
	f := new(Flights[T])
	for i := range f.shards {
		f.shards[i].leads = make(map[Key]T)
	}
	return f
}

func (f *Flights[T]) shard(k Key) *flightShard[T] {
	return &f.shards[k.high()%flightShards]
}

func (s *flightShard[T]) slot(k Key) *passSlot {
	return &s.passes[k.high()/flightShards%passSlots]
}

// Join asks who fetches k. Lead: me is entered as the one, until Finish. Follow: the
// leader was handed to attach, under the table's lock, so that it cannot finish before
// the caller is on its list; attach must be short and must not call Flights. When attach returns false (the
// leader's fill does not suit the caller) the verdict is Pass. now is in nanoseconds, of any clock used throughout.
func (f *Flights[T]) Join(k Key, by Asker, me T, now int64, attach func(leader T) bool) Verdict {
	s := f.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if leader, ok := s.leads[k]; ok {
		if attach(leader) {
			return Follow
		}
		return Pass
	}
	if p := s.slot(k); p.key == k && now < p.until && by >= p.by {
		return Pass
	}
	s.leads[k] = me
	return Lead
}

// Follow hands the leader of k to attach, as Join does, if there is one. It reports whether the caller follows it.
func (f *Flights[T]) Follow(k Key, attach func(leader T) bool) bool {
	s := f.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	leader, ok := s.leads[k]
	return ok && attach(leader)
}

// Depose ends the lead of k if over says so of its leader, who may go on fetching for those who follow already. It is
// for a fill that was outrun by a purge. over must be short and must not call Flights.
func (f *Flights[T]) Depose(k Key, over func(leader T) bool) {
	s := f.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if leader, ok := s.leads[k]; ok && over(leader) {
		delete(s.leads, k)
	}
}

// Finish ends me's lead of k, if it has it. From then on nobody attaches to me.
func (f *Flights[T]) Finish(k Key, me T) {
	f.finish(k, me, Anybody, 0)
}

// FinishUncacheable is Finish for a response that may not be stored, whoever asks, or since Somebody did: until then
// none of those waits for this key again.
func (f *Flights[T]) FinishUncacheable(k Key, by Asker, me T, until int64) {
	f.finish(k, me, by, until)
}

func (f *Flights[T]) finish(k Key, me T, by Asker, until int64) {
	s := f.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leads[k] == me {
		delete(s.leads, k)
	}
	if until != 0 {
		*s.slot(k) = passSlot{key: k, until: until, by: by}
	}
}

// Forget takes back that k was uncacheable, for a response to it that was stored.
func (f *Flights[T]) Forget(k Key) {
	s := f.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.slot(k); p.key == k {
		*p = passSlot{}
	}
}

// Len returns the number of fills in flight.
func (f *Flights[T]) Len() int {
	n := 0
	for i := range f.shards {
		s := &f.shards[i]
		s.mu.Lock()
		n += len(s.leads)
		s.mu.Unlock()
	}
	return n
}
