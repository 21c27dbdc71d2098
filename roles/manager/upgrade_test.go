package manager

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"trafficd/roles/internal/link"
	"trafficd/roles/internal/program"
	"trafficd/roles/internal/supervise"
)

// upgraded begins the upgrade of the server and returns the standby from the new executable.
func (w *world) upgrading(second *fakeProcess) (third *fakeProcess) {
	w.t.Helper()
	w.copDials(50)
	w.on(func() {
		if err := w.m.tryServer(&program.Program{Path: "/new", ID: "new"}); err != nil {
			w.t.Fatal(err)
		}
		if err := w.m.tryServer(&program.Program{}); err == nil {
			w.t.Error("a second trial beside the first")
		}
	})
	synctest.Wait()
	if !second.dead() {
		w.t.Error("the standby from the old executable lives")
	}
	third = w.server(3)
	if third.program.ID != "new" {
		w.t.Fatalf("started from %+v", third.program)
	}
	return third
}

// step is what cop was told.
func (w *world) told() program.Step {
	w.t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, b := range w.upgraded {
		return b
	}
	w.t.Fatalf("cop was told nothing\n%s", w.log.String())
	return program.Step{}
}

func TestUpgradeOfTheServer(t *testing.T) {
	custodyStory(t, "upgrade: {probation: 5s}\n", func(w *world) {
		first, second := w.pair()
		third := w.upgrading(second)
		third.stands()
		if first.wasAsked(opYield) != 1 {
			t.Fatalf("asked %q", first.asked)
		}
		first.makesWayFor(third)
		fourth := w.server(4)
		fourth.stands()
		if fourth.program.ID == "new" {
			t.Error("the standby in the probation runs the new executable")
		}
		time.Sleep(5 * time.Second)
		fifth := w.server(5)
		if fifth.program.ID != "new" || !fourth.dead() {
			t.Errorf("after the probation the standby runs %+v", fifth.program)
		}
		if s := w.told(); !s.OK || s.OldPID != first.pid || s.PID != third.pid {
			t.Errorf("step %+v", s)
		}
		w.expect("ready", third)
	})
}

func TestUpgradeOfTheServerIsRolledBack(t *testing.T) {
	for _, faster := range []bool{false, true} {
		custodyStory(t, "upgrade: {probation: 5s}\n", func(w *world) {
			first, second := w.pair()
			third := w.upgrading(second)
			third.stands()
			first.makesWayFor(third)
			fourth := w.server(4)
			fourth.stands()
			time.Sleep(time.Second)
			if faster {
				fourth.takesOver()
				third.die(killed)
			} else {
				third.die(killed)
				synctest.Wait()
				fourth.takesOver()
			}
			if s := w.told(); s.OK || s.PID != fourth.pid || !strings.Contains(s.Text, "rolled back") {
				t.Errorf("step %+v", s)
			}
			if p := w.server(5).program; p.ID == "new" {
				t.Error("the standby after the roll-back runs the new executable")
			}
			w.expect("ready", fourth)
		})
	}
}

// The server dies when its standby has been told to go for the one on trial, and has taken over: the one on trial replaces that.
func TestServerDiesInTheUpgrade(t *testing.T) {
	refusal := &link.RemoteError{Code: link.CodeFailed, Text: "this server has taken over"}
	begin := func(w *world) {
		w.copDials(50)
		w.on(func() {
			if err := w.m.tryServer(&program.Program{Path: "/new", ID: "new"}); err != nil {
				w.t.Fatal(err)
			}
		})
		synctest.Wait()
	}
	t.Run("and the one on trial is killed", func(t *testing.T) {
		custodyStory(t, "", func(w *world) {
			first, second := w.pair()
			second.refuses(opStop, refusal)
			begin(w)
			second.takesOver()
			first.die(killed)
			third := w.server(3)
			if third.program.ID != "new" {
				t.Fatalf("started from %+v", third.program)
			}
			third.die(killed)
			if s := w.told(); s.OK || s.PID != second.pid {
				t.Errorf("step %+v", s)
			}
			time.Sleep(2 * time.Second)
			if p := w.server(4).program; p.ID == "new" {
				t.Error("another one from the new executable")
			}
		})
	})
	t.Run("when that one is on its way", func(t *testing.T) {
		custodyStory(t, "upgrade: {probation: 5s}\n", func(w *world) {
			first, _ := w.pair()
			w.mu.Lock()
			spare := w.process()
			spare.generation = 7
			w.mu.Unlock()
			spare.journal = w.journal()
			spare.refuses(opStop, refusal)
			spare.dials("starting")
			begin(w)
			third := w.server(4)
			spare.says("standby")
			spare.takesOver()
			first.die(killed)
			if synctest.Wait(); !third.dead() {
				t.Error("two follow")
			}
			fifth := w.server(5)
			if fifth.program.ID != "new" {
				t.Fatalf("started from %+v", fifth.program)
			}
			fifth.stands()
			if spare.wasAsked(opYield) != 1 {
				t.Fatalf("asked %q", spare.asked)
			}
			w.server(5).takesOver()
			time.Sleep(6 * time.Second)
			if s := w.told(); !s.OK || s.PID != fifth.pid {
				t.Errorf("step %+v", s)
			}
		})
	})
}

// An executable that cannot even start touches nothing.
func TestUpgradeToWhatDoesNotStart(t *testing.T) {
	custodyStory(t, "", func(w *world) {
		first, second := w.pair()
		third := w.upgrading(second)
		third.die(supervise.Status{Known: true, Code: 1})
		if s := w.told(); s.OK || s.PID != first.pid || !strings.Contains(s.Text, "the old one serves on") {
			t.Errorf("step %+v", s)
		}
		time.Sleep(2 * time.Second)
		if p := w.server(4).program; p.ID == "new" {
			t.Error("another one from the new executable")
		}
		if first.wasAsked(opYield) != 0 {
			t.Error("the old server was asked to yield")
		}
	})
}
