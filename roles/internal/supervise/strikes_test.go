package supervise

import (
	"testing"
	"time"
)

func TestStrikes(t *testing.T) {
	type probe struct {
		at       time.Duration
		ok       bool
		progress []uint64
		want     Verdict
	}
	p := func(n ...uint64) []uint64 { return n }
	s := time.Second
	for name, probes := range map[string][]probe{
		"one failure is logged only":      {{0, false, p(1, 1), Struck}, {5 * s, true, nil, Healthy}},
		"two failures and a frozen loop":  {{0, false, p(1, 1), Struck}, {5 * s, false, p(9, 1), Dead}},
		"all loops frozen":                {{0, false, p(1, 1), Struck}, {5 * s, false, p(1, 1), Dead}},
		"busy is not wedged":              {{0, false, p(1, 1), Struck}, {5 * s, false, p(2, 2), Busy}, {10 * s, false, p(3, 3), Busy}},
		"busy, then wedged":               {{0, false, p(1), Struck}, {5 * s, false, p(2), Busy}, {10 * s, false, p(2), Dead}},
		"any success resets":              {{0, false, p(1), Struck}, {5 * s, true, nil, Healthy}, {10 * s, false, p(1), Struck}},
		"failures days apart":             {{0, false, p(1), Struck}, {5 * s, true, nil, Healthy}, {72 * time.Hour, false, p(1), Struck}},
		"nothing speaks for it":           {{0, false, nil, Struck}, {5 * s, false, nil, Dead}},
		"a short interval gives it time":  {{0, false, p(1), Struck}, {s / 5, false, p(1), Busy}, {2 * s, false, p(1), Dead}},
		"counters appear between strikes": {{0, false, nil, Struck}, {5 * s, false, p(1), Busy}, {10 * s, false, p(1), Dead}},
		"another number of loops":         {{0, false, p(1), Struck}, {5 * s, false, p(1, 1), Busy}, {10 * s, false, p(1, 1), Dead}},
	} {
		t.Run(name, func(t *testing.T) {
			var st Strikes
			for i, pr := range probes {
				var got Verdict
				if pr.ok {
					got = st.Passed()
				} else {
					got = st.Failed(t0.Add(pr.at), pr.progress)
				}
				if got != pr.want {
					t.Fatalf("probe %d: got %v, want %v", i+1, got, pr.want)
				}
			}
		})
	}
}

func TestStrikesLimit(t *testing.T) {
	for limit, want := range map[int][]Verdict{
		1: {Dead, Dead},
		2: {Struck, Dead, Dead},
		4: {Struck, Struck, Struck, Dead},
	} {
		s := Strikes{Limit: limit}
		for i, w := range want {
			if got := s.Failed(t0, nil); got != w {
				t.Errorf("limit %d, failure %d: got %v, want %v", limit, i+1, got, w)
			}
		}
	}
}

func TestStrikesCount(t *testing.T) {
	var s Strikes
	s.Failed(t0, nil)
	s.Failed(t0, nil)
	if got := s.Count(); got != 2 {
		t.Errorf("count %d, want 2", got)
	}
	s.Passed()
	if got := s.Count(); got != 0 {
		t.Errorf("count %d after a success, want 0", got)
	}
}
