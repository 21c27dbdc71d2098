package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"trafficd/roles/internal/exitcode"
)

// load reads text as trafficd.yaml.
func load(text string) (*Config, error) {
	return Load(Sources{Flags: Overrides{Config: "trafficd.yaml"}, Data: []byte(text)})
}

func TestNoConfigurationIsTheDefaults(t *testing.T) {
	for _, text := range []string{"", "\n", "# nothing\n", "---\n", "queue:\nlog:\n# all commented out\n", "\ufeff# a BOM\n"} {
		c, err := load(text)
		if err != nil {
			t.Errorf("Load(%q): %v", text, err)
			continue
		}
		if d := Diff(Default(), c); len(d) != 0 {
			t.Errorf("Load(%q) differs from the defaults: %v", text, d)
		}
	}
	c, err := Load(Sources{})
	if err != nil || c.File != "" || c.Listen[0] != "127.0.0.1:8080" || c.Cache.Size != 256<<20 || c.Health.Interval != 2*time.Second {
		t.Errorf("Load of nothing = %+v, %v", c, err)
	}
}

func TestFileSetsValues(t *testing.T) {
	c, err := load(`
listen: ["*:8080", "[::1]:81"]
map:
  - {prefix: /, origin: "http://127.0.0.1:9000"}
  - prefix: http://Example.com/a%20b/
    origin: http://ORIGIN.example/x
  - {prefix: "http://e:80", origin: "builtin:"}
threads: 2
autoconf: {listen: off}
supervision:
  on_manager_death: restart
  start_deadline: &t 1m30s
  stop_grace: *t
cache:
  size: 64MiB
  max_object_size: 1MB
limits: {request_line: 100}
`)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.Listen, []string{":8080", "[::1]:81"}; !reflect.DeepEqual(got, want) {
		t.Errorf("Listen = %v, want %v", got, want)
	}
	for i, want := range []string{"/ http://127.0.0.1:9000", "http://example.com/a%20b/ http://origin.example/x", "http://e:80/ builtin:"} {
		if got := c.Map[i].Prefix + " " + c.Map[i].Origin; got != want {
			t.Errorf("Map[%d] = %s, want %s", i, got, want)
		}
	}
	if c.Threads != 2 || c.Autoconf.Enabled() || c.Supervision.OnManagerDeath != Restart || c.Supervision.StopGrace != 90*time.Second ||
		c.Cache.Size != 64<<20 || c.Cache.MaxObject() != 1e6 || c.Limits.RequestLine != 100 {
		t.Errorf("got %+v", c)
	}
	if s := c.SourceOf("cache.size"); s.String() != "file trafficd.yaml:15:9" {
		t.Errorf("source of cache.size = %q", s)
	}
	if s := c.SourceOf("queue.limit"); s.From != FromDefault {
		t.Errorf("source of queue.limit = %q", s)
	}
}

func TestFileProblemsHaveAPosition(t *testing.T) {
	tests := []struct{ text, want string }{
		// Keys.
		{"map:\n  - prefix: /\n    orgin: http://x\n", `trafficd.yaml:3:5: unknown key "orgin" (did you mean "origin"?)`},
		{"lisen: 127.0.0.1:1\n", `trafficd.yaml:1:1: unknown key "lisen" (did you mean "listen"?)`},
		{"queue:\n  max_weight: 1s\n", `trafficd.yaml:2:3: unknown key "max_weight"`},
		{"queue:\n  limt: 1\n", `trafficd.yaml:2:3: unknown key "limt" (did you mean "limit"?)`},
		{"limit: 3\n", `trafficd.yaml:1:1: unknown key "limit" (belongs under "queue")`},
		{"queue:\n  size: 3\n", `trafficd.yaml:2:3: unknown key "size" (belongs under "cache")`},
		{"queue:\n  threads: 3\n", `trafficd.yaml:2:3: unknown key "threads" (belongs under no section: write it at the left margin)`},
		{"queue.limit: 3\n", `trafficd.yaml:1:1: unknown key "queue.limit" (write limit: under queue:)`},
		{"prefix: /\n", `trafficd.yaml:1:1: unknown key "prefix" (belongs under an entry of "map")`},
		{"? [a]\n: 1\n", `trafficd.yaml:1:3: key must be a word, not a list`},
		{"queue: &a {}\n<<: *a\n", `trafficd.yaml:2:1: key must be a word, not a merge`},
		{"threads: 1\nthreads: 2\n", `trafficd.yaml:2:1: duplicate key "threads" (first in line 1)`},
		{"queue: {limit: 1, limit: 2}\n", `trafficd.yaml:1:19: duplicate key "limit" (first in line 1)`},
		// Types.
		{"threads: many\n", `trafficd.yaml:1:10: threads: must be a whole number, not the text "many"`},
		{"threads: \"4\"\n", `trafficd.yaml:1:10: threads: must be a whole number, not the text "4"`},
		{"threads: 010\n", `trafficd.yaml:1:10: threads: must be a whole number`},
		{"threads: 1.5\n", `trafficd.yaml:1:10: threads: must be a whole number`},
		{"threads:\n", `trafficd.yaml:1:9: threads: must be a whole number, not nothing`},
		{"threads: [1]\n", `trafficd.yaml:1:10: threads: must be a whole number, not a list`},
		{"threads: !x 1\n", `trafficd.yaml:1:10: threads: must be a whole number, not a value tagged !x`},
		{"queue: 5\n", `trafficd.yaml:1:8: "queue" must be keys and values, not the number 5`},
		{"- a\n", `trafficd.yaml:1:1: the file must be keys and values, not a list`},
		{"hello\n", `trafficd.yaml:1:1: the file must be keys and values, not the text "hello"`},
		{"map: {/: x}\n", `trafficd.yaml:1:6: map: must be a list of {prefix, origin}, not keys and values`},
		{"map: [x]\n", `trafficd.yaml:1:7: an entry of map must be keys and values, not the text "x"`},
		{"map:\n  - prefix: /\n", `trafficd.yaml:2:5: map: entry needs both prefix and origin (or to, of a redirect)`},
		{"listen: {a: b}\n", `trafficd.yaml:1:9: listen: must be IP:PORT or a list of them, not keys and values`},
		{"log: {level: yes}\n", `trafficd.yaml:1:14: log.level: must be one of trace, debug, info, warn, error`},
		{"proxy: {via_name: true}\n", `trafficd.yaml:1:19: proxy.via_name: must be text (put a number in quotes), not a yes or no`},
		// Values.
		{"threads: -1\n", `trafficd.yaml:1:10: threads: must be 0 (one per CPU) or at least 1`},
		{"threads: 65\n", `trafficd.yaml:1:10: threads: must be at most 64`},
		{"threads: 99999999999999999999\n", `trafficd.yaml:1:10: threads: is too large a number`},
		{"queue: {max_wait: 10}\n", `trafficd.yaml:1:19: queue.max_wait: must have a unit, such as 10s or 10ms`},
		{"queue: {max_wait: 10x}\n", `trafficd.yaml:1:19: queue.max_wait: must be a duration such as 500ms, 30s or 1h30m`},
		{"queue: {max_wait: 1ms}\n", `trafficd.yaml:1:19: queue.max_wait: must be at least 10ms`},
		{"queue: {accept_after: -1s}\n", `trafficd.yaml:1:23: queue.accept_after: must not be negative`},
		{"cache: {size: 64K}\n", `trafficd.yaml:1:15: cache.size: must be a size such as 123, 64KiB or 1MB`},
		{"cache: {size: 64KiB}\n", `trafficd.yaml:1:15: cache.size: must be 0 (no cache) or at least 2MiB`},
		{"cache: {size: 99999999999TiB}\n", `trafficd.yaml:1:15: cache.size: is too large a size`},
		{"health: {kill: servers}\n", `trafficd.yaml:1:16: health.kill: must be one of none, manager, server, all (did you mean "server"?)`},
		{"listen: 8080\n", `trafficd.yaml:1:9: listen: must be IP:PORT, such as 127.0.0.1:8080 or :8080`},
		{"listen: host:80\n", `trafficd.yaml:1:9: listen: must be IP:PORT, not the name "host"`},
		{"listen: '::1:80'\n", `trafficd.yaml:1:9: listen: must be IP:PORT with an IPv6 address in brackets, such as [::1]:8080`},
		{"listen: 1.2.3.4:99999\n", `trafficd.yaml:1:9: listen: has the port "99999", must be 0 to 65535`},
		{"listen: []\n", `trafficd.yaml:1:9: listen: must have at least one address`},
		{"map: [{prefix: x, origin: 'http://x'}]\n", `trafficd.yaml:1:16: map: prefix must be /path, http://host/path or http://host:port/path`},
		{"map: [{prefix: /, origin: 'https://x'}]\n", `trafficd.yaml:1:27: map: origin must be http://host[:port][/path]: https is not available`},
		{"map: [{prefix: '/?a', origin: 'http://x'}]\n", `trafficd.yaml:1:16: map: prefix must not have a query or fragment`},
		{"map: [{prefix: '/a/../b', origin: 'http://x'}]\n", `trafficd.yaml:1:16: map: prefix must not have ".." in its path`},
		{"map: [{prefix: '/%zz', origin: 'http://x'}]\n", `trafficd.yaml:1:16: map: prefix has malformed percent-encoding in its path`},
		{"map: [{prefix: /, origin: 'http://u@x'}]\n", `trafficd.yaml:1:27: map: origin must not have a user name`},
		{"map: [{prefix: /, origin: 'http://x:0'}]\n", `trafficd.yaml:1:27: map: origin must not have port 0`},
		{"map: [{prefix: /, origin: 'http://[::1'}]\n", `trafficd.yaml:1:27: map: origin has the malformed IPv6 address "[::1"`},
		{"cache: {disk_path: here}\n", `trafficd.yaml:1:20: cache.disk_path: must be an absolute path: a daemon has no working directory of its own`},
		{"cache: {disk_size: 1MiB}\n", `trafficd.yaml:1:20: cache.disk_size: must be 0 (nothing is kept on disk) or at least 4MiB`},
		{"autoconf: {pac_file: x.pac}\n", `trafficd.yaml:1:22: autoconf.pac_file: must be an absolute path: a daemon has no working directory of its own`},
		// Values that do not agree.
		{"listen:\n  - 127.0.0.1:1\n  - 127.0.0.1:1\n", `trafficd.yaml:3:5: listen has 127.0.0.1:1 twice`},
		{"listen: [0.0.0.0:1, 127.0.0.1:1]\n", `trafficd.yaml:1:21: listen has both 0.0.0.0:1 and 127.0.0.1:1, which overlap`},
		{"listen: 127.0.0.1:8083\n", `trafficd.yaml:1:9: autoconf.listen (127.0.0.1:8083) overlaps listen (127.0.0.1:8083)`},
		{"autoconf: {listen: ':8080'}\n", `trafficd.yaml:1:20: autoconf.listen (:8080) overlaps listen (127.0.0.1:8080)`},
		{"map:\n  - {prefix: /, origin: 'builtin:'}\n  - {prefix: /, origin: 'http://x'}\n",
			`trafficd.yaml:3:14: map has the prefix / twice (entries 1 and 2)`},
		{"map:\n  - {prefix: /a%2f%7e, origin: 'builtin:'}\n  - {prefix: /a%2F~/, origin: 'http://x'}\n",
			`trafficd.yaml:3:14: map has the prefix /a%2F~/ twice (entries 1 and 2)`},
		{"cache: {size: 2MiB, max_object_size: 4MiB}\n", `trafficd.yaml:1:38: cache.max_object_size (4MiB) is larger than cache.size (2MiB)`},
		{"limits: {header_size: 1KiB}\n", `trafficd.yaml:1:23: limits.request_line (8KiB) is larger than limits.header_size (1KiB)`},
		{"resolver: {min_ttl: 10m, max_ttl: 5m}\n", `trafficd.yaml:1:21: resolver.min_ttl (10m) is longer than resolver.max_ttl (5m)`},
		{"resolver: {max_ttl: 500ms}\n", `trafficd.yaml:1:21: resolver.min_ttl (1s) is longer than resolver.max_ttl (500ms)`},
		// Text that is no YAML.
		{"queue:\n\tlimit: 1\n", `trafficd.yaml:2:1: tab in the indentation, must be spaces`},
		{"threads: 1\n---\nthreads: 2\n", `trafficd.yaml:2:1: has a second document, must be one`},
		{"threads: *x\n", `trafficd.yaml:1:10: alias *x has no anchor`},
		{"threads: \"1\n", `trafficd.yaml:1:1: text in quotes that is not closed`},
		{"a: \xff\n", `trafficd.yaml:1:4: is not UTF-8`},
		{"é: \x01\n", `trafficd.yaml:1:4: has the control character U+0001`},
	}
	for _, tt := range tests {
		_, err := load(tt.text)
		if err == nil {
			t.Errorf("Load(%q) accepted it, want %s", tt.text, tt.want)
			continue
		}
		if err.Error() != tt.want && !strings.HasPrefix(err.Error(), tt.want+"\n") {
			t.Errorf("Load(%q)\n got %s\nwant %s", tt.text, err, tt.want)
		}
		if got := exitcode.Of(fmt.Errorf("start: %w", err)); got != exitcode.Config {
			t.Errorf("Load(%q): exit code %d, want 78", tt.text, got)
		}
	}
}

func TestEveryProblemIsReportedInOrder(t *testing.T) {
	_, err := Load(Sources{
		Flags: Overrides{Config: "a/b.yaml", Threads: "x", Map: []string{"/=htp://x"}},
		Env:   []string{"TRAFFICD_QUEUE_LIMIT=-3"},
		Data:  []byte("quue: {}\nlog: {level: loud}\nthreads: 1000\n"),
	})
	want := `a/b.yaml:1:1: unknown key "quue" (did you mean "queue"?)
a/b.yaml:2:14: log.level: must be one of trace, debug, info, warn, error
a/b.yaml:3:10: threads: must be at most 64
TRAFFICD_QUEUE_LIMIT: must be at least 1
--map "/=htp://x": origin must be http://host[:port][/path], group:NAME[/path], or builtin: for the built-in page
--threads "x": must be a whole number`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	if exitcode.Of(err) != exitcode.Config {
		t.Errorf("exit code %d, want 78", exitcode.Of(err))
	}
}

func TestManyProblemsAreCounted(t *testing.T) {
	_, err := load(strings.Repeat("x: 1\n", 200))
	var e *Error
	if !errors.As(err, &e) || len(e.Problems) != maxProblems || e.Omitted != 200-maxProblems {
		t.Fatalf("got %v", err)
	}
}

func TestFlagsAndEnvironmentOverride(t *testing.T) {
	c, err := Load(Sources{
		Flags: Overrides{Config: "f.yaml", Listen: []string{"127.0.0.1:1", "localhost:2"}, Map: []string{"/a=b=http://x/y=z"}, Autoconf: "off"},
		Env: []string{"TRAFFICD_THREADS=7", "TRAFFICD_LISTEN=127.0.0.1:9", "TRAFFICD_QUEUE_LIMIT=", "TRAFFICD_THREADS=8",
			"TRAFFICD_MAP=/x=builtin:, /y=http://h"},
		Data: []byte("threads: 3\nqueue: {limit: 4}\nlisten: 127.0.0.1:3\n"),
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][2]string{
		"threads":         {"8", "environment TRAFFICD_THREADS"},
		"queue.limit":     {"4", "file f.yaml:2:16"},
		"listen":          {"127.0.0.1:1,127.0.0.1:2", "flag --listen"},
		"map":             {"/a=b=http://x/y=z", "flag --map"},
		"autoconf.listen": {"off", "flag --autoconf"},
		"cache.size":      {"256MiB", "default"},
	} {
		if got := [2]string{c.Value(name), c.SourceOf(name).String()}; got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	if m := c.Map[0]; m.Prefix != "/a=b" || m.Origin != "http://x/y=z" {
		t.Errorf("Map[0] = %+v", m)
	}
}

// A slip in a variable's name is told; what others name so, or trafficd for itself, is not.
func TestMisnamedVariables(t *testing.T) {
	got := Misnamed([]string{"TRAFFICD_CACHE_SIZ=5", "TRAFFICD_QUEUE_MAXWAIT=1s", "trafficd_threads=3", "TRAFFICD_CACHE_SIZ=6", "TRAFFICD_HEALHT_TIMEOUT=1s"})
	want := []string{
		"TRAFFICD_CACHE_SIZ: no setting has this variable (did you mean TRAFFICD_CACHE_SIZE?)",
		"TRAFFICD_HEALHT_TIMEOUT: no setting has this variable (did you mean TRAFFICD_HEALTH_TIMEOUT?)",
		"TRAFFICD_QUEUE_MAXWAIT: no setting has this variable (did you mean TRAFFICD_QUEUE_MAX_WAIT?)",
		"trafficd_threads: no setting has this variable (did you mean TRAFFICD_THREADS?)",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	quiet := []string{"TRAFFICD_CACHE_SIZE=5MiB", "TRAFFICD_CACHE_SIZ=", "TRAFFICD_SERVICE_HOST=10.0.0.1", "TRAFFICD_SERVICE_PORT=80",
		"TRAFFICD_SERVICE_PORT_HTTP=80", "TRAFFICD_PORT=tcp://10.0.0.1:80", "TRAFFICD_PORT_80_TCP=tcp://10.0.0.1:80", "TRAFFICD_PORT_80_TCP_PROTO=tcp",
		"TRAFFICD_PORT_80_TCP_PORT=80", "TRAFFICD_PORT_80_TCP_ADDR=10.0.0.1", "TRAFFICD_CACHE_SERVICE_HOST=10.0.0.2", "TRAFFICD_CACHE_PORT=tcp://10.0.0.2:80",
		"TRAFFICD_NAME=a", "TRAFFICD_VERSION=1", "TRAFFICD_IMAGE=x", "PATH=/bin", "TRAFFICD_", "TRAFFICD", "=", "",
		// Its own.
		"TRAFFICD_HERITAGE=1", "TRAFFICD_GENERATION=1", "TRAFFICD_DAEMON=1", "TRAFFICD_NOTIFY_FD=3", "TRAFFICD_TEST_HOOKS=1", "TRAFFICD_KILL_FILE=x",
		"TRAFFICD_COP_LOCK=3", "TRAFFICD_COP_UPGRADE=x"}
	if got := Misnamed(quiet); got != nil {
		t.Errorf("got %q of variables that are nobody's slip", got)
	}
}

func TestFlagErrorIsUsage(t *testing.T) {
	for flag, o := range map[string]Overrides{
		`--listen "x": must be IP:PORT, such as 127.0.0.1:8080`:       {Listen: []string{"x"}},
		`--autoconf "x": must be IP:PORT, such as 127.0.0.1:8080, or`: {Autoconf: "x"},
		`--threads "-1": must be 0`:                                   {Threads: "-1"},
		`--map "/": origin is missing`:                                {Map: []string{"/"}},
		`--map "/=http://y": map has the prefix / twice`:              {Map: []string{"/=http://x", "/=http://y"}},
	} {
		_, err := Load(Sources{Flags: o})
		if err == nil || !strings.HasPrefix(err.Error(), flag) || exitcode.Of(err) != exitcode.Usage {
			t.Errorf("%+v: got %v (exit code %d), want %s", o, err, exitcode.Of(err), flag)
		}
	}
}

func TestFileThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	big := filepath.Join(dir, "big")
	if err := os.WriteFile(big, []byte(strings.Repeat("#\n", MaxFile)), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none"): ": open: no such file or directory",
		dir:                        ": not a regular file",
		fifo:                       ": not a regular file",
		"/dev/zero":                ": not a regular file",
		big:                        ": is larger than 8388608 bytes",
	} {
		_, err := Load(Sources{Flags: Overrides{Config: path}})
		if err == nil || err.Error() != path+want || exitcode.Of(err) != exitcode.Config {
			t.Errorf("Load(%s): %v (exit code %d), want %s", path, err, exitcode.Of(err), want)
		}
	}
}

func TestFileIsNamedAsGiven(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t.yaml")
	if err := os.WriteFile(path, []byte("x: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(Sources{Flags: Overrides{Config: "./t.yaml"}, Path: path})
	if err == nil || err.Error() != `./t.yaml:1:1: unknown key "x"` {
		t.Errorf("got %v", err)
	}
}

func TestPACFileMustExist(t *testing.T) {
	_, err := load("autoconf:\n  pac_file: /nonexistent/x\n")
	if want := "trafficd.yaml:2:13: autoconf.pac_file: stat /nonexistent/x: no such file or directory"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// A nest of aliases that would expand to 10^9 elements is read as far as the table goes.
func TestAliasBombCostsItsText(t *testing.T) {
	var b strings.Builder
	b.WriteString("a0: &a0 [x]\n")
	for i := 1; i < 10; i++ {
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 9), ","))
	}
	b.WriteString("listen: *a9\n")
	_, err := load(b.String())
	if err == nil || !strings.Contains(err.Error(), "listen: must be IP:PORT or a list of them, not a list") {
		t.Errorf("got %v", err)
	}
	if _, err := load("listen: &a [*a]\n"); err == nil {
		t.Error("a list of itself was accepted")
	}
}

func FuzzLoad(f *testing.F) {
	for _, s := range []string{
		"", "threads: 2\n", "listen: [a, b]\nmap:\n  - {prefix: /, origin: 'http://x'}\n", "a: &a [*a]\n", "? {}\n: 1\n", "<<: {threads: 1}\n",
		"queue:\n\tlimit: 1\n", "--- !x\n...\n---\n", "%YAML 1.1\n---\nthreads: 0x1\n", "map: [{prefix: 'http://[::1]:1/', origin: 'builtin:'}]\n",
		"cache: {size: 1e3}\nqueue: {max_wait: 1.5h}\n", "{threads: 1, threads: 1}", "\ufeffthreads: 1\r\n", "log: &l {level: info}\nproxy: *l\n", "a: b: c", "origins: [{name: a, servers: [http://x, {url: 'http://y', weight: 2}], health: {path: /h}}]\n", "origins: &a [*a]\n", "- - - -", "\"\\x\"",
	} {
		f.Add([]byte(s))
	}
	known := map[string]bool{}
	for _, s := range table {
		section, _ := s.split()
		known[s.Name], known[section] = true, true
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Load(Sources{Flags: Overrides{Config: "f"}, Data: data})
		if err != nil {
			if err.Error() == "" || exitcode.Of(err) != exitcode.Config {
				t.Fatalf("error %q, exit code %d", err, exitcode.Of(err))
			}
			return
		}
		if err := c.Check(); err != nil {
			t.Fatalf("loaded, but Check says: %v", err)
		}
		var tree map[string]any
		if err := yaml.Unmarshal(data, &tree); err != nil {
			t.Fatalf("loaded, but not a mapping: %v", err)
		}
		for key, value := range tree {
			if !known[key] {
				t.Fatalf("accepted the unknown key %q", key)
			}
			sub, _ := value.(map[string]any)
			for k := range sub {
				if !known[key+"."+k] {
					t.Fatalf("accepted the unknown key %q in %q", k, key)
				}
			}
		}
	})
}
