package deadline

import (
	"testing"
	"time"

	"trafficd/eventloop"
)

const (
	soon = 10 * time.Millisecond
	late = 40 * time.Millisecond
	far  = time.Hour
)

// limited is a deadline on a running loop.
type limited struct {
	Deadline
	loop  *eventloop.Loop
	fired chan int64 // the loop's clock then
}

func start(t *testing.T) *limited {
	t.Helper()
	l, err := eventloop.New(eventloop.Options{})
	if err != nil {
		t.Fatal(err)
	}
	d := &limited{loop: l, fired: make(chan int64, 8)}
	d.Init(l, func() { d.fired <- l.Now() })
	ended := make(chan error, 1)
	go func() { ended <- l.Run() }()
	t.Cleanup(func() {
		l.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return d
}

// on runs f on the loop, waits, and returns the loop's clock at that time.
func (d *limited) on(f func()) (now int64) {
	done := make(chan struct{})
	d.loop.Post(func() { now = d.loop.Now(); f(); close(done) })
	<-done
	return now
}

// silent waits well beyond late and checks that nothing fired meanwhile.
func (d *limited) silent(t *testing.T) {
	t.Helper()
	passed := make(chan struct{})
	d.on(func() { d.loop.AfterFunc(2*late, func() { close(passed) }) })
	<-passed
	if len(d.fired) != 0 {
		t.Error("it fired")
	}
}

func TestItFiresOnceAndNotBefore(t *testing.T) {
	for name, set := range map[string]func(d *limited){
		"set":            func(d *limited) { d.Set(late) },
		"moved later":    func(d *limited) { d.Set(soon); d.Set(late) },
		"moved closer":   func(d *limited) { d.Set(far); d.Set(late) },
		"set again":      func(d *limited) { d.Set(soon); d.Clear(); d.Set(late) },
		"after a stop":   func(d *limited) { d.Set(soon); d.Stop(); d.Set(late) },
		"after no limit": func(d *limited) { d.Set(soon); d.Set(0); d.Set(late) },
	} {
		t.Run(name, func(t *testing.T) {
			d := start(t)
			from := d.on(func() { set(d) })
			if at := <-d.fired; at-from < int64(late) {
				t.Errorf("fired after %v, before its time", time.Duration(at-from))
			}
			d.silent(t)
		})
	}
}

func TestItDoesNotFire(t *testing.T) {
	for name, set := range map[string]func(d *limited){
		"cleared":  func(d *limited) { d.Set(soon); d.Clear() },
		"stopped":  func(d *limited) { d.Set(soon); d.Stop() },
		"no limit": func(d *limited) { d.Set(soon); d.Set(0) },
		"never":    func(d *limited) { d.Set(0) },
	} {
		t.Run(name, func(t *testing.T) {
			d := start(t)
			d.on(func() { set(d) })
			d.silent(t)
		})
	}
}

func TestStopLeavesNothingArmed(t *testing.T) {
	d := start(t)
	d.on(func() {
		d.Set(far)
		d.Stop()
		if d.timer.Armed() {
			t.Error("the timer is still armed")
		}
	})
}
