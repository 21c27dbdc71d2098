package cache

import (
	"slices"
	"sync"
	"testing"
)

type fill struct {
	waiting []int
	closed  bool
}

func attach(n int) func(*fill) bool {
	return func(f *fill) bool {
		f.waiting = append(f.waiting, n)
		return !f.closed
	}
}

func TestMissesCollapse(t *testing.T) {
	f, k := NewFlights[*fill](), keyN(1)
	a, b := &fill{}, &fill{}
	if v := f.Join(k, Anybody, a, 0, attach(0)); v != Lead {
		t.Fatalf("first: %v, want lead", v)
	}
	for i := 1; i < 4; i++ {
		if v := f.Join(k, Anybody, b, 0, attach(i)); v != Follow {
			t.Fatalf("follower %d: %v", i, v)
		}
	}
	if !slices.Equal(a.waiting, []int{1, 2, 3}) {
		t.Errorf("leader was given %v", a.waiting)
	}
	if v := f.Join(keyN(2), Anybody, b, 0, attach(9)); v != Lead {
		t.Errorf("another key: %v, want lead", v)
	}
	f.Finish(k, b) // does not lead k
	if v := f.Join(k, Anybody, b, 0, attach(4)); v != Follow {
		t.Errorf("after a stranger's Finish: %v, want follow", v)
	}
	a.closed = true
	if v := f.Join(k, Anybody, b, 0, attach(5)); v != Pass {
		t.Errorf("leader refuses: %v, want pass", v)
	}
	f.Finish(k, a)
	if v := f.Join(k, Anybody, b, 0, attach(6)); v != Lead || f.Len() != 2 {
		t.Errorf("after Finish: %v with %d in flight, want lead with 2", v, f.Len())
	}
}

func TestUncacheableIsNotSerialised(t *testing.T) {
	f, k := NewFlights[*fill](), keyN(1)
	a := &fill{}
	f.Join(k, Anybody, a, 0, attach(0))
	f.FinishUncacheable(k, Anybody, a, 100)
	for range 3 {
		if v := f.Join(k, Anybody, a, 99, attach(0)); v != Pass {
			t.Fatalf("before it expires: %v, want pass", v)
		}
	}
	if v := f.Join(k, Anybody, a, 100, attach(0)); v != Lead {
		t.Errorf("when it expired: %v, want lead", v)
	}
	f.FinishUncacheable(k, Anybody, a, 1000)
	f.Forget(k)
	if v := f.Join(k, Anybody, a, 200, attach(0)); v != Lead {
		t.Errorf("after Forget: %v, want lead", v)
	}
}

// What cannot be stored since it was asked for with credentials is remembered for those who have some, too.
func TestUncacheableForSome(t *testing.T) {
	f, k := NewFlights[*fill](), keyN(1)
	a := &fill{}
	f.Join(k, Somebody, a, 0, attach(0))
	f.FinishUncacheable(k, Somebody, a, 100)
	if v := f.Join(k, Somebody, a, 1, attach(0)); v != Pass {
		t.Errorf("somebody: %v, want pass", v)
	}
	if v := f.Join(k, Anybody, a, 1, attach(0)); v != Lead {
		t.Errorf("anybody: %v, want lead", v)
	}
	f.FinishUncacheable(k, Anybody, a, 100)
	if v := f.Join(k, Somebody, a, 1, attach(0)); v != Pass {
		t.Errorf("somebody, after it was uncacheable for all: %v, want pass", v)
	}
}

func TestOneLeaderAmongManyLoops(t *testing.T) {
	f, k := NewFlights[*fill](), keyN(1)
	var mu sync.Mutex
	count := map[Verdict]int{}
	var loops sync.WaitGroup
	for range 8 {
		loops.Go(func() {
			for range 100 {
				v := f.Join(k, Anybody, &fill{}, 0, attach(0))
				mu.Lock()
				count[v]++
				mu.Unlock()
			}
		})
	}
	loops.Wait()
	if count[Lead] != 1 || count[Follow] != 799 {
		t.Errorf("got %v, want 1 lead and 799 follow", count)
	}
}
