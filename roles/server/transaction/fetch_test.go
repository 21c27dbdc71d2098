package transaction

import (
	"testing"
	"time"

	"trafficd/roles/internal/stats"
	"trafficd/roles/server/cache"
	"trafficd/roles/server/http1"
)

// filling is a fetch whose response of so many bytes has begun to be stored, without the exchange.
func filling(t *testing.T, e *estate, size int64) *fetch {
	t.Helper()
	f := &fetch{env: e.env(t, 1, nil), progress: open, head: responseHead{status: 200, length: size, shared: true}}
	f.env.Stats = &stats.Row{}
	f.key = f.env.Store.KeyOf([]byte("http"), []byte("example.com"), []byte("/"), nil)
	f.flight = f.key
	w, err := f.env.Cache.Create(f.key, &cache.Meta{Status: 200}, nil, nil, nil, size)
	if err != nil {
		t.Fatal(err)
	}
	f.w, f.writing = w, true
	return f
}

// A response that nobody waits for any more is only worth finishing as long as it can be stored.
func TestWhatNobodyWaitsForEndsWhenThereIsNoRoom(t *testing.T) {
	e := newEstate(t)
	f := filling(t, e, 250_000)
	f.orphaned()
	if f.progress != open {
		t.Fatalf("it is %v before it was tried", f.progress)
	}
	e.env(t, 2, nil) // another server has the cache from now on
	for n := 1; n > 0; {
		space := f.Space()
		if n = len(space); n > 0 {
			f.Commit(n)
		}
	}
	if f.progress != again || f.ringRef != 0 || f.w != nil {
		t.Errorf("it is %v, window %v, fill %v", f.progress, f.ringRef, f.w)
	}
}

// Who comes when the last has just left, and the fetch is about to be ended, does not follow it: he would be sent the
// beginning of a response and nothing more.
func TestNobodyFollowsWhatIsBeingEnded(t *testing.T) {
	e := newEstate(t)
	f := filling(t, e, -1)
	f.collapsed = true
	nobody := func(*fetch) bool { return false }
	if v := f.env.Flights.Join(f.flight, cache.Anybody, f, 0, nobody); v != cache.Lead {
		t.Fatal(v)
	}
	late := &Transaction{env: f.env, req: &http1.Request{Method: http1.GET}}
	begun, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		<-begun
		f.orphaned()
	}()
	// While the table of flights is at work nothing is taken out of it.
	follows := f.env.Flights.Follow(f.flight, func(leader *fetch) bool {
		close(begun)
		for limit := time.Now().Add(30 * time.Second); time.Now().Before(limit); { // it is ended at once, when the other gets the CPU
			leader.mu.Lock()
			p := leader.progress
			leader.mu.Unlock()
			if p != open {
				break
			}
		}
		return leader.follow(late)
	})
	<-ended
	if follows || late.place.f != nil {
		t.Errorf("it is followed, and %v", f.progress)
	}
}

// Who has not found a response in the cache and asks who fetches it while that ends, follows the fetch or looks once more. He does not
// fetch it again beside it.
func TestAFetchThatEndsIsFollowedOrFound(t *testing.T) {
	e := newEstate(t)
	f := filling(t, e, 0)
	f.collapsed = true
	if v := f.env.Flights.Join(f.flight, cache.Anybody, f, 0, func(*fetch) bool { return false }); v != cache.Lead {
		t.Fatal(v)
	}
	late := &Transaction{env: f.env, req: &http1.Request{Method: http1.GET}}
	f.publish()
	if v := f.env.Flights.Join(f.flight, cache.Anybody, &fetch{}, 0, func(leader *fetch) bool { return leader.follow(late) }); v == cache.Pass {
		t.Errorf("the one who is late fetches it, too: %v", v)
	}
	o, found := f.env.Cache.Lookup(f.key, nil)
	if !found {
		t.Fatal("it is not in the cache")
	}
	o.Release()
}
