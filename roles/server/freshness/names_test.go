package freshness

import (
	"strings"
	"testing"

	"trafficd/roles/server/cache"
)

// A directive that names more fields than anybody has holds for the whole response.
func TestTooManyNames(t *testing.T) { // RFC 9111 §5.2.2.4, §5.2.2.7
	names := func(n int) string { return strings.Repeat("z,", n-1) + `a"` }
	for _, c := range []struct {
		control string
		why     Reason
		whole   bool // it is not used again unasked
	}{
		{`Cache-Control: max-age=60, no-cache="` + names(63), Storable, false},
		{`Cache-Control: max-age=60, no-cache="` + names(64), Storable, true},
		{`Cache-Control: max-age=60, private="` + names(63), Storable, false},
		{`Cache-Control: max-age=60, private="` + names(64), ResponsePrivate, false},
		{`Cache-Control: max-age=60` + strings.Repeat(`, no-cache="z"`, 64), Storable, true},
		{`CDN-Cache-Control: max-age=60` + strings.Repeat(`, no-cache="z"`, 64), Storable, true},
	} {
		x := exchange(t, "GET", nil, "200", []string{c.control, "A: 1", `ETag: "x"`})
		m, why := x.Judge()
		if why != c.why || (m.Flags&cache.NoCache != 0) != c.whole {
			t.Errorf("%.60s: %v, no-cache %v", c.control, why, m.Flags&cache.NoCache != 0)
		}
		if c.why == Storable && !c.whole && strings.Contains(string(x.AppendHead(nil, &m)), "A: 1") {
			t.Errorf("%.60s: a field that is named is stored", c.control)
		}
	}
}
