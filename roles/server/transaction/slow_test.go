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

// Each is judged by its own record: one that is waited for all the time is given up, and nobody who is behind only now
// and then, by turns with others, or at the very look at which somebody else's time is over.
func TestWhoIsGivenUp(t *testing.T) {
	const stuck, slack, keen = 100, 130, 200
	for _, c := range []struct {
		name  string
		look  func(n int) []int64 // what each has released at look n; who has everything waits
		end   int                 // the look at which somebody is given up; 0: never
		floor int64
	}{
		{"one is stuck", func(int) []int64 { return []int64{stuck, keen, keen} }, slowLooks, keen},
		{"another is behind at the end", func(n int) []int64 {
			if n >= slowLooks-1 {
				return []int64{stuck, slack, keen}
			}
			return []int64{stuck, keen, keen}
		}, slowLooks, slack},
		{"by turns", func(n int) []int64 {
			at := []int64{keen, keen, keen}
			at[n%3] = stuck
			return at
		}, 0, 0},
		{"behind half of the time", func(n int) []int64 { return []int64{stuck + int64(n%2)*(keen-stuck), keen} }, 0, 0},
		{"behind three times of four", func(n int) []int64 {
			if n%4 == 0 {
				return []int64{keen, keen}
			}
			return []int64{stuck, keen}
		}, 2*slowLooks - 2, keen},
		{"nobody waits", func(int) []int64 { return []int64{stuck, keen - 1} }, 0, 0},
	} {
		f := &fetch{ring: make([]byte, 100), tail: 100, end: 200, paused: true}
		for range c.look(1) {
			f.followers = append(f.followers, &follower{f: f})
		}
		at := 0
		for n := 1; n <= 10*slowLooks && at == 0; n++ {
			for i, released := range c.look(n) {
				f.followers[i].released, f.followers[i].waiting = released, released == f.end
			}
			if floor, _ := f.judgeLocked(); floor != 0 {
				at = n
				if floor != c.floor {
					t.Errorf("%s: those who have had less than %d are given up, want %d", c.name, floor, c.floor)
				}
			}
		}
		if at != c.end {
			t.Errorf("%s: given up at look %d, want %d", c.name, at, c.end)
		}
	}
}

// Who was given up, and has not noticed since it takes nothing, holds nobody up any more.
func TestGivenUpOnce(t *testing.T) {
	f := &fetch{ring: make([]byte, 100), tail: 150, end: 250, low: 150, paused: true}
	f.followers = []*follower{{released: 100, late: slowLooks}, {released: 250, waiting: true}}
	for range 2 * slowLooks {
		if floor, _ := f.judgeLocked(); floor != 0 {
			t.Fatalf("given up again, at %d", floor)
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
