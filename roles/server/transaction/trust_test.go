package transaction

import (
	"strings"
	"testing"

	"trafficd/roles/server/header"
)

func TestNamesThatLookKnown(t *testing.T) { // RFC 3875 §4.1.18
	for name, want := range map[string]bool{
		"X_Forwarded_For": true, "x_forwarded_for": true, "X-Forwarded_For": true, "Content_Length": true, "HOST": false, "Host": false,
		"X-Forwarded-For": false, "my_field": false, "_": false, "": false, "If_None_Match": true, strings.Repeat("_", 400): false,
	} {
		if got := looksKnown([]byte(name)); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}

func TestWhatIsAnAddress(t *testing.T) {
	for value, want := range map[string]bool{
		"1.2.3.4": true, "1.2.3.4:80": true, "::1": true, "[2001:DB8::1]:4711": true, "unknown": true, "": false, "evil": false, "1.2.3.4 ": false,
		"fe80::1%eth0": false, "a.test": false, "1.2.3.4,5.6.7.8": false, "\"1.2.3.4\"": false, "_hidden": false, strings.Repeat("1", maxAddress+1): false,
	} {
		if got := isAddress([]byte(value)); got != want {
			t.Errorf("%q: %v", value, got)
		}
	}
}

func TestForwardedAsKey(t *testing.T) { // RFC 7239 §4
	for value, want := range map[string]string{
		"":                                    "",
		"for=1.2.3.4":                         "",
		"FOR=a;By=b":                          "",
		"for=1.2.3.4:80;by=_hidden":           "",
		`for="[2001:db8::1]:4711"`:            "",
		"for=unknown":                         "",
		"for=evil":                            "for=evil;",
		`for="<script>";by="_a b"`:            `for="<script>";by="_a b";`,
		"for=":                                "for=;",
		"host=evil":                           "host=evil;",
		"for=a;host=h":                        "host=h;",
		"for=a, host=h":                       "host=h;",
		"host=h ;proto=https;for=\"[::1]\"":   "host=h;proto=https;",
		`host="a;for=b,c";for=d`:              `host="a;for=b,c";`,
		`host="a\";for=b";for=d`:              `host="a\";for=b";`,
		`host="not closed;for=d`:              `host="not closed;for=d;`,
		"nonsense":                            "nonsense;",
		",;,":                                 ";;;",
		"for =a":                              "for =a;",
		`for="a";host=h, for="b"; proto=http`: "host=h;proto=http;",
	} {
		if got := string(appendReached(nil, []byte(value))); got != want {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
	}
}

// FuzzForwarded: whatever a client sends as Forwarded, two values that differ in more than for=
// and by= cannot be made one.
func FuzzForwarded(f *testing.F) {
	for _, s := range []string{"for=a;host=h", `host="a;for=b,c";for=d`, `host="a\`, `"`, `\`, ",;=", `host="a" "b";for=c`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		got := appendReached(nil, value)
		if again := appendReached(nil, got); string(again) != string(got) && !strings.ContainsAny(string(value), "\"\\") {
			// What is left has no pair that goes; but for empty ones behind the last joint.
			if strings.TrimRight(string(again), ";") != strings.TrimRight(string(got), ";") {
				t.Fatalf("%q: %q, then %q", value, got, again)
			}
		}
		if header.ScanText(value, 0) < len(value) {
			return
		}
		if header.ScanText(got, 0) < len(got) || len(got) > len(value)+1 {
			t.Fatalf("%q: %q", value, got)
		}
	})
}
