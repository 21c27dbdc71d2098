package supervise

import (
	"testing"
)

// TestEveryCell spells the table out a second time, in the words of the rules, so
// that a slip in one of the two is seen.
func TestEveryCell(t *testing.T) {
	type cell struct {
		s State
		e Event
	}
	// What is not listed must leave the state alone and ask for nothing.
	want := map[cell]step{
		{Stopped, Started}:     {Starting, AwaitReady},
		{Stopped, Adopted}:     {Ready, Announce},
		{Starting, Adopted}:    {Ready, Announce},
		{Starting, NowReady}:   {Ready, Announce},
		{Starting, Stop}:       {Draining, Drain},
		{Starting, Exit}:       {Stopped, RestartFailed},
		{Starting, Deadline}:   {Starting, Kill},
		{Ready, Stop}:          {Draining, Drain},
		{Ready, Exit}:          {Stopped, Restart},
		{Ready, Wedged}:        {Ready, Kill},
		{Draining, Exit}:       {Stopped, Finish},
		{Draining, Deadline}:   {Draining, Kill},
		{Starting, NowStandby}: {Standby, Nothing},
		{Standby, Adopted}:     {Ready, Announce},
		{Standby, NowReady}:    {Ready, Announce},
		{Standby, Stop}:        {Draining, Drain},
		{Standby, Exit}:        {Stopped, Restart},
		{Standby, Deadline}:    {Standby, Kill},
		{Standby, Wedged}:      {Standby, Kill},
	}
	for s := State(0); s < numStates; s++ {
		for e := Event(0); e < numEvents; e++ {
			w, ok := want[cell{s, e}]
			if !ok {
				w = step{s, Nothing}
			}
			next, do := Next(s, e)
			if next != w.next || do != w.do {
				t.Errorf("%v × %v: got %v, %v; want %v, %v", s, e, next, do, w.next, w.do)
			}
		}
	}
}

func TestLivenessKillsOnlyAfterReady(t *testing.T) {
	for s := State(0); s < numStates; s++ {
		if _, do := Next(s, Wedged); do == Kill && s != Ready && s != Standby {
			t.Errorf("%v × wedged kills", s)
		}
	}
}

func TestNextPanicsOutsideTheTable(t *testing.T) {
	for _, c := range []struct {
		s State
		e Event
	}{{numStates, Exit}, {Ready, numEvents}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%v × %v: no panic", c.s, c.e)
				}
			}()
			Next(c.s, c.e)
		}()
	}
}

func TestEnumsPrint(t *testing.T) {
	seen := map[string]bool{}
	check := func(s string) {
		t.Helper()
		if s == "" || seen[s] {
			t.Errorf("name %q is empty or used twice in one enumeration", s)
		}
		seen[s] = true
	}
	all := func(n int, name func(i int) string) {
		t.Helper()
		clear(seen)
		for i := range n + 1 {
			check(name(i))
		}
	}
	all(int(numStates), func(i int) string { return State(i).String() })
	all(int(numEvents), func(i int) string { return Event(i).String() })
	all(int(numActions), func(i int) string { return Action(i).String() })
	all(int(numCauses), func(i int) string { return Cause(i).String() })
	all(int(numOutcomes), func(i int) string { return Outcome(i).String() })
	all(int(Dead)+1, func(i int) string { return Verdict(i).String() })
	all(int(KillNone)+1, func(i int) string { return Policy(i).String() })
	all(int(Server)+1, func(i int) string { return Role(i).String() })
}
