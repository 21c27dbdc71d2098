package transaction

import (
	"slices"
	"testing"
)

// A few purges at a time; the others wait, in the order in which they came, and not too many of them.
func TestPurgesTakeTurns(t *testing.T) {
	var q Purges
	begun, ended := make(chan int, maxPurges+maxPurgesWaiting+1), make(chan struct{})
	do := func(n int) func() { return func() { begun <- n; <-ended } }
	for n := range maxPurges + maxPurgesWaiting {
		if !q.start(do(n)) {
			t.Fatalf("purge %d was refused", n)
		}
	}
	if q.start(do(-1)) {
		t.Error("one more than there may be was taken")
	}
	var order []int
	for range maxPurges {
		order = append(order, <-begun)
	}
	slices.Sort(order) // these are under way together
	for range maxPurgesWaiting {
		if len(begun) > 0 {
			t.Fatal("more are under way than may be")
		}
		ended <- struct{}{}
		order = append(order, <-begun)
	}
	if !slices.IsSorted(order) {
		t.Errorf("the order was %v", order)
	}
	close(ended)
	// Whoever comes when all are done is taken at once.
	if last := len(order); !q.start(do(last)) || <-begun != last {
		t.Error("the last one was not taken")
	}
}
