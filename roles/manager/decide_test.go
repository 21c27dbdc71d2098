package manager

import "testing"

// Every cell of the table, written down a second time and by another rule: what the manager
// does must follow from what it is for.
func TestEveryCell(t *testing.T) {
	for a := range numActiveViews {
		for n := range numNextViews {
			want := wait
			switch {
			case n == nextOverdue:
				want = abort // a start that takes too long is given up, whatever else there is
			case a == activeBurying:
				// Until a dead server is made sure of, nobody follows it.
			case n == nextWanted:
				want = spawn // the operator's wish does not wait for a back-off
			case n == nextDue && a != activeServing:
				want = spawn // clients are without a server
			}
			if got := decide(a, n); got != want {
				t.Errorf("%v server, next %v: %v, want %v", a, n, got, want)
			}
		}
	}
}

func TestNames(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range []string{
		activeNone.String(), activeBurying.String(), activeServing.String(), activeLeaving.String(),
		nextHeld.String(), nextDue.String(), nextWanted.String(), nextStarting.String(), nextOverdue.String(),
		wait.String(), spawn.String(), abort.String(),
		running.String(), leaving.String(), draining.String(), stopping.String(),
	} {
		if s == "" || (seen[s] && s != "leaving") {
			t.Errorf("name %q is empty or not unique", s)
		}
		seen[s] = true
	}
	if got := numActions.String(); got != "3" {
		t.Errorf("a value without a name is %q, want its number", got)
	}
}
