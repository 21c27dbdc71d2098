package cop

import (
	"testing"

	"trafficd/roles/internal/config"
)

// TestEveryDecision writes every cell out again, so that a change of the table is a
// change of two places on purpose.
func TestEveryDecision(t *testing.T) {
	const (
		w  = wait
		sp = spawn
		re = replace
		km = killManager
		am = abortManager
		ks = killServer
	)
	//                   down starting up struck wedged draining
	both := map[managerView]row{
		managerHeld:     {w, w, w, w, ks, w},
		managerStarting: {w, w, w, w, w, w},
		managerOverdue:  {am, am, am, am, am, am},
		managerUp:       {w, w, w, w, ks, w},
		managerStruck:   {w, w, w, w, ks, w},
		managerWedged:   {km, km, km, km, km, km},
		managerStopping: {w, w, w, w, w, w},
	}
	down := map[string]row{
		config.Adopt:   {re, sp, sp, sp, re, sp},
		config.Restart: {re, re, re, re, re, re},
	}
	for policy, d := range down {
		both[managerDown] = d
		for m := managerView(0); m < numManagerViews; m++ {
			for s := serverView(0); s < numServerViews; s++ {
				if got, want := decide(policy, m, s), both[m][s]; got != want {
					t.Errorf("%s: manager %v, server %v: got %v, want %v", policy, m, s, got, want)
				}
			}
		}
	}
}

// The rules of design §2.2 that the tables must keep, whatever their cells.
func TestDecisionsKeepTheRules(t *testing.T) {
	for policy := range tables {
		for m := managerView(0); m < numManagerViews; m++ {
			for s := serverView(0); s < numServerViews; s++ {
				a := decide(policy, m, s)
				if a == killServer && s != serverWedged {
					t.Errorf("%s: manager %v kills a server that is %v", policy, m, s)
				}
				if a == killManager && m != managerWedged || a == abortManager && m != managerOverdue {
					t.Errorf("%s: %v for a manager that is %v", policy, a, m)
				}
				if (a == spawn || a == replace) && m != managerDown {
					t.Errorf("%s: %v beside a manager that is %v", policy, a, m)
				}
				if policy == config.Adopt && a == replace && s != serverDown && s != serverWedged {
					t.Errorf("adopt: makes sure that a server that is %v is dead", s)
				}
			}
		}
	}
}

func TestUnknownPolicyIsABug(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	decide("perhaps", managerUp, serverUp)
}

func TestViewsPrint(t *testing.T) {
	for v := range numManagerViews {
		if v.String() == "" || v.String()[0] <= '9' {
			t.Errorf("managerView %d prints %q", v, v)
		}
	}
	for v := range numServerViews {
		if v.String() == "" || v.String()[0] <= '9' {
			t.Errorf("serverView %d prints %q", v, v)
		}
	}
	for a := range numActions {
		if a.String() == "" || a.String()[0] <= '9' {
			t.Errorf("action %d prints %q", a, a)
		}
	}
	if got := numActions.String(); got != "6" {
		t.Errorf("unknown action prints %q", got)
	}
}
