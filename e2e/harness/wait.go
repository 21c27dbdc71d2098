package harness

import (
	"testing"
	"time"
)

const (
	// Patience is how long anything is waited for that has to happen. It is a bound
	// for "never", not an expectation: a loaded machine must not fail a story.
	Patience = 40 * time.Second

	pollEvery = 2 * time.Millisecond
)

// WaitFor polls cond until it holds. It is meant for what only the operating
// system can tell, such as the text of a file or the state of a process; what an
// actor does is waited for by that actor's own channels.
func WaitFor(t testing.TB, what string, cond func() bool) {
	t.Helper()
	if !poll(Patience, cond) {
		t.Fatalf("waited %v in vain for: %s", Patience, what)
	}
}

// Receive takes one value from ch.
func Receive[T any](t testing.TB, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(Patience):
		t.Fatalf("waited %v in vain for: %s", Patience, what)
		panic("unreachable")
	}
}

// Holds polls cond for the whole of d and fails as soon as it does not hold. It
// is for the opposite of waiting: something must NOT happen during a window which
// the product itself defines, such as two missed heartbeats.
func Holds(t testing.TB, d time.Duration, what string, cond func() bool) {
	t.Helper()
	if poll(d, func() bool { return !cond() }) {
		t.Fatalf("did not hold for %v: %s", d, what)
	}
}

func poll(limit time.Duration, cond func() bool) bool {
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if cond() {
			return true
		}
		if time.Now().After(deadline) {
			return cond()
		}
		<-tick.C
	}
}
