package config

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

func loadOrigins(t *testing.T, file string) (*Config, error) {
	t.Helper()
	return Load(Sources{Flags: Overrides{Config: "trafficd.yaml"}, Data: []byte(file)})
}

const groupsFile = `
origins:
  - name: app
    servers: ["http://10.0.0.1:8080", {url: "http://App-2.example", weight: 3}]
    policy: consistent_hash
    retry_status: [503, 502]
    health: {path: /healthz, interval: 2s, expect: "200,3xx", rise: 1}
  - {name: static, servers: ["http://[::1]:81"]}
map:
  - {prefix: /, origin: "group:app/v2"}
  - {prefix: /s, origin: "group:static"}
`

func TestGroupsAreRead(t *testing.T) {
	c, err := loadOrigins(t, groupsFile)
	if err != nil {
		t.Fatal(err)
	}
	want := []OriginGroup{{
		Name: "app", Policy: ConsistentHash, RetryStatus: []int{502, 503},
		Servers: []OriginServer{{"10.0.0.1", 8080, 1}, {"app-2.example", 80, 3}},
		Health:  OriginHealth{Path: "/healthz", Interval: 2 * time.Second, Timeout: 2 * time.Second, Expect: "200,3xx", Rise: 1, Fall: 3},
	}, {Name: "static", Policy: RoundRobin, Servers: []OriginServer{{"::1", 81, 1}}}}
	if !reflect.DeepEqual(c.Origins, want) {
		t.Errorf("got  %+v\nwant %+v", c.Origins, want)
	}
	if origin := c.Map[0].Origin; origin != "group:app/v2" {
		t.Errorf("origin of the rule: %s", origin)
	}
}

// A group is written as it can be read again, by every way a configuration takes.
func TestGroupsSurviveBeingWritten(t *testing.T) {
	c, err := loadOrigins(t, groupsFile)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := c.Effective(&b); err != nil {
		t.Fatal(err)
	}
	again, err := loadOrigins(t, b.String())
	if err != nil {
		t.Fatalf("%v in\n%s", err, b.String())
	}
	body, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	decoded, err := Decode(body)
	if err != nil {
		t.Fatal(err)
	}
	env, err := Load(Sources{Env: []string{"TRAFFICD_ORIGINS=[" + c.Origins[0].String() + "," + c.Origins[1].String() + "]"}})
	if err != nil {
		t.Fatal(err)
	}
	for way, got := range map[string]*Config{"file": again, "JSON": decoded, "environment": env} {
		if !reflect.DeepEqual(got.Origins, c.Origins) {
			t.Errorf("by %s: %+v", way, got.Origins)
		}
	}
	if d := Diff(c, again); len(d) != 0 {
		t.Errorf("differences: %+v", d)
	}
}

func TestBadGroupsAreRefusedWithTheirPlace(t *testing.T) {
	for _, tt := range []struct{ file, want string }{
		{"origins: 3\n", "1:10: origins: a group must be keys and values, not the number 3"},
		{"origins:\n  - {servers: [http://a]}\n", "2:5: origins: a group needs a name"},
		{"origins:\n  - {name: a b, servers: [http://a]}\n", "2:12: origins: name must be 1 to 64"},
		{"origins:\n  - {name: a}\n", "2:5: origins: a group needs servers"},
		{"origins:\n  - {name: a, servers: [http://x, http://x:80]}\n", "2:35: origins: the group has the server x:80 twice"},
		{"origins:\n  - {name: a, servers: [http://x/p]}\n", "the path belongs into the rule, group:NAME/p"},
		{"origins:\n  - {name: a, servers: [\"builtin:\"]}\n", "a server must be http://host[:port]"},
		{"origins:\n  - {name: a, servers: [\"https://x\"]}\n", "https is not available"},
		{"origins:\n  - {name: a, servers: [{url: http://x, weight: 0}]}\n", "weight must be 1 to 100"},
		{"origins:\n  - {name: a, servers: [http://x], policy: latchd}\n", `policy must be one of round_robin, strict, consistent_hash, latched (did you mean "latched"?)`},
		{"origins:\n  - {name: a, servers: [http://x], retry_status: [404]}\n", "retry_status must be 500 to 599"},
		{"origins:\n  - {name: a, servers: [http://x], health: {path: x}}\n", "path must begin with /"},
		{"origins:\n  - {name: a, servers: [http://x], health: {expect: 6xx}}\n", "expect must be a list of statuses"},
		{"origins:\n  - {name: a, servers: [http://x], health: {intervall: 1s}}\n", `unknown key "intervall" (did you mean "interval"?)`},
		{"origins:\n  - {name: a, servers: [http://x], health: {interval: 0s}}\n", "interval must be 10ms to 1h"},
		{"origins:\n  - {name: a, servers: [http://x]}\n  - {name: a, servers: [http://y]}\n", `has the group "a" twice`},
		{"origins:\n  - {name: app, servers: [http://x]}\nmap:\n  - {prefix: /, origin: \"group:ap\"}\n", `map names the group "ap", which is not in origins (did you mean "app"?)`},
		{"map:\n  - {prefix: /, origin: \"group:\"}\n", "origin has the group name"},
	} {
		if _, err := loadOrigins(t, tt.file); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s\ngot  %v\nwant %s", tt.file, err, tt.want)
		}
	}
}
