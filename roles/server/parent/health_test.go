package parent

import "testing"

// Every cell of the table, with what is needed for its condition to hold, and without.
func TestHealthCellByCell(t *testing.T) {
	r := rules{threshold: 2, downTime: 100, rise: 2, fall: 3, now: 1000}
	near := health{fails: 1, good: 1, bad: 2, until: 500} // one more of anything is enough
	far := health{until: 500}
	type cell struct {
		state State
		ev    event
		from  health
		want  State
		taken bool
		fails int
		until int64
	}
	for _, c := range []cell{
		{Up, evPass, near, Up, true, 0, 500},
		{Up, evFail, far, Up, false, 1, 500},
		{Up, evFail, near, Down, true, 2, 1100},
		{Up, evProbe, near, Up, false, 1, 500},
		{Up, evAbandon, near, Up, true, 1, 500},
		{Up, evGood, near, Up, true, 1, 500},
		{Up, evBad, far, Up, false, 0, 500},
		{Up, evBad, near, Sick, true, 1, 500},

		{Down, evPass, near, Up, true, 0, 500},
		{Down, evFail, near, Down, true, 1, 500},
		{Down, evProbe, near, Probing, true, 1, 500},
		{Down, evAbandon, near, Down, true, 1, 500},
		{Down, evGood, far, Down, false, 0, 500},
		{Down, evGood, near, Up, true, 0, 500},
		{Down, evBad, far, Down, false, 0, 500},
		{Down, evBad, near, Sick, true, 1, 500},

		{Probing, evPass, near, Up, true, 0, 500},
		{Probing, evFail, far, Down, true, 0, 1100},
		{Probing, evProbe, near, Probing, false, 1, 500},
		{Probing, evAbandon, near, Down, true, 1, 1000},
		{Probing, evGood, far, Probing, false, 0, 500},
		{Probing, evGood, near, Up, true, 0, 500},
		{Probing, evBad, far, Probing, false, 0, 500},
		{Probing, evBad, near, Sick, true, 1, 500},

		{Sick, evPass, near, Sick, true, 1, 500},
		{Sick, evFail, near, Sick, true, 1, 500},
		{Sick, evProbe, near, Sick, false, 1, 500},
		{Sick, evAbandon, near, Sick, true, 1, 500},
		{Sick, evGood, far, Sick, false, 0, 500},
		{Sick, evGood, near, Up, true, 0, 500},
		{Sick, evBad, near, Sick, true, 1, 500},
	} {
		h := c.from
		h.state = c.state
		taken := h.on(c.ev, &r)
		if h.state != c.want || taken != c.taken || h.fails != c.fails || h.until != c.until {
			t.Errorf("%v while %v: got %v, taken %v, %d fails, until %d; want %v, %v, %d, %d",
				c.ev, c.state, h.state, taken, h.fails, h.until, c.want, c.taken, c.fails, c.until)
		}
	}
	for s := range numStates {
		for ev := range numEvents {
			if steps[s][ev].do == nil {
				t.Errorf("%v while %v has no cell", ev, s)
			}
		}
	}
}

func TestAServerIsNeverMarkedDownWithoutAThreshold(t *testing.T) {
	var h health
	for range 1000 {
		h.on(evFail, &rules{})
	}
	if h.state != Up {
		t.Errorf("it is %v", h.state)
	}
}

// A check that passes in between begins the count anew.
func TestChecksCountInARow(t *testing.T) {
	r := rules{rise: 2, fall: 2}
	var h health
	for _, s := range []struct {
		ev   event
		want State
	}{{evBad, Up}, {evGood, Up}, {evBad, Up}, {evBad, Sick}, {evGood, Sick}, {evBad, Sick}, {evGood, Sick}, {evGood, Up}} {
		if h.on(s.ev, &r); h.state != s.want {
			t.Fatalf("after %v: %v, want %v", s.ev, h.state, s.want)
		}
	}
}
