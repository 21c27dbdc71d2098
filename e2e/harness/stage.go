package harness

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"trafficd/roles/demo/witness"
)

// Stage is an instance between an origin and clients of all kinds that let nothing pass (package
// witness).
type Stage struct {
	*Trafficd
	Origin *witness.Origin
	Crew   *witness.Crew

	t testing.TB
}

// Bearing lets an instance bear being killed all the time: no limit of restarts, no pause
// before the next.
func Bearing() Option {
	return All(Set("supervision.restart_budget", "6000"), Set("supervision.backoff_max", "10ms"), Set("supervision.flap_limit", "1000"))
}

// Tunnelling lets clients of this machine open tunnels to it by CONNECT.
func Tunnelling() Option {
	return All(Set("forward.allow", "127.0.0.1"), Set("forward.to", "127.0.0.1"), Set("forward.connect_ports", "1-65535"))
}

// Race says that the stories, and what they test, run under the race detector.
func Race() bool { return raceEnabled }

// SetStage starts an instance with an origin behind it, and makes its clients. What the
// options of the clients leave open is chosen so that two stages find room on two cores.
func SetStage(t testing.TB, mix witness.Mix, o witness.Options, opts ...Option) *Stage {
	t.Helper()
	origin, err := witness.NewOrigin("127.0.0.1:0", o.Seed)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { origin.Close() })
	s := &Stage{t: t, Origin: origin}
	s.Trafficd = Start(t, append([]Option{Bearing(), Tunnelling(), Args("--map", "/="+origin.URL())}, opts...)...)
	s.Crew = witness.NewCrew(mix, s.options(o))
	return s
}

func (s *Stage) options(o witness.Options) witness.Options {
	o.Addr, o.Origin = s.Addr, s.Origin
	if o.Patience == 0 {
		o.Patience = Patience / 2
	}
	if o.MaxUpload == 0 {
		o.MaxUpload = 4 << 20
	}
	if o.ProbeEvery == 0 {
		o.ProbeEvery = 2 * time.Millisecond
	}
	return o
}

// Play lets the clients live while f runs, then lets them finish what they have begun, and
// fails the story for whatever was not as it must be: by the clients, by the origin, and by
// what the instance itself says that it lost.
func (s *Stage) Play(f func()) witness.Report {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	defer cancel()
	if err := s.Crew.Warm(ctx); err != nil {
		s.t.Fatal(err)
	}
	collected := make(chan struct{})
	go func() {
		defer close(collected)
		for tick := time.NewTicker(100 * time.Millisecond); ; {
			select {
			case <-tick.C:
				Collect()
			case <-ctx.Done():
				tick.Stop()
				return
			}
		}
	}()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Crew.Run(ctx)
	}()
	f()
	cancel()
	<-done
	<-collected
	return s.judge()
}

// judge fails the story unless nothing was lost.
func (s *Stage) judge() witness.Report {
	s.t.Helper()
	r := s.Crew.Report()
	var table strings.Builder
	r.Write(&table, 40)
	s.t.Logf("what the clients saw:\n%s", table.String())
	if n := r.Failed(); n > 0 {
		s.t.Errorf("%d failures", n)
	}
	for _, row := range r.Rows {
		if row.Clients > 0 && row.Requests == 0 {
			s.t.Errorf("clients of the kind %q have not ended one request, so they show nothing", row.Kind)
		}
	}
	for _, line := range s.Log.Since(0) {
		if line.Message == "connection lost" || line.Message == "custody" || line.Message == "request has killed servers, and fails" || strings.HasPrefix(line.Message, "no custody") {
			s.t.Errorf("the instance says: %s", line.Raw)
		}
	}
	return r
}

// WorstProbe is the longest request of a client that asks all the time.
func WorstProbe(r witness.Report) time.Duration {
	var worst time.Duration
	for _, row := range r.Rows {
		if row.Kind == witness.ProbeNew || row.Kind == witness.ProbeKept {
			worst = max(worst, row.Worst)
		}
	}
	return worst
}

// Adopted is how many connections were taken over, by what was in progress on them.
type Adopted map[string]int

// Adopted adds up what the servers of the instance have said.
func (p *Trafficd) Adopted() Adopted {
	sum := Adopted{}
	for _, line := range p.Log.Since(0) {
		if line.Message != "connections adopted" {
			continue
		}
		for name, v := range line.Fields {
			if n, ok := v.(float64); ok && name != "pid" && name != "took" {
				sum[name] += int(n)
			}
		}
	}
	return sum
}

// Add adds another instance's.
func (a Adopted) Add(b Adopted) {
	for state, n := range b {
		a[state] += n
	}
}

// Missing are those of the states that were not seen once.
func (a Adopted) Missing(states ...string) []string {
	return slices.DeleteFunc(slices.Clone(states), func(s string) bool { return a[s] > 0 })
}

// States are the names in their order.
func (a Adopted) States() []string { return slices.Sorted(maps.Keys(a)) }
