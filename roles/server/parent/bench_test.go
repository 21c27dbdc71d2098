package parent

import (
	"testing"

	"trafficd/roles/server/remap"
)

// What a miss pays for having its server chosen: it allocates nothing.
func BenchmarkMiss(b *testing.B) {
	d := NewDirectory(Settings{FailThreshold: 5, RetryBudget: 20}, nil)
	d.Configure(*d.settings.Load(), []Spec{spec(RoundRobin, 1, 1, 1)})
	for name, o := range map[string]*remap.Origin{"alone": {Host: "h", Port: 80}, "group": {Group: "g"}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for i := range int64(b.N) {
				g := d.Of(o)
				s, _ := g.Pick(0, 0, i)
				g.Sent(i)
				s.Pass()
			}
		})
	}
}
