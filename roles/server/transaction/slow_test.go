package transaction

import "testing"

// Those hold the others up who keep the window from moving on while somebody has had everything.
func TestWhoHoldsTheOthersUp(t *testing.T) {
	type place struct {
		released int64
		waiting  bool
	}
	for _, c := range []struct {
		name   string
		places []place
		want   int64 // 0: nobody
	}{
		{"one alone is slow", []place{{100, false}}, 0},
		{"one alone waits for the origin", []place{{200, true}}, 0},
		{"all are slow", []place{{100, false}, {110, false}}, 0},
		{"one is stuck", []place{{100, false}, {200, true}}, 200},
		{"two are stuck", []place{{100, false}, {200, true}, {120, false}, {150, false}}, 150},
		{"one still reads what is stored", []place{{10, false}, {200, true}}, 200},
	} {
		f := &fetch{ring: make([]byte, 100), tail: 100, end: 200}
		for _, p := range c.places {
			f.followers = append(f.followers, &follower{released: p.released, waiting: p.waiting})
		}
		if got := f.paceLocked(); got != c.want {
			t.Errorf("%s: got %d, want %d", c.name, got, c.want)
		}
	}
}

// The window does not wait for those who were given up, nor come back for them.
func TestTheWindowWithoutTheGivenUp(t *testing.T) {
	f := &fetch{ring: make([]byte, 100), tail: 100, end: 200}
	stuck, keen := &follower{f: f, released: 100}, &follower{f: f, released: 190}
	f.followers = []*follower{stuck, keen}
	f.advanceLocked()
	if f.tail != 100 {
		t.Fatalf("it begins at %d", f.tail)
	}
	f.low = 190
	f.advanceLocked()
	if f.tail != 190 {
		t.Errorf("it begins at %d, want 190", f.tail)
	}
	for _, p := range []progress{open, complete} {
		f.progress = p
		if _, state := stuck.Bytes(100); state.String() != "failed" {
			t.Errorf("%v: one that was given up is told %v", p, state)
		}
		if b, _ := keen.Bytes(190); len(b) == 0 {
			t.Errorf("%v: the other has nothing", p)
		}
	}
	f.followers = []*follower{stuck} // the other has gone
	f.advanceLocked()
	if f.tail != 200 {
		t.Errorf("with nobody left it begins at %d, want its end", f.tail)
	}
}
