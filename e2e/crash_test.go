package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"trafficd/e2e/harness"
)

// crashRecord is what `trafficd ctl crash --json` says of a death, as far as stories ask.
type crashRecord struct {
	ID   string `json:"id"`
	Dead struct {
		Role string `json:"role"`
		PID  int    `json:"pid"`
	} `json:"dead"`
	Status struct {
		Known  bool `json:"known"`
		Signal int  `json:"signal"`
		Code   int  `json:"code"`
	} `json:"status"`
	Standby   bool   `json:"standby"`
	Cause     string `json:"cause"`
	Reason    string `json:"reason"`
	Successor *struct {
		PID int `json:"pid"`
	} `json:"successor"`
	TookMS float64 `json:"took_ms"`
	Stacks string  `json:"stacks"`
}

// crashes asks for the list.
func crashes(t *testing.T, p *harness.Trafficd) []crashRecord {
	t.Helper()
	r := p.Ctl("crash", "list", "--json")
	var list struct {
		Crashes []crashRecord `json:"crashes"`
	}
	if err := json.Unmarshal([]byte(r.Stdout), &list); err != nil || r.Code != 0 {
		t.Fatalf("ctl crash list --json: exit code %d, %v: %s%s", r.Code, err, r.Stdout, r.Stderr)
	}
	return list.Crashes
}

// waitCrash waits for the record of a death to be as cond wants it, and asks for all of it: records are written beside
// the work.
func waitCrash(t *testing.T, p *harness.Trafficd, pid int, cond func(crashRecord) bool) crashRecord {
	t.Helper()
	var found crashRecord
	harness.WaitFor(t, "the record of a death", func() bool {
		for _, c := range crashes(t, p) {
			if c.Dead.PID == pid && cond(c) {
				found = c
				return true
			}
		}
		return false
	})
	r := p.Ctl("crash", "show", found.ID, "--json")
	var full crashRecord
	if err := json.Unmarshal([]byte(r.Stdout), &full); err != nil || r.Code != 0 {
		t.Fatalf("ctl crash show %s --json: exit code %d, %v: %s%s", found.ID, r.Code, err, r.Stdout, r.Stderr)
	}
	return full
}

// complete is what a record of a child of the manager or of cop comes to be: its successor and its supervisor write their
// parts in any order. How a cop ended that is no child of the manager the kernel may not tell.
func complete(c crashRecord) bool {
	return c.Successor != nil && (c.Status.Known || c.Dead.Role == string(harness.Cop))
}

// "kill -9 the server, and ctl crash list shows it": each role's death, with how it ended and who came after it.
func TestCrashesAreOnRecord(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	if r := p.Ctl("crash", "list"); r.Code != 0 || r.Stdout != "no crash is recorded\n" {
		t.Errorf("ctl crash list: exit code %d, %q%s", r.Code, r.Stdout, r.Stderr)
	}
	for _, role := range []harness.Role{harness.Server, harness.Manager, harness.Cop} {
		old := p.Kill(role)
		next := p.WaitReplaced(role, old.PID)
		c := waitCrash(t, p, old.PID, complete)
		if c.Dead.Role != string(role) || c.Successor.PID != next {
			t.Errorf("record of the %s: %+v, want it followed by %d", role, c, next)
		}
		// Of a cop that is no child of the manager the kernel may not tell how it ended.
		if role != harness.Cop && (c.Status.Signal != 9 || c.Cause != "killed from outside") {
			t.Errorf("record of the %s: %+v, want signal 9", role, c)
		}
	}
	human := p.Ctl("crash", "list")
	if human.Code != 0 || !strings.Contains(human.Stdout, "signal 9 (killed)") {
		t.Errorf("ctl crash list: exit code %d, %s%s", human.Code, human.Stdout, human.Stderr)
	}
	if r := p.Ctl("crash", "show", "server-1-1"); r.Code != 64 || !strings.Contains(r.Stderr, "did you mean") {
		t.Errorf("ctl crash show of an unknown one: exit code %d, %s", r.Code, r.Stderr)
	}
}

// A process that crashes by itself leaves the stacks of its goroutines. No panic can be provoked from outside; a signal
// that the runtime does not know how to handle takes the same path.
func TestStacksAreOnRecord(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	for _, role := range []harness.Role{harness.Server, harness.Manager} {
		old := p.Signal(role, unix.SIGABRT)
		p.WaitReplaced(role, old.PID)
		c := waitCrash(t, p, old.PID, complete)
		if !strings.Contains(c.Stacks, "SIGABRT") || !strings.Contains(c.Stacks, "goroutine ") || c.Status.Code != 2 {
			t.Errorf("record of the %s: %+v", role, c)
		}
		if r := p.Ctl("crash", "show", "last"); r.Code != 0 || !strings.Contains(r.Stdout, "STACKS\nSIGABRT") {
			t.Errorf("ctl crash show last: exit code %d, %s%s", r.Code, r.Stdout, r.Stderr)
		}
	}
}

// A hang is recorded with the gate's reason, though the manager that sees the death did not send the signal.
func TestHangIsOnRecord(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, quick())
	old := p.Stop(harness.Server)
	p.WaitReplaced(harness.Server, old.PID)
	c := waitCrash(t, p, old.PID, func(c crashRecord) bool { return c.Cause == "killed by the gate" && c.Status.Known })
	if c.Status.Signal != 9 || !strings.Contains(c.Reason, "no progress") {
		t.Errorf("record %+v", c)
	}
}

// A server that spins is made to leave its stacks before it is killed.
func TestStacksOfAHangAreOnRecord(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, hooks(), quick(), harness.Panicking())
	p.Standby()
	old := p.PID(harness.Server)
	p.Client().Dial().Send(harness.Request("GET", "/", "", "Trafficd-Test: spin")).Read("GET").ExpectStatus(502)
	c := waitCrash(t, p, old, complete)
	if c.Cause != "killed by the gate" || !strings.Contains(c.Stacks, "SIGABRT") || !strings.Contains(c.Stacks, "goroutine ") {
		t.Errorf("record %+v", c)
	}
}

// A standby that dies is on record as one, and nobody follows it; a server that makes way for its standby as one that was
// asked to.
func TestStandbyAndPlannedEndAreOnRecord(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	first := p.Standby()
	p.KillPID(first).WaitGone(t)
	second := p.Standby(first)
	c := waitCrash(t, p, first, func(c crashRecord) bool { return c.Status.Known })
	if !c.Standby || c.Successor != nil || c.Cause != "killed from outside" {
		t.Errorf("record of the standby: %+v", c)
	}
	old := p.PID(harness.Server)
	if r := p.Ctl("restart", "server"); r.Code != 0 {
		t.Fatalf("ctl restart server: exit code %d, %s", r.Code, r.Stderr)
	}
	c = waitCrash(t, p, old, func(c crashRecord) bool { return complete(c) && c.Cause == "asked for" })
	if c.Standby || c.Successor.PID != second || c.Reason != "restart" {
		t.Errorf("record of the server: %+v", c)
	}
}

// When everything is down the records are read without anybody's help; and a stop in good order leaves nothing but them.
func TestCrashesOutliveTheInstance(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	old := p.Kill(harness.Server)
	p.WaitReplaced(harness.Server, old.PID)
	c := waitCrash(t, p, old.PID, complete)
	p.Terminate()
	if list := crashes(t, p); len(list) != 1 || list[0].ID != c.ID {
		t.Errorf("records after the end: %+v", list)
	}
	entries, err := os.ReadDir(filepath.Join(p.RunRoot, "crashes"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), c.ID+".") {
			t.Errorf("%s is left behind", e.Name())
		}
	}
}
