package remap

import (
	"fmt"
	"testing"
	"time"
)

// shops makes n rules of each sort: by path, by host, and by an expression of the host.
func shops(tb testing.TB, n int) *Table {
	var specs []Spec
	for i := range n {
		specs = append(specs,
			Spec{Prefix: fmt.Sprintf("/site%d/app", i), Origin: fmt.Sprintf("http://o%d", i)},
			Spec{Prefix: fmt.Sprintf("http://shop%d.example/", i), Origin: fmt.Sprintf("http://o%d", i)},
			Spec{Type: "regex_map", Prefix: fmt.Sprintf(`http://(.+)\.images%d\.example/`, i), Origin: "http://$1.internal"})
	}
	return mustNew(tb, specs...)
}

var requests = []struct{ name, host, path string }{
	{"by path", "some.host:8080", "/site7/app/index.html"},
	{"by host", "Shop7.Example", "/index.html"},
	{"by expression", "a.images7.example", "/index.html"},
	{"none", "nobody.example", "/site7/index.html"},
}

// A request costs a look-up, not a scan: among a thousand times as many rules it costs about the same.
func TestTenThousandRulesCostWhatTenDo(t *testing.T) {
	few, many := shops(t, 10), shops(t, 10_000)
	for _, r := range requests {
		host, path := []byte(r.host), []byte(r.path)
		cost := func(tab *Table) time.Duration {
			begun := time.Now()
			for range 2000 {
				tab.Lookup(host, path)
			}
			return time.Since(begun)
		}
		// The least of many turns is what it costs when nothing else happens on the machine.
		a, b := cost(few), cost(many)
		for range 200 {
			if a, b = min(a, cost(few)), min(b, cost(many)); b < 2*a {
				break
			}
		}
		if b >= 2*a {
			t.Errorf("%s: %v among ten rules, %v among ten thousand", r.name, a, b)
		}
	}
}

func BenchmarkRules(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		tab := shops(b, n)
		for _, r := range requests {
			b.Run(fmt.Sprintf("%s of %d", r.name, n), func(b *testing.B) {
				host, path := []byte(r.host), []byte(r.path)
				b.ReportAllocs()
				for b.Loop() {
					tab.Lookup(host, path)
				}
			})
		}
	}
}

func BenchmarkNormal(b *testing.B) {
	path := []byte("/site7/app/some/index.html")
	for b.Loop() {
		Normal(path)
	}
}
