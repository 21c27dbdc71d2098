package eventloop_test

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"trafficd/eventloop"
)

func TestPoolBringsResultsToTheLoop(t *testing.T) {
	l := start(t, eventloop.Options{})
	p := eventloop.NewPool(2)
	sum := 0 // owned by the loop
	for i := range 100 {
		var square int
		must(t, p.Submit(l, func() { square = i * i }, func() {
			if got := int(l.Cell().Thread.Load()); got != unix.Gettid() {
				t.Errorf("done runs on thread %d, want the loop's, %d", unix.Gettid(), got)
			}
			sum += square
		}))
	}
	p.Close()
	on(t, l, func() {
		if sum != 328350 {
			t.Errorf("sum %d, want 328350", sum)
		}
	})
}

func TestPoolIsBounded(t *testing.T) {
	p := eventloop.NewPoolSize(1, 2)
	gate, busy := make(chan struct{}), make(chan struct{})
	ran := 0 // owned by the one worker
	until(t, "the worker takes work", func() bool {
		err := p.Submit(nil, func() { close(busy); <-gate }, nil)
		return err == nil
	})
	await(t, busy, "the worker")
	for range 2 {
		must(t, p.Submit(nil, func() { ran++ }, nil))
	}
	if err := p.Submit(nil, func() { t.Error("ran though refused") }, nil); !errors.Is(err, eventloop.ErrPoolFull) {
		t.Errorf("third waiting job: %v, want ErrPoolFull", err)
	}
	close(gate)
	p.Close()
	if ran != 2 {
		t.Errorf("%d of 2 waiting jobs ran before Close returned", ran)
	}
	if err := p.Submit(nil, func() {}, nil); !errors.Is(err, eventloop.ErrClosed) {
		t.Errorf("after Close: %v, want ErrClosed", err)
	}
	p.Close()
}

// The result for a loop that has ended is dropped; the work is done.
func TestPoolOutlivesALoop(t *testing.T) {
	l, err := eventloop.New(eventloop.Options{})
	must(t, err)
	must(t, errors.Join(l.Close(), l.Run()))
	p := eventloop.NewPool(1)
	worked := false
	must(t, p.Submit(l, func() { worked = true }, func() { t.Error("done on a closed loop") }))
	p.Close()
	if !worked {
		t.Error("work not done")
	}
}
