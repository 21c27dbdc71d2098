package transaction

import "testing"

func TestRFC9211Name(t *testing.T) {
	for name, want := range map[string]string{
		"trafficd": "trafficd", "*a/b:c": "*a/b:c", "a.b-c_d": "a.b-c_d", "1st": `"1st"`, "a;b": `"a;b"`, "a,b": `"a,b"`, "-": `"-"`,
	} {
		if got := NewStatus(name).line; got != "Cache-Status: "+want {
			t.Errorf("%s: got %s", name, got)
		}
	}
}

func TestRFC9211Status(t *testing.T) {
	settings := &Settings{Status: NewStatus("c")}
	for _, c := range []struct {
		name string
		t    Transaction
		want string
	}{
		{"hit", Transaction{stored: true, ttl: 60}, "hit; ttl=60"},
		{"stale hit", Transaction{stored: true, ttl: -3, detail: whileRevalidating}, "hit; ttl=-3; detail=stale-while-revalidate"},
		{"stored", Transaction{fwd: fwdURIMiss, fills: true, stored: true}, "fwd=uri-miss; stored; ttl=0"},
		{"another's fetch", Transaction{fwd: fwdVaryMiss, follows: true, fills: true, stored: true, ttl: 5}, "fwd=vary-miss; stored; collapsed; ttl=5"},
		{"not stored", Transaction{fwd: fwdMiss}, "fwd=miss"},
		{"confirmed", Transaction{fwd: fwdStale, fwdStatus: 304, stored: true, ttl: 60}, "fwd=stale; fwd-status=304; ttl=60"},
		{"no answer", Transaction{fwd: fwdStale, stored: true, ttl: -1, detail: onError}, "fwd=stale; ttl=-1; detail=stale-if-error"},
		{"asked for", Transaction{fwd: fwdRequest}, "fwd=request"},
		{"no cache", Transaction{fwd: fwdBypass}, "fwd=bypass"},
		{"method", Transaction{fwd: fwdMethod}, "fwd=method"},
		{"failed", Transaction{fwd: fwdURIMiss, reply: Reply{Local: true}}, "fwd=uri-miss"},
	} {
		c.t.settings = settings
		if got, want := string(c.t.appendStatus(nil)), "Cache-Status: c; "+c.want+"\r\n"; got != want {
			t.Errorf("%s: got %q, want %q", c.name, got, want)
		}
	}
	own := Transaction{settings: settings, reply: Reply{Local: true}}
	if got := own.appendStatus(nil); got != nil {
		t.Errorf("the cache had no part in it: got %q", got)
	}
}

func TestStatusOfAHitAllocatesNothing(t *testing.T) {
	x := Transaction{settings: &Settings{Status: NewStatus("trafficd")}, stored: true, ttl: 86400}
	if n := testing.AllocsPerRun(100, func() { x.appendStatus(x.extra[:0]) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkStatusOfAHit is what Cache-Status costs a hit.
func BenchmarkStatusOfAHit(b *testing.B) {
	x := Transaction{settings: &Settings{Status: NewStatus("trafficd")}, stored: true, ttl: 86400}
	for b.Loop() {
		x.appendStatus(x.extra[:0])
	}
}
