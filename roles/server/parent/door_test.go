package parent

import "testing"

// loop is one loop's end of a door.
type loop struct{ spared int }

func (l *loop) Spare(*Door) { l.spared++ }

func newDoor(limit, line int) *Door {
	return &Door{dir: NewDirectory(Settings{MaxConnections: limit, MaxWaiting: line}, nil)}
}

func waiter(l *loop, admitted *int) *Waiter {
	return &Waiter{Keeper: l, Admit: func() { *admitted++ }}
}

func TestADoorWithoutALimitIsOpen(t *testing.T) {
	d := newDoor(0, 0)
	for range 1000 {
		if d.Enter(nil) != Enter {
			t.Fatal("refused")
		}
	}
	if d.Limited() || d.used.Load() != 1000 {
		t.Errorf("limited %v, %d connections", d.Limited(), d.used.Load())
	}
}

func TestTheLineIsServedInOrderAndBounded(t *testing.T) {
	d, l := newDoor(1, 2), &loop{}
	first, second, third := 0, 0, 0
	if got := d.Enter(nil); got != Enter {
		t.Fatalf("first: %v", got)
	}
	a, b := waiter(l, &first), waiter(l, &second)
	for i, w := range []*Waiter{a, b} {
		if got := d.Enter(w); got != Wait {
			t.Fatalf("waiter %d: %v", i, got)
		}
	}
	if got := d.Enter(waiter(l, &third)); got != Full {
		t.Errorf("with a full line: %v", got)
	}
	if got := d.Enter(nil); got != Full {
		t.Errorf("who does not wait: %v", got)
	}
	d.Leave()
	if first != 1 || second != 0 {
		t.Errorf("admitted %d and %d, want the first", first, second)
	}
	if d.Forget(a) {
		t.Error("one that was admitted is still in line")
	}
	if !d.Forget(b) || d.Forget(b) {
		t.Error("one that waits is taken out of the line once")
	}
	d.Leave()
	if second != 0 || d.used.Load() != 0 {
		t.Errorf("admitted %d after it was forgotten, %d connections", second, d.used.Load())
	}
}

// An idle connection goes to who waits on its loop, is given up for who waits elsewhere, and is asked for when
// somebody comes to wait.
func TestIdleConnectionsAreNotHoarded(t *testing.T) {
	d, here, there := newDoor(1, 9), &loop{}, &loop{}
	d.Enter(nil)
	if next, stay := d.Idle(here); next != nil || !stay {
		t.Fatalf("nobody waits: next %v, stay %v", next, stay)
	}
	n := 0
	w := waiter(there, &n)
	d.Enter(w)
	if here.spared != 1 || there.spared != 0 {
		t.Errorf("asked %d and %d times to spare a connection", here.spared, there.spared)
	}
	d.Used(here)
	if next, stay := d.Idle(here); next != nil || stay {
		t.Errorf("somebody waits elsewhere: next %v, stay %v", next, stay)
	}
	if next, stay := d.Idle(there); next != w || stay {
		t.Errorf("somebody waits here: next %v, stay %v", next, stay)
	}
	if n != 0 || d.waiting.Load() != 0 {
		t.Errorf("admitted %d, %d wait", n, d.waiting.Load())
	}
}

// Several who come to wait have as many idle connections spared, on whichever loops they are.
func TestEachWhoWaitsHasOneSpared(t *testing.T) {
	d, here, there, n := newDoor(2, 9), &loop{}, &loop{}, 0
	for _, l := range []*loop{here, there} {
		d.Enter(nil)
		d.Idle(l)
	}
	for range 3 { // one more than there are
		d.Enter(waiter(&loop{}, &n))
	}
	if here.spared != 1 || there.spared != 1 {
		t.Errorf("asked %d and %d times to spare a connection", here.spared, there.spared)
	}
}

// One that was idle when it was to be spared is not when its loop looks: another one is asked for.
func TestWhoHasNoneToSpareIsNotWaitedFor(t *testing.T) {
	d, here, there, n := newDoor(2, 9), &loop{}, &loop{}, 0
	for _, l := range []*loop{here, there} {
		d.Enter(nil)
		d.Idle(l)
	}
	d.Enter(waiter(&loop{}, &n))
	d.Used(here)
	d.Spared(here, false)
	if here.spared != 1 || there.spared != 1 {
		t.Errorf("asked %d and %d times to spare a connection", here.spared, there.spared)
	}
	d.Used(there)
	d.Leave()
	d.Spared(there, true)
	if n != 1 || there.spared != 1 {
		t.Errorf("%d were let in, and %d times asked for another", n, there.spared)
	}
}

// Who waits is let in when there may be more connections from now on, and not only one for each that ends.
func TestALargerLimitLetsIn(t *testing.T) {
	for limit, want := range map[int]int{3: 2, 0: 4} {
		dir := NewDirectory(Settings{MaxConnections: 1, MaxWaiting: 9}, nil)
		d := dir.single("h", 80).servers[0].Door
		d.Enter(nil)
		admitted := 0
		for range 4 {
			d.Enter(waiter(&loop{}, &admitted))
		}
		dir.Configure(Settings{MaxConnections: limit, MaxWaiting: 9}, nil)
		if admitted != want || d.used.Load() != int64(1+want) {
			t.Errorf("limit %d: %d were let in, %d connections", limit, admitted, d.used.Load())
		}
	}
}
