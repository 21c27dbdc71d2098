package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// mapped is a configuration with n rules, each of which edit may write otherwise; "" leaves it out.
func mapped(t *testing.T, n int, edit func(i int, rule string) string) *Config {
	t.Helper()
	var b strings.Builder
	b.WriteString("map:\n")
	for i := range n {
		if rule := edit(i, fmt.Sprintf("{prefix: /%d, origin: 'http://10.0.0.1:%d'}", i, i+1)); rule != "" {
			fmt.Fprintf(&b, "  - %s\n", rule)
		}
	}
	c, err := load(b.String())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func same(_ int, rule string) string { return rule }

// Of ten thousand rules those are told that differ, and of many the first.
func TestDiffOfManyRules(t *testing.T) {
	const n = 10_000
	old := mapped(t, n, same)
	only := func(at int, otherwise string) func(int, string) string {
		return func(i int, rule string) string {
			if i == at {
				return otherwise
			}
			return rule
		}
	}
	long := strings.Repeat("x", 300)
	for _, c := range []struct {
		what    string
		new     *Config
		to      string
		entries []string
	}{
		{"one is changed", mapped(t, n, only(7, "{prefix: /7, origin: 'http://o'}")), "10000 entries (1 changed)",
			[]string{"changed /7=http://10.0.0.1:8 → /7=http://o"}},
		{"an option is added", mapped(t, n, only(7, "{prefix: /7, origin: 'http://10.0.0.1:8', cache: false}")), "10000 entries (1 changed)",
			[]string{`changed /7=http://10.0.0.1:8 → {prefix: "/7", origin: "http://10.0.0.1:8", cache: false}`}},
		{"one is removed", mapped(t, n, only(7, "")), "9999 entries (1 removed)", []string{"removed /7=http://10.0.0.1:8"}},
		{"one is another", mapped(t, n, only(7, "{prefix: /x, origin: 'http://o'}")), "10000 entries (1 added, 1 removed)",
			[]string{"added   /x=http://o", "removed /7=http://10.0.0.1:8"}},
		{"two change places", mapped(t, n, func(i int, rule string) string {
			switch i {
			case 1:
				return "{prefix: /2, origin: 'http://10.0.0.1:3'}"
			case 2:
				return "{prefix: /1, origin: 'http://10.0.0.1:2'}"
			}
			return rule
		}), "10000 entries (in another order)", nil},
		{"many are changed and removed", mapped(t, 9_000, func(i int, rule string) string { return strings.Replace(rule, "10.0.0.1:", "10.0.0.2:", 1) }),
			"9000 entries (1000 removed, 9000 changed)", []string{
				"removed /9000=http://10.0.0.1:9001", "removed /9001=http://10.0.0.1:9002", "removed /9002=http://10.0.0.1:9003",
				"removed /9003=http://10.0.0.1:9004", "removed /9004=http://10.0.0.1:9005", "and 995 more removed",
				"changed /0=http://10.0.0.1:1 → /0=http://10.0.0.2:1", "changed /1=http://10.0.0.1:2 → /1=http://10.0.0.2:2",
				"changed /2=http://10.0.0.1:3 → /2=http://10.0.0.2:3", "changed /3=http://10.0.0.1:4 → /3=http://10.0.0.2:4",
				"changed /4=http://10.0.0.1:5 → /4=http://10.0.0.2:5", "and 8995 more changed"}},
		{"a long one is changed", mapped(t, n, only(7, "{prefix: /7, origin: 'http://10.0.0.1:8/"+long+"'}")), "10000 entries (1 changed)",
			[]string{"changed /7=http://10.0.0.1:8/" + long[:64-21] + "…: …8 → …8/" + long[:62] + "…"}},
	} {
		got := Diff(old, c.new)
		if len(got) != 1 || got[0].Name != "map" || got[0].Old != "10000 entries" || got[0].New != c.to || !slices.Equal(got[0].Entries, c.entries) {
			t.Errorf("%s: got %.2000s, want %s, %q", c.what, fmt.Sprint(got), c.to, c.entries)
		}
	}
}

// What is short is told as a whole, and groups are known by their names.
func TestDiffOfShortLists(t *testing.T) {
	a, b := mapped(t, 2, same), mapped(t, 1, same)
	if got := Diff(a, b); len(got) != 1 || got[0].Old != "/0=http://10.0.0.1:1,/1=http://10.0.0.1:2" || got[0].New != "/0=http://10.0.0.1:1" || got[0].Entries != nil {
		t.Errorf("got %+v", got)
	}
	group := func(servers string) *Config {
		c, err := loadOrigins(t, "origins: [{name: a, servers: ['http://a']}, {name: b, servers: ["+servers+"]}]\n")
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	got := Diff(group("'http://b', 'http://c', 'http://d'"), group("'http://b'"))
	if len(got) != 1 || got[0].New != "2 entries (1 changed)" || len(got[0].Entries) != 1 || !strings.HasPrefix(got[0].Entries[0], `changed {name: "b"`) {
		t.Errorf("got %+v", got)
	}
}
