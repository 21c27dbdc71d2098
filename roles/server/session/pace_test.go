package session

import (
	"testing"
	"time"
)

// An account over time: w waits so many seconds, m moves so many bytes.
func TestAccounts(t *testing.T) {
	pace := Pace{Window: 60 * time.Second, Rate: 240} // 14,400 bytes a window
	for _, c := range []struct {
		name  string
		pace  Pace
		waits int // of a second each, with bytes after each
		bytes int
		left  time.Duration // of the wait that follows; 0: it is over
	}{
		{"nothing yet", pace, 0, 0, 60 * time.Second},
		{"a drip of a byte a second", pace, 59, 1, time.Second},
		{"a drip to the end", pace, 60, 1, 0},
		{"just too slow", pace, 60, 239, 0},
		{"just fast enough", pace, 60, 240, 60 * time.Second},
		{"a slow telephone", pace, 3600, 1000, 60*time.Second - 0},
		{"a byte will do", Pace{Window: time.Minute}, 1000, 1, time.Minute},
		{"no limit", Pace{Rate: 240}, 1000, 1, 0},
	} {
		var a account
		now := int64(1)
		over := false
		for range c.waits {
			left := a.wait(now, c.pace)
			if over = over || c.pace.Window > 0 && left < time.Second; over {
				break
			}
			now += int64(time.Second)
			a.move(now, c.bytes, c.pace)
		}
		left := a.wait(now, c.pace)
		if left <= 1 {
			left = 0
		}
		// A client that keeps up is somewhere within a window.
		if c.bytes >= 240 && left > 0 && left <= c.pace.Window {
			continue
		}
		if over || left != c.left {
			t.Errorf("%s: %v left, want %v (over %v)", c.name, left, c.left, over)
		}
	}
}

// A wait that is found under way is not begun again: looking at it often gains nothing.
func TestAWaitIsOne(t *testing.T) {
	var a account
	p := Pace{Window: 10 * time.Second, Rate: 1}
	for i := range 10 {
		if left := a.wait(1+int64(i)*int64(time.Second), p); left != time.Duration(10-i)*time.Second {
			t.Errorf("after %d s: %v left", i, left)
		}
	}
	if left := a.wait(int64(100*time.Second), p); left != 1 {
		t.Errorf("beyond its end: %v left", left)
	}
}

// What an origin takes for its part is not on the account.
func TestOnlyWaitingCounts(t *testing.T) {
	var a account
	p := Pace{Window: 10 * time.Second, Rate: 100}
	a.wait(1, p)
	a.move(int64(time.Second)+1, 1, p)
	if left := a.wait(int64(time.Hour), p); left != 9*time.Second {
		t.Errorf("%v left", left)
	}
}
