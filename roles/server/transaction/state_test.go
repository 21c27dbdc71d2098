package transaction

import (
	"strings"
	"testing"
)

// legal says what may happen in each state, and what state it leads to.
var legal = map[state]map[event]state{
	idle:       {evBegin: looking, evEnd: idle},
	looking:    {evAnswer: answering, evFetch: waiting},
	waiting:    {evAnswer: answering, evAgain: looking, evApart: looking, evSwitched: tunnelling, evEnd: idle},
	answering:  {evMoved: answering, evEnd: idle},
	tunnelling: {evEnd: idle},
}

func TestEveryCellOfTheTable(t *testing.T) {
	for s := range numStates {
		for ev := range numEvents {
			next, ok := legal[s][ev]
			cell := steps[s][ev]
			if (cell.do != nil) != ok {
				t.Errorf("%v while %v: an action %v, want %v", ev, s, cell.do != nil, ok)
			}
			if ok && cell.next != next {
				t.Errorf("%v while %v leads to %v, want %v", ev, s, cell.next, next)
			}
			if !ok {
				expectPanic(t, s, ev)
			}
		}
	}
}

func expectPanic(t *testing.T, s state, ev event) {
	defer func() {
		text, _ := recover().(string)
		if !strings.HasPrefix(text, "transaction: ") || !strings.Contains(text, ev.String()+" while "+s.String()) {
			t.Errorf("%v while %v: panicked with %q", ev, s, text)
		}
	}()
	(&Transaction{state: s}).on(ev)
}
