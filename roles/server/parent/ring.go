package parent

import (
	"cmp"
	"slices"
	"strconv"
)

// A ring gives each server points on a circle of hashes; a key belongs to the server of the next point. With the
// death of a server its keys go to the servers of the points behind its own, and no other key moves.
type ring []point

type point struct {
	hash   uint64
	server int
}

// points is how many a server of weight 1 has: with 160 the shares of equal servers differ by some per cent
// (Karger et al. 1997; the number is ketama's).
const points = 160

func newRing(servers []*Server) ring {
	var r ring
	for i, s := range servers {
		for n := range points * s.weight {
			r = append(r, point{Hash([]byte(s.name + "/" + strconv.Itoa(n))), i})
		}
	}
	slices.SortFunc(r, func(a, b point) int {
		return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.server, b.server))
	})
	return r
}

// from calls f with the servers in the order in which a key falls to them, until it returns true.
func (r ring) from(key uint64, f func(server int) bool) {
	at, _ := slices.BinarySearchFunc(r, key, func(p point, k uint64) int { return cmp.Compare(p.hash, k) })
	var asked Set
	for i := range r {
		p := r[(at+i)%len(r)]
		if !asked.Has(p.server) {
			asked.Add(p.server)
			if f(p.server) {
				return
			}
		}
	}
}

// Hash is the hash of the parts of a key, each ended by a zero byte: FNV-1a, and a last step that spreads what differs in
// the last bytes over all bits (the finaliser of MurmurHash3), since neighbours on the ring are compared from the
// highest bit on.
func Hash(parts ...[]byte) uint64 {
	h := uint64(14695981039346656037)
	for _, p := range parts {
		for _, c := range p {
			h = (h ^ uint64(c)) * 1099511628211
		}
		h *= 1099511628211
	}
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// Set is a set of servers of one group, by their number. MaxServers is how many there can be.
type Set uint64

// MaxServers is the most servers of one group.
const MaxServers = 64

// Has reports whether server n is in the set.
func (s Set) Has(n int) bool { return s&(1<<n) != 0 }

// Add puts server n into the set.
func (s *Set) Add(n int) { *s |= 1 << n }
