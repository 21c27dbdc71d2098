//go:build race || invariants

package eventloop_test

import (
	"strings"
	"testing"
	"time"

	"trafficd/eventloop"
)

// Every method that belongs to the loop panics on another thread.
func TestOwnership(t *testing.T) {
	l := start(t, eventloop.Options{Name: "mine"})
	var w eventloop.Watch
	var timer eventloop.Timer
	timer.Init(l, eventloop.TimerFunc(func(*eventloop.Timer) {}))
	on(t, l, func() {})
	for name, f := range map[string]func(){
		"Watch":       func() { _ = l.Watch(&w, 0, eventloop.Readable, nil) },
		"Modify":      func() { _ = l.Modify(&w, 0) },
		"Remove":      func() { _ = l.Remove(&w) },
		"Forget":      func() { l.Forget(&w) },
		"Now":         func() { l.Now() },
		"Wall":        func() { l.Wall() },
		"AfterFunc":   func() { l.AfterFunc(time.Hour, func() {}) },
		"Timer.Reset": func() { timer.Reset(time.Hour) },
		"Timer.Stop":  func() { timer.Stop() },
		"Timer.Armed": func() { timer.Armed() },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if got, _ := recover().(string); !strings.Contains(got, `loop "mine"`) {
					t.Errorf("panic %q, want one that names the loop", got)
				}
			}()
			f()
		})
	}
	on(t, l, func() { timer.Reset(time.Hour); timer.Stop() })
}
