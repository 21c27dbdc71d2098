package manager

import "testing"

func (a action) String() string { return name(a, "wait", "spawn", "abort", "relieve") }

// Every cell of the tables, written down a second time and by another rule: what the manager
// does must follow from what it is for.
func TestEveryCell(t *testing.T) {
	for _, custody := range []bool{false, true} {
		for a := range numActiveViews {
			for n := range numNextViews {
				want := wait
				switch {
				case n == nextOverdue:
					want = abort // a start that takes too long is given up, whatever else there is
				case a == activeBurying:
					// Until a dead server is made sure of, nothing is begun, and a standby left alone.
				case n == nextUnfit:
					want = abort
				case n == nextWanted:
					want = spawn // the operator's wish does not wait for a back-off
				case n == nextDue && (a != activeServing || custody):
					want = spawn // clients are without a server, or the server is without a standby
				case a == activeServing && n == nextCalled, a == activeLeaving && (n == nextCalled || n == nextStanding):
					want = relieve
				}
				if got := decide(custody, a, n); got != want {
					t.Errorf("custody %v, %v server, next %v: %v, want %v", custody, a, n, got, want)
				}
			}
		}
	}
}

func TestNames(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range []string{
		activeNone.String(), activeBurying.String(), activeServing.String(), activeLeaving.String(),
		nextHeld.String(), nextDue.String(), nextWanted.String(), nextStarting.String(), nextOverdue.String(),
		nextStanding.String(), nextCalled.String(), nextUnfit.String(),
		running.String(), leaving.String(), draining.String(), stopping.String(),
	} {
		if s == "" || (seen[s] && s != "leaving") {
			t.Errorf("name %q is empty or not unique", s)
		}
		seen[s] = true
	}
	if got := numActions.String(); got != "4" {
		t.Errorf("a value without a name is %q, want its number", got)
	}
}
