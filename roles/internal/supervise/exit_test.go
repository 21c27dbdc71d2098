package supervise

import (
	"syscall"
	"testing"
)

func TestClassify(t *testing.T) {
	for code := range 256 {
		want := Retry
		switch code {
		case 0:
			want = Done
		case 64, 77, 78:
			want = Permanent
		}
		if got := Classify(Status{Known: true, Code: code}); got != want {
			t.Errorf("exit %d: got %v, want %v", code, got, want)
		}
	}
	for _, s := range []Status{
		{},                        // an adopted process: nobody knows
		{Code: 78},                // the code means nothing when it is not known
		{Known: true, Signal: 9},  // killed from outside
		{Known: true, Signal: 15}, // also by TERM: who is asked to stop exits 0
	} {
		if got := Classify(s); got != Retry {
			t.Errorf("%v: got %v, want retry", s, got)
		}
	}
}

func TestStatusPrints(t *testing.T) {
	for _, c := range []struct {
		s    Status
		want string
	}{
		{Status{}, "unknown"},
		{Status{Known: true, Code: 78}, "exit 78"},
		{Status{Known: true, Signal: syscall.SIGKILL}, "signal 9 (killed)"},
	} {
		if got := c.s.String(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
