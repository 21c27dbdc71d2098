package supervise

import (
	"testing"
	"time"
)

var t0 = time.Unix(1e9, 0)

func TestFailedStartsDoubleUpToAMinute(t *testing.T) {
	b := NewBackoff(BackoffPolicy{})
	for i, want := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60} {
		if got := b.Died(t0, 0); got != want*time.Second {
			t.Errorf("failure %d: got %v, want %vs", i+1, got, int(want))
		}
	}
}

func TestJitterAddsUpToHalfAndNeverPassesTheMaximum(t *testing.T) {
	b := NewBackoff(BackoffPolicy{Jitter: func() float64 { return 0.5 }})
	for i, want := range []time.Duration{1250, 2500, 5000, 10000, 20000, 40000, 60000, 60000} {
		if got := b.Died(t0, 0); got != want*time.Millisecond {
			t.Errorf("failure %d: got %v, want %v", i+1, got, want*time.Millisecond)
		}
	}
}

func TestReadyProcessIsReplacedAtOnceWithinTheBudget(t *testing.T) {
	b := NewBackoff(BackoffPolicy{})
	now := t0
	for i := range 30 {
		if got := b.Died(now, time.Second); got != 0 {
			t.Fatalf("death %d: got %v, want at once", i+1, got)
		}
		now = now.Add(time.Second)
	}
	for i, want := range []time.Duration{1, 2, 4} {
		if got := b.Died(now, time.Second); got != want*time.Second {
			t.Errorf("death %d beyond the budget: got %v, want %vs", i+1, got, int(want))
		}
	}
	// The first restart leaves the window after a minute and makes room for one.
	now = t0.Add(time.Minute)
	if got := b.Died(now, time.Second); got != 0 {
		t.Errorf("with room in the window: got %v, want at once", got)
	}
	if got := b.Died(now, time.Second); got != 8*time.Second {
		t.Errorf("without room again: got %v, want 8s: the delay must not have been reset", got)
	}
}

func TestOnlySustainedReadinessResetsTheDelay(t *testing.T) {
	b := NewBackoff(BackoffPolicy{Budget: -1})
	for range 3 {
		b.Died(t0, 0)
	}
	if got := b.Died(t0, 59*time.Second); got != 8*time.Second {
		t.Errorf("ready for 59 s: got %v, want 8s", got)
	}
	if got := b.Died(t0, 60*time.Second); got != time.Second {
		t.Errorf("ready for 60 s: got %v, want 1s", got)
	}
	b.Reset()
	if got := b.Step(); got != 0 {
		t.Errorf("after Reset: step %d, want 0", got)
	}
}

func TestFlapHoldsAManagerAfterThreeFailedStarts(t *testing.T) {
	f := NewFlap(FlapPolicy{})
	for i, at := range []time.Duration{0, 20 * time.Second, 40 * time.Second} {
		if got, want := f.Failed(t0.Add(at)), i == 2; got != want {
			t.Errorf("failure %d: tripped %v, want %v", i+1, got, want)
		}
	}
	now := t0.Add(50 * time.Second)
	if got := f.Held(now); got != 50*time.Second {
		t.Errorf("held for %v, want 50s more", got)
	}
	if got := f.Delay(now, 4*time.Second, true); got != 50*time.Second {
		t.Errorf("with a server up: wait %v, want the rest of the hold", got)
	}
	if got := f.Delay(now, 4*time.Second, false); got != 4*time.Second {
		t.Errorf("without a server: wait %v, want the back-off's 4s", got)
	}
	if got := f.Held(t0.Add(100 * time.Second)); got != 0 {
		t.Errorf("after the hold: %v left, want none", got)
	}
}

func TestFlapForgetsFailuresOutsideTheWindow(t *testing.T) {
	f := NewFlap(FlapPolicy{})
	for i := range 20 {
		if f.Failed(t0.Add(time.Duration(i) * 31 * time.Second)) {
			t.Fatalf("failure %d, 31 s apart: tripped", i+1)
		}
	}
}

func TestFlapResetEndsTheHold(t *testing.T) {
	f := NewFlap(FlapPolicy{Starts: 1})
	f.Failed(t0)
	f.Reset()
	if got := f.Held(t0); got != 0 {
		t.Errorf("held for %v after Reset", got)
	}
}

// A storm of kills from outside is masked for as long as the machine can start processes;
// what dies by itself meanwhile still has its own, small budget.
func TestDeathsFromOutsideHaveABudgetOfTheirOwn(t *testing.T) {
	b := NewBackoff(BackoffPolicy{})
	for i := range 600 {
		if got := b.DiedOutside(t0.Add(time.Duration(i)*100*time.Millisecond), time.Millisecond); got != 0 {
			t.Fatalf("kill %d: got %v, want at once", i+1, got)
		}
	}
	now := t0.Add(59 * time.Second)
	for i := range 30 {
		if got := b.Died(now, time.Second); got != 0 {
			t.Fatalf("own death %d: got %v, want at once", i+1, got)
		}
	}
	if got := b.Died(now, time.Second); got != time.Second {
		t.Errorf("own death beyond the budget: got %v, want 1s", got)
	}
	if got := b.DiedOutside(now, time.Second); got == 0 {
		t.Error("kill 601 within a minute: at once")
	}
	if got := NewBackoff(BackoffPolicy{}).DiedOutside(t0, 0); got != time.Second {
		t.Errorf("killed before it was ready: got %v, want 1s: it might never become ready", got)
	}
}
