package eventloop

import (
	"math/bits"
	"time"
)

// Buckets is how many classes of duration a [Histogram] has.
const Buckets = 17

// Bounds are the upper bounds of all classes but the last, which has none, in ns: three to a power of ten.
var Bounds = [Buckets - 1]uint64{
	1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6, 2e6, 5e6, 1e7, 2e7, 5e7, 1e8,
}

// A Histogram is how many handlers took how long: Histogram[i] of them at most Bounds[i].
type Histogram [Buckets]uint64

// first is the first class that a number of so many bits can belong to: its class is that one or one of
// the next two.
var first = func() (t [65]uint8) {
	for n := range t {
		for t[n] < Buckets-1 && n > 0 && Bounds[t[n]] < 1<<(n-1) {
			t[n]++
		}
	}
	return t
}()

// class is the class of a duration in ns.
func class(ns uint64) int {
	i := int(first[bits.Len64(ns)])
	for i < Buckets-1 && ns > Bounds[i] {
		i++
	}
	return i
}

// Count is the number of handlers.
func (h *Histogram) Count() (n uint64) {
	for _, c := range h {
		n += c
	}
	return n
}

// Add adds those of another loop.
func (h *Histogram) Add(o Histogram) {
	for i, c := range o {
		h[i] += c
	}
}

// Quantile returns the duration that the fraction q of the handlers did not exceed, to within a
// class: it is taken for granted that those of a class are spread evenly. 0 without handlers. In the
// last class the answer is its lower bound.
func (h *Histogram) Quantile(q float64) time.Duration {
	n := h.Count()
	if n == 0 {
		return 0
	}
	rank := q * float64(n)
	below, low := 0.0, uint64(0)
	for i, c := range h {
		if c > 0 && below+float64(c) >= rank {
			if i == Buckets-1 {
				break
			}
			return time.Duration(float64(low) + float64(Bounds[i]-low)*max(rank-below, 0)/float64(c))
		}
		below += float64(c)
		if i < Buckets-1 {
			low = Bounds[i]
		}
	}
	return time.Duration(low)
}
