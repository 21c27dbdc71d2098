package cache

import (
	"fmt"
	"math/rand/v2"
)

// work is a random stream of operations on a few keys, which checks whatever it reads.
type work struct{ *rand.Rand }

func newWork(seed uint64) work { return work{rand.New(rand.NewPCG(seed, 2))} }

var workVaries = [...]string{"", "accept-encoding: gzip\r\n", "accept-encoding: br\r\n"}

func (r work) size() int {
	switch r.IntN(20) {
	case 0:
		return r.IntN(200_000)
	case 1, 2, 3:
		return r.IntN(30_000)
	}
	return r.IntN(3000)
}

// step does one operation; not "" is what was found to be wrong.
func (r work) step(s *Store, a *Arena) string {
	k := keyN(uint64(r.IntN(300)))
	switch r.IntN(10) {
	case 0:
		switch r.IntN(5) {
		case 0:
			s.Remove(k)
		case 1:
			s.tend()
		case 2:
			return r.purge(s, k)
		}
	case 1:
		return r.update(a, k)
	case 2, 3, 4, 5:
		return r.store(a, k)
	default:
		return r.lookup(a, k)
	}
	return ""
}

// purge purges one or many. Nothing that was there before may be found after it; others may store it anew meanwhile, so only
// the bodies are looked at.
func (r work) purge(s *Store, k Key) string {
	p := Purge{URI: uriOf(k), Soft: r.IntN(2) == 0}
	if r.IntN(4) == 0 {
		p = Purge{Prefix: uriOf(k)[:len("example.org/")+1]}
	}
	if _, err := s.Purge(&p); err != nil && !s.Fenced() {
		return "purge: " + err.Error()
	}
	return ""
}

func (r work) lookup(a *Arena, k Key) string {
	o, ok := a.Lookup(k, nil)
	if !ok {
		return ""
	}
	defer o.Release()
	return verify(&o, k)
}

func verify(o *Object, k Key) string {
	if v, ok := intactVersion(o); !ok || o.Key() != k {
		return fmt.Sprintf("object %x version %d of %d bytes is not what was stored", k, v, o.BodyLen())
	}
	return ""
}

func (r work) store(a *Arena, k Key) string {
	o, err := tryStore(a, k, byte(r.IntN(256)), workVaries[r.IntN(3)], r.size(), r.IntN(2) == 0)
	if err != nil {
		return "" // small stores run out of unpinned segments
	}
	defer o.Release()
	return verify(&o, k)
}

// update raises the version of the head; LastModified keeps the distance to the body's.
func (r work) update(a *Arena, k Key) string {
	o, ok := a.Lookup(k, nil)
	if !ok {
		return ""
	}
	defer o.Release()
	m := o.hdr.meta
	m.Lifetime = int64(byte(m.Lifetime + 1))
	m.LastModified = int64(byte(m.LastModified - 1))
	n, err := a.Update(&o, &m, sampleHead(byte(m.Lifetime)))
	if err != nil {
		return ""
	}
	defer n.Release()
	return verify(&n, k)
}
