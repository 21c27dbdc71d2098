package disk

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"trafficd/roles/internal/stats"
)

// TestComplaints: the first failure is told at once, those that follow all together a while later, and each act for itself.
func TestComplaints(t *testing.T) {
	var c complaints
	now := time.Now()
	said := map[string]int{}
	lines := 0
	say := func(cs []complaint) {
		for _, a := range cs {
			said[a.act] += a.unsaid
			lines++
		}
	}
	for i := range 3000 { // three seconds
		say(c.note(now.Add(time.Duration(i)*time.Millisecond), "read", unix.EIO))
	}
	if lines != 1 || said["read"] != 1 {
		t.Errorf("%d lines of %d failures at first", lines, said["read"])
	}
	say(c.note(now.Add(3*time.Second), "write", unix.ENOSPC))
	if lines != 2 || said["write"] != 1 {
		t.Errorf("the first write is not told: %d lines, %v", lines, said)
	}
	say(c.due(now.Add(complainEvery - 1)))
	if lines != 2 {
		t.Error("told too soon")
	}
	say(c.due(now.Add(complainEvery)))
	say(c.due(now.Add(5 * complainEvery)))
	if lines != 3 || said["read"] != 3000 {
		t.Errorf("%d lines of %d failed reads, want 3 of 3000", lines, said["read"])
	}
}

// TestFailing: a store is said to fail since the first of a run of failures, until there was none for a while.
func TestFailing(t *testing.T) {
	var c complaints
	now := time.Now()
	if tr := c.trouble(now); tr != nil {
		t.Errorf("trouble from the beginning: %+v", tr)
	}
	c.note(now, "read", unix.EIO)
	c.note(now.Add(pauseMax), "write", unix.ENOSPC)
	tr := c.trouble(now.Add(2 * pauseMax))
	if tr == nil || tr.Off || !tr.Since.Equal(now) || tr.Reason != "write: "+unix.ENOSPC.Error() {
		t.Errorf("trouble %+v", tr)
	}
	later := now.Add(pauseMax + failingFor + 1)
	if tr := c.trouble(later); tr != nil {
		t.Errorf("for ever: %+v", tr)
	}
	if c.note(later, "read", unix.EIO); !c.trouble(later).Since.Equal(later) {
		t.Error("it is not new trouble")
	}
}

// TestAFailingDiskIsLoggedLittle: hundreds of failures are few lines, which tell of all of them.
func TestAFailingDiskIsLoggedLittle(t *testing.T) {
	l, log := newLog(t)
	synctest.Test(t, func(t *testing.T) {
		s := &Store{opts: Options{Stats: new(stats.Row), Log: l, Dir: "/x"}, stop: make(chan struct{})}
		s.ended.Go(s.syncing)
		for range 300 {
			s.failed(unix.EIO, "read")
			time.Sleep(10 * time.Millisecond) // of the bubble's time
		}
		time.Sleep(time.Minute)
		close(s.stop)
		s.ended.Wait()
		if n := s.opts.Stats.Load(stats.DiskErrors); n != 300 {
			t.Errorf("%d failures were counted, want 300", n)
		}
	})
	if n := strings.Count(log(), "\n"); n != 2 || !strings.Contains(log(), `"errors":1,`) || !strings.Contains(log(), `"errors":299,`) {
		t.Errorf("%d lines:\n%s", n, log())
	}
}
