package session

import "slices"

// blame is which deaths of servers may be a request's doing: the generations that died while they
// worked on it, oldest first. The rest is zeros.
type blame [3]uint64

func (b *blame) count() int {
	n := 0
	for n < len(b) && b[n] != 0 {
		n++
	}
	return n
}

// add notes one more. Of more than there is room for the oldest goes.
func (b *blame) add(generation uint64) {
	n := b.count()
	if n == len(b) {
		copy(b[:], b[1:])
		n--
	}
	b[n] = generation
}

// remove takes those back that something else is to blame for.
func (b *blame) remove(generations []uint64) {
	var left blame
	for _, g := range b[:b.count()] {
		if !slices.Contains(generations, g) {
			left[left.count()] = g
		}
	}
	*b = left
}
