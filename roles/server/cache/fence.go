package cache

import (
	"sync/atomic"
	"unsafe"
)

// A purge has to win against what is on its way: a response that was asked for before it and comes after it. So each
// purge puts up a fence, and what is about to become findable is compared with the fences that were put up since
// its request was sent (Meta.Born). A fence is a number beside the hash of what is purged, in one of the places of a set. Who needs a
// place in a full set takes the oldest, and what was asked for before that one is not stored: so now and then, when very many
// are purged while it is on its way, a response is not stored although no purge was meant for it, and never the other way round. What an
// unsafe request has changed (RFC 9111 §4.4) is purged like that, too (Outdate).
//
// A prefix has no place, since a response has too many of them. The last few are listed, and what is older than the
// oldest of them is not stored.
type fenceBook struct {
	serial atomic.Uint64 // purges begun
	tagged atomic.Uint64 // the last of those by tag
	floor  atomic.Uint64 // the newest by prefix that is not listed any more
	told   atomic.Uint32 // not 0: one URI may have several keys (NoteKeys)
	_      [4]byte
	all    atomic.Int64  // see sweeping
	spread atomic.Uint64 // the last of those by prefix
	_      [16]byte

	prefixes [fencePrefixes]prefixFence
	sets     [fenceSets]fenceSet
	swept    [maxSwept]sweepEntry
}

type prefixFence struct {
	serial atomic.Uint64 // 0 while the others are written
	hash   atomic.Uint64
	length atomic.Uint64
}

const (
	fencePrefixes = 64
	fenceSets     = 512
	fenceWays     = 7
	fenceSize     = uint64(unsafe.Sizeof(fenceBook{}))
)

// Kinds of text that fences and slots are made of.
const (
	textURI byte = 1 + iota
	textPrefix
	textTag
)

func (s *Store) hashText(kind byte, text []byte) uint64 {
	var h sipHash
	h.init(s.super.seed[0], s.super.seed[1])
	h.writeByte(kind)
	h.write(text)
	k := h.sum()
	return k.low()
}

// fenceSet holds the fences of texts with like hashes.
type fenceSet struct {
	floor  atomic.Uint64 // the newest that had to give up its place
	serial [fenceWays]atomic.Uint64
	hash   [fenceWays]atomic.Uint64
	_      uint64
}

// put has a text's fence be serial. The caller holds Store.fencing.
func (f *fenceSet) put(hash, serial uint64) {
	way := 0
	for i := range f.serial {
		if f.hash[i].Load() == hash {
			way = i
			break
		}
		if f.serial[i].Load() < f.serial[way].Load() {
			way = i
		}
	}
	if f.hash[way].Load() != hash {
		// A reader who misses the old fence finds the floor, which it looks at last.
		f.floor.Store(max(f.floor.Load(), f.serial[way].Load()))
		killpoint()
		f.serial[way].Store(0)
		killpoint()
		f.hash[way].Store(hash)
		killpoint()
	}
	f.serial[way].Store(serial)
	killpoint()
}

// after tells whether there is, or may have been, a fence of a text that was put up after born.
func (f *fenceSet) after(born, hash uint64) bool {
	for i := range f.serial {
		if f.serial[i].Load() > born && f.hash[i].Load() == hash {
			return true
		}
	}
	return f.floor.Load() > born
}

func (s *Store) bar(kind byte, text []byte, serial uint64) {
	h := s.hashText(kind, text)
	s.fences.sets[h%fenceSets].put(h, serial)
}

func (s *Store) barred(kind byte, text []byte, born uint64) bool {
	h := s.hashText(kind, text)
	return s.fences.sets[h%fenceSets].after(born, h)
}

// Sequence is the number of purges so far. Whoever sends a request whose response may be stored notes it before, for
// Meta.Born.
func (s *Store) Sequence() uint64 { return s.fences.serial.Load() }

// putUp puts up the fences of a purge.
func (s *Store) putUp(p *Purge) {
	s.fencing.Lock()
	defer s.fencing.Unlock()
	b := s.fences
	serial := b.serial.Add(1)
	killpoint()
	for _, t := range p.Tags {
		s.bar(textTag, t, serial)
		b.tagged.Store(serial)
		killpoint()
	}
	if p.URI != nil {
		s.bar(textURI, p.URI, serial)
	}
	if p.Prefix != nil {
		b.spread.Store(serial)
		killpoint()
		f := &b.prefixes[serial%fencePrefixes]
		if old := f.serial.Load(); old > b.floor.Load() {
			b.floor.Store(old)
		}
		killpoint()
		f.serial.Store(0)
		killpoint()
		f.hash.Store(s.hashText(textPrefix, p.Prefix))
		f.length.Store(uint64(len(p.Prefix)))
		killpoint()
		f.serial.Store(serial)
		killpoint()
	}
}

// Outrun tells whether a purge has come since born that a response with this URI is, or may be, meant by. A nil
// head is not known yet: then any purge by tag may be meant.
func (s *Store) Outrun(born uint64, uri, head []byte) bool {
	b := s.fences
	if b.serial.Load() <= born {
		return false
	}
	if s.barred(textURI, uri, born) {
		return true
	}
	if b.spread.Load() > born && s.outrunByPrefix(born, uri) {
		return true
	}
	if b.tagged.Load() <= born {
		return false
	}
	return head == nil || s.opts.Tags != nil && s.opts.Tags(head, func(tag []byte) bool { return s.barred(textTag, tag, born) })
}

func (s *Store) outrunByPrefix(born uint64, uri []byte) bool {
	b := s.fences
	for i := range b.prefixes {
		f := &b.prefixes[i]
		if f.serial.Load() <= born {
			continue
		}
		// Another purge may be taking the fence over: its length is read once, and whose fence it was is found below.
		if n := f.length.Load(); n <= uint64(len(uri)) && s.hashText(textPrefix, uri[:n]) == f.hash.Load() {
			return true
		}
	}
	return b.floor.Load() > born
}

// Outdate says that what was asked for of a URI before now is out of date: it will not be stored. What is stored is
// for Remove, which comes after it.
func (s *Store) Outdate(uri []byte) {
	if !s.Fenced() {
		s.putUp(&Purge{URI: uri})
	}
}
