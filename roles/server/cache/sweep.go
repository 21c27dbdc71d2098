package cache

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"
)

// One URI may be stored under several keys (NoteKeys). What a request to change it invalidates (RFC 9111 §4.4) is there
// under all of them, and which these are nothing tells: one has to look at everything. So that is done beside the
// loops, by one goroutine, for all URIs that were named meanwhile, and with pauses: whatever clients do, a walk is under way
// for a fifth of the time at most, until very many URIs are waiting. Until it has come by, what is there is served.
//
// What is waiting lies in the mapping: a successor does it.

const (
	maxSwept   = 2048 // URIs that are waiting; when there are more, all that lies under such keys goes
	sweepPause = 4    // how many times as long as a walk the pause behind it is
)

// A sweepEntry is a URI that is waiting, in the mapping.
type sweepEntry struct {
	since atomic.Int64     // what came before goes, wall ns; 0: the entry is free
	own   [2]atomic.Uint64 // the URI's own key
}

// sweeping is what this process knows of them.
type sweeping struct {
	sync.Mutex             // guards changes of the entries and of fenceBook.all: what came before that goes, whatever its URI
	at         map[Key]int // guarded by the Mutex: entries in use
	free       []int       // guarded by the Mutex
	wake       chan struct{}
	hurry      chan struct{} // many are waiting
}

// attachSweeps finds what a process that is dead has left.
func (s *Store) attachSweeps() {
	w := &s.sweeps
	w.at, w.free = map[Key]int{}, nil
	w.wake, w.hurry = make(chan struct{}, 1), make(chan struct{}, 1)
	for i := range s.fences.swept {
		e := &s.fences.swept[i]
		if e.since.Load() == 0 {
			w.free = append(w.free, i)
			continue
		}
		w.at[e.key()] = i
	}
	if len(w.at) > 0 || s.fences.all.Load() != 0 {
		rouse(w.wake)
	}
}

func (e *sweepEntry) key() (k Key) {
	binary.LittleEndian.PutUint64(k[:8], e.own[0].Load())
	binary.LittleEndian.PutUint64(k[8:], e.own[1].Load())
	return k
}

// RemoveOthers has what came before now, wall nanoseconds, and is stored for a URI under other keys than its own removed. It
// returns at once; Sweep does it.
func (s *Store) RemoveOthers(uri []byte, now int64) {
	if !s.KeysNoted() || s.Fenced() {
		return
	}
	w, own := &s.sweeps, s.keyOfURI(uri)
	w.Lock()
	defer w.Unlock()
	i, known := w.at[own]
	if n := len(w.free); !known && n > 0 {
		i, known = w.free[n-1], true
		w.free = w.free[:n-1]
		w.at[own] = i
	}
	if !known {
		s.fences.all.Store(now)
	} else {
		e := &s.fences.swept[i]
		e.own[0].Store(own.low())
		e.own[1].Store(own.high())
		killpoint()
		e.since.Store(now)
	}
	killpoint()
	rouse(w.wake)
	if len(w.at) > maxSwept/2 {
		rouse(w.hurry)
	}
}

// Sweep does, until stop is closed, what RemoveOthers asks for. One goroutine beside the loops runs it.
func (s *Store) Sweep(stop <-chan struct{}) {
	w := &s.sweeps
	for {
		select {
		case <-stop:
			return
		case <-w.wake:
		}
		began := time.Now()
		s.sweep()
		pause := time.NewTimer(sweepPause * time.Since(began))
		select {
		case <-stop:
		case <-w.hurry:
		case <-pause.C:
		}
		pause.Stop()
	}
}

// sweep does what is waiting. What is waiting once more by the end stays.
func (s *Store) sweep() {
	w := &s.sweeps
	since := map[Key]int64{}
	w.Lock()
	for own, i := range w.at {
		since[own] = s.fences.swept[i].since.Load()
	}
	all := s.fences.all.Load()
	w.Unlock()
	keys, ok := s.others(since, all)
	for k := range keys {
		s.Remove(k)
	}
	if !ok || s.Fenced() {
		return // it is another's affair
	}
	w.Lock()
	defer w.Unlock()
	for own, done := range since {
		i := w.at[own]
		if s.fences.swept[i].since.CompareAndSwap(done, 0) {
			delete(w.at, own)
			w.free = append(w.free, i)
		}
		killpoint()
	}
	s.fences.all.CompareAndSwap(all, 0)
}

// others finds the keys that sweep removes. On the tier below it is not known when something came: it goes. False: that tier
// could not be asked.
func (s *Store) others(since map[Key]int64, all int64) (keys map[Key]bool, ok bool) {
	keys, ok = map[Key]bool{}, true
	meant := func(k Key, uri []byte, came int64) bool {
		own := s.keyOfURI(uri)
		return k != own && k != own.Parts() && came < max(since[own], all)
	}
	if l := s.lower.Load(); l != nil {
		ok = (*l).Purge(func(k Key, uri, _ []byte) bool {
			if !meant(k, uri, 0) {
				return false
			}
			keys[k] = true
			return true
		})
	}
	s.Walk(func(o *Object) bool {
		if meant(o.Key(), o.URI(), o.Meta().ResponseTime) {
			keys[o.Key()] = true
		}
		return true
	})
	return keys, ok
}
