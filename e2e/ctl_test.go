package e2e

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"trafficd/e2e/harness"
)

// "status (three processes, state, pid, generation, uptime, restarts, connections, hits)".
func TestStatus(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	pids := p.PIDs()
	// A server answers clients some instants before its manager has been told.
	s := p.WaitStatus("three that are ready", func(s harness.Status) bool {
		return !slices.ContainsFunc(harness.Roles, func(r harness.Role) bool { return s.Of(r).State != "ready" })
	})
	for _, role := range harness.Roles {
		got := s.Of(role)
		if got.PID != pids[role] || got.State != "ready" {
			t.Errorf("status of %s: %+v, want ready with PID %d", role, got, pids[role])
		}
	}
	for _, key := range []string{"generation", "uptime", "restarts", "connections", "hits"} {
		if !strings.Contains(s.Text, key) {
			t.Errorf("status --json says nothing of %s: %s", key, s.Text)
		}
	}
	human := p.Ctl("status")
	if human.Code != 0 {
		t.Errorf("ctl status exited with %d: %s", human.Code, human.Stderr)
	}
	for _, role := range harness.Roles {
		if !strings.Contains(human.Stdout, string(role)) || !strings.Contains(human.Stdout, strconv.Itoa(pids[role])) {
			t.Errorf("ctl status does not show the %s and its PID %d:\n%s", role, pids[role], human.Stdout)
		}
	}
	old := p.Kill(harness.Server)
	p.WaitReplaced(harness.Server, old.PID)
	p.WaitStatus("one restart", func(s harness.Status) bool { return s.Server.State == "ready" && s.Server.Restarts == 1 })
}

// "69 not running": every command says so when there is no instance.
func TestCommandsWithoutAnInstance(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "run")
	for _, args := range [][]string{{"status"}, {"stop"}, {"restart", "server"}, {"drain"}, {"config", "reload"}} {
		r := harness.Run(t, append(append([]string{"ctl"}, args...), "--run-root", root)...)
		if r.Code != 69 || r.Stderr == "" {
			t.Errorf("ctl %v: exit code %d, want 69; standard error %q", args, r.Code, r.Stderr)
		}
	}
}

// What cannot be an instance is not taken for one that has stopped.
func TestCommandsOnWhatIsNoRunRoot(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"stop", "--run-root", "/etc/passwd"}, {"status", "--run-root", "/etc/passwd"},
		{"status", "--timeout", "-1s", "--run-root", t.TempDir()}} {
		r := harness.Run(t, append([]string{"ctl"}, args...)...)
		if r.Code != 64 || r.Stderr == "" {
			t.Errorf("ctl %v: exit code %d, want 64; standard error %q", args, r.Code, r.Stderr)
		}
	}
}

// "restart server": a new server, the same manager, and not one request lost: what the old one
// has accepted it finishes.
func TestRestartServer(t *testing.T) {
	t.Parallel()
	o := harness.NewOrigin(t, harness.EchoNumber)
	p := harness.Start(t, harness.Map("/", o))
	prober := p.Prober()
	for range 3 {
		before := p.PIDs()
		prober.Await(20)
		if r := p.Ctl("restart", "server"); r.Code != 0 {
			t.Fatalf("ctl restart server exited with %d: %s", r.Code, r.Stderr)
		}
		// The command has returned, so it has happened.
		if pid := p.PID(harness.Server); pid == before[harness.Server] {
			t.Error("the server was not replaced")
		}
		p.ExpectSame(harness.Manager, before[harness.Manager])
		p.ExpectSame(harness.Cop, before[harness.Cop])
	}
	prober.Await(20)
	prober.ExpectClean()
	for _, l := range p.Log.Since(0) {
		if l.Message == "server died" && (l.Level != "info" || l.String("role") == "cop" && l.Int("generation") == 0) {
			t.Errorf("of a server that was asked to go it is said: %s", l.Raw)
		}
	}
}

// "restart manager": a new manager, the same server.
func TestRestartManager(t *testing.T) {
	t.Parallel()
	o := harness.NewOrigin(t, harness.EchoNumber)
	p := harness.Start(t, harness.Map("/", o))
	before := p.PIDs()
	prober := p.Prober()
	prober.Await(20)
	if r := p.Ctl("restart", "manager"); r.Code != 0 {
		t.Fatalf("ctl restart manager exited with %d: %s", r.Code, r.Stderr)
	}
	p.WaitReplaced(harness.Manager, before[harness.Manager])
	prober.Await(20)
	prober.ExpectClean()
	p.ExpectSame(harness.Server, before[harness.Server])
	p.ExpectSame(harness.Cop, before[harness.Cop])
}

// A request that is in the old server when it is restarted is answered by it.
func TestRestartFinishesWhatWasBegun(t *testing.T) {
	t.Parallel()
	gate := harness.NewGate()
	o := harness.NewOrigin(t, func(e *harness.Exchange) {
		e.Raw("HTTP/1.1 200 OK\r\n" + noStore + "\r\nContent-Length: 10\r\n\r\nfirst")
		gate.Wait(e)
		e.Raw("later")
	})
	p := harness.Start(t, harness.Map("/", o))
	old := p.Process(harness.Server)
	c := p.Client().Dial()
	c.Send(harness.Request("GET", "/begun", ""))
	c.ReadHead().ExpectStatus(200)
	restarted := make(chan harness.Result, 1)
	go func() { restarted <- p.Ctl("restart", "server") }()
	p.WaitReplaced(harness.Server, old.PID)
	if got := c.ReadRaw(5); got != "first" {
		t.Errorf("got %q", got)
	}
	gate.Open()
	if got := c.ReadRaw(5); got != "later" {
		t.Errorf("got %q", got)
	}
	c.Close()
	if r := harness.Receive(t, "the end of ctl restart", restarted); r.Code != 0 {
		t.Errorf("ctl restart server exited with %d: %s", r.Code, r.Stderr)
	}
	old.WaitGone(t)
}

// "drain": answers say Connection: close, and the state is visible.
func TestDrain(t *testing.T) {
	t.Parallel()
	o := harness.NewOrigin(t, harness.EchoNumber)
	p := harness.Start(t, harness.Map("/", o))
	c := p.Client().Dial()
	c.Send(harness.Request("GET", "/probe/1", "")).Read("GET").Expect(200, "probe /probe/1").Header("Connection", "")
	if r := p.Ctl("drain"); r.Code != 0 {
		t.Fatalf("ctl drain exited with %d: %s", r.Code, r.Stderr)
	}
	p.WaitStatus("a draining server", func(s harness.Status) bool { return s.Server.State != "ready" })
}

// "stop": the command returns when it has happened, and cop exits 0.
func TestStop(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	if r := p.Ctl("stop"); r.Code != 0 {
		t.Fatalf("ctl stop exited with %d: %s", r.Code, r.Stderr)
	}
	if code := p.ExitCode(); code != 0 {
		t.Errorf("cop exited with %d, want 0", code)
	}
	if r := p.Ctl("status"); r.Code != 69 {
		t.Errorf("ctl status after stop exited with %d, want 69", r.Code)
	}
}

// "config reload (verdict, exit code)"; "bad configuration at reload: refused, old one goes on".
// No connection is touched by a reload.
func TestConfigReload(t *testing.T) {
	t.Parallel()
	one := harness.NewOrigin(t, harness.Reply(200, "one", noStore))
	two := harness.NewOrigin(t, harness.Reply(200, "two", noStore))
	rules := func(o *harness.Origin) string {
		return fmt.Sprintf("map:\n  - prefix: /\n    origin: %s\n", o.URL())
	}
	p := harness.Start(t, harness.Config(rules(one)))
	before := p.PIDs()
	generation := p.Status().Server.Generation
	c := p.Client().Dial()
	get := func() *harness.Response { return c.Send(harness.Request("GET", "/", "")).Read("GET") }
	get().Expect(200, "one")

	p.WriteConfig(rules(two))
	get().Expect(200, "one") // nothing happens by itself
	if r := p.Ctl("config", "reload"); r.Code != 0 {
		t.Fatalf("ctl config reload exited with %d: %s", r.Code, r.Stderr)
	}
	get().Expect(200, "two") // and it has happened when the command returns

	p.WriteConfig(rules(one) + "healht:\n  interval: 1s\n")
	r := p.Ctl("config", "reload")
	if r.Code != 78 {
		t.Errorf("ctl config reload of a bad file exited with %d, want 78", r.Code)
	}
	if want := `trafficd.yaml:4:1: unknown key "healht" (did you mean "health"?)`; !strings.Contains(r.Stderr, want) {
		t.Errorf("standard error has no %s: %s", want, r.Stderr)
	}
	p.WriteConfig(rules(one) + "cache: {size: 8MiB\nqueue:\n  limit: 3\n")
	if r := p.Ctl("config", "check"); r.Code != 78 || !strings.Contains(r.Stderr, `trafficd.yaml:4:8: "{" is not closed by "}"`) {
		t.Errorf("ctl config check of what is no YAML: exit code %d: %s", r.Code, r.Stderr)
	}
	get().Expect(200, "two")

	// The bad file is still there when everything has to start again from what was good.
	p.Kill(harness.Manager)
	p.WaitReplaced(harness.Manager, before[harness.Manager])
	p.WaitStatus("an adopted server", func(s harness.Status) bool { return s.Server.State == "ready" })
	get().Expect(200, "two")
	p.ExpectSame(harness.Server, before[harness.Server])
	p.Kill(harness.Server)
	p.WaitReplaced(harness.Server, before[harness.Server])
	p.Client().Get("/").Expect(200, "two")
	t.Logf("generation %d → %d", generation, p.Status().Server.Generation)
}

// How large a stored object may be is not cut in silence.
func TestLargestObject(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Config("cache: {size: 16MiB, max_object_size: 8MiB}\n"))
	line := p.Log.Wait(t, 0, "what the cache takes", harness.Message("cache.max_object_size is more than the cache takes"))
	if n := line.Int("bytes"); n <= 3<<20 || n > 4<<20 || line.Int("configured") != 8<<20 {
		t.Errorf("it says %s", line.Raw)
	}
	p.WriteConfig("cache: {size: 16MiB, max_object_size: 3MiB}\n")
	if r := p.Ctl("config", "reload"); r.Code != 0 || !strings.Contains(r.Stdout, "needs a restart") {
		t.Errorf("reload: %+v", r)
	}
}

// A variable that is nearly a setting's is told of where the instance starts, and when its configuration is checked.
func TestMisnamedVariableIsToldOf(t *testing.T) {
	t.Parallel()
	const warning = "TRAFFICD_CACHE_SIZ: no setting has this variable (did you mean TRAFFICD_CACHE_SIZE?)"
	p := harness.Start(t, harness.Set("cache.siz", "5"), harness.Set("service.host", "10.0.0.1"))
	line := p.Log.Wait(t, 0, "the warning", harness.About("environment variable ignored", harness.Cop))
	if got := line.String("what"); got != warning {
		t.Errorf("logged %q", got)
	}
	if r := p.Ctl("config", "check"); r.Code != 0 || r.Stderr != "warning: "+warning+"\n" {
		t.Errorf("ctl config check: exit code %d, %q", r.Code, r.Stderr)
	}
}

// Of a map of ten thousand rules a check and a reload tell what differs, not the map.
func TestReloadOfManyRulesTellsWhatDiffers(t *testing.T) {
	t.Parallel()
	rules := func(changed string) string {
		var b strings.Builder
		b.WriteString("map:\n")
		for i := range 10_000 {
			origin := "http://127.0.0.1:9"
			if i == 4711 {
				origin = changed
			}
			fmt.Fprintf(&b, "  - {prefix: /some/path/%d, origin: %q}\n", i, origin)
		}
		return b.String()
	}
	p := harness.Start(t, harness.Config(rules("http://127.0.0.1:10")))
	p.WriteConfig(rules("http://127.0.0.1:11"))
	const want = "  map: 10000 entries → 10000 entries (1 changed)\n" +
		"    changed /some/path/4711=http://127.0.0.1:10 → /some/path/4711=http://127.0.0.1:11\n"
	for _, verb := range []string{"check", "reload"} {
		r := p.Ctl("config", verb)
		if _, changes, _ := strings.Cut(r.Stdout, "\n"); r.Code != 0 || changes != want {
			t.Errorf("ctl config %s: exit code %d, %.1000s%s", verb, r.Code, r.Stdout, r.Stderr)
		}
	}
}

// HUP to cop is a reload.
func TestReloadBySignal(t *testing.T) {
	t.Parallel()
	one := harness.NewOrigin(t, harness.Reply(200, "one", noStore))
	two := harness.NewOrigin(t, harness.Reply(200, "two", noStore))
	rules := "map: [{prefix: /, origin: %q}]\n"
	p := harness.Start(t, harness.Config(fmt.Sprintf(rules, one.URL())))
	p.Client().Get("/").Expect(200, "one")
	p.WriteConfig(fmt.Sprintf(rules, two.URL()))
	p.Signal(harness.Cop, unix.SIGHUP)
	harness.WaitFor(t, "the new rule", func() bool {
		r, err := harness.Fetch(p.Addr, harness.Request("GET", "/", "", "Connection: close"))
		return err == nil && string(r.Body) == "two"
	})
}

// "The autoconfiguration port serves /synthetic.txt, /proxy.pac, /wpad.dat; /metrics in
// Prometheus text."
func TestAutoconfigurationPort(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Config("forward: {allow: [127.0.0.1]}\n"))
	c := harness.NewClient(t, p.Autoconf)
	synthetic := strings.Repeat("abcdefghijklmnopqrstuvwxyz\r\n", 60)
	c.Get("/synthetic.txt").Expect(200, synthetic).Header("Cache-Control", "no-store")
	for _, path := range []string{"/proxy.pac", "/wpad.dat"} {
		r := c.Get(path).ExpectStatus(200).Header("Content-Type", "application/x-ns-proxy-autoconfig")
		if !strings.Contains(string(r.Body), "function FindProxyForURL(url, host)") || !strings.Contains(string(r.Body), `return "PROXY `) {
			t.Errorf("%s is no proxy autoconfiguration: %s", path, r.Body)
		}
	}
	// With no clients allowed, browsers are told to stay away.
	p.WriteConfig("forward: {allow: []}\n")
	if r := p.Ctl("config", "reload"); r.Code != 0 {
		t.Errorf("reload: %+v", r)
	}
	if r := c.Get("/proxy.pac").ExpectStatus(200); strings.Contains(string(r.Body), `return "PROXY `) {
		t.Errorf("nobody may use the proxy, and browsers are sent to it: %s", r.Body)
	}
	c.Get("/nothing").ExpectStatus(404)
	c.Head("/synthetic.txt").Expect(200, "").Header("Content-Length", strconv.Itoa(len(synthetic)))
	c.Post("/synthetic.txt", "x").ExpectStatus(405)

	p.Client().Get("/").ExpectStatus(200)
	m := p.Metrics()
	if len(m) < 10 {
		t.Errorf("only %d metrics: %v", len(m), m)
	}
	for name := range m {
		if !strings.HasPrefix(name, "trafficd_") && !strings.HasPrefix(name, "process_") && !strings.HasPrefix(name, "go_") {
			t.Errorf("metric %s has no prefix of ours", name)
		}
	}
}

// The autoconfiguration port answers what is no plain GET or HEAD, too, but nothing behind it on its connection.
func TestAutoconfigurationPortEndsOddConnections(t *testing.T) { // RFC 9112 §6.1
	t.Parallel()
	p := harness.Start(t)
	const next = "GET /synthetic.txt HTTP/1.1\r\nHost: h.test\r\n\r\n"
	for raw, status := range map[string]int{
		"GET /synthetic.txt HTTP/1.1\r\nHost: h.test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n": 200,
		"GET /synthetic.txt HTTP/1.1\r\nHost: h.test\r\nContent-Length: 5\r\n\r\nhello":                                   200,
		"POST /synthetic.txt HTTP/1.1\r\nHost: h.test\r\nContent-Length: 5\r\n\r\nhello":                                  405,
		"OPTIONS /synthetic.txt HTTP/1.1\r\nHost: h.test\r\n\r\n":                                                         405,
		"POST /nothing HTTP/1.1\r\nHost: h.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n":                           404,
	} {
		c := harness.NewClient(t, p.Autoconf).Dial().Send(raw + next)
		if r := c.Read("GET"); r.Status != status || r.Get("Connection") != "close" {
			t.Errorf("%q: status %d, Connection: %s", raw, r.Status, r.Get("Connection"))
		}
		c.ExpectClosed()
	}
	c := harness.NewClient(t, p.Autoconf).Dial().Send(next + next)
	c.Read("GET").ExpectStatus(200)
	c.Read("GET").ExpectStatus(200)
}

// Bad input to the autoconfiguration port and to the control socket: refused, and nobody dies.
func TestAutoconfigurationPortBadInput(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	before := p.PIDs()
	for _, raw := range []string{
		"\x00\xff\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET /" + strings.Repeat("a", 1<<20), "POST /proxy.pac HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
	} {
		c := harness.NewClient(t, p.Autoconf).Dial().Offer(raw)
		if r, err := c.Try("GET"); err == nil && r.Status < 400 {
			t.Errorf("%.40q: status %d", raw, r.Status)
		}
		c.Close()
	}
	for _, raw := range []string{"\x00\xff\r\n\r\n", "{}", "POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"} {
		harness.Poke(t, filepath.Join(p.RunRoot, "control.sock"), raw)
	}
	for role, pid := range before {
		p.ExpectSame(role, pid)
	}
	p.Status()
}

// Counters live in shared memory: the death of a server resets none.
func TestCountersSurviveAKill(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	for range 5 {
		p.Client().Get("/").ExpectStatus(200)
	}
	before := p.Metrics()
	old := p.Kill(harness.Server)
	p.WaitReplaced(harness.Server, old.PID)
	p.WaitReady()
	for name, v := range p.Metrics() {
		if strings.HasSuffix(name, "_total") && v < before[name] {
			t.Errorf("%s fell from %v to %v", name, before[name], v)
		}
	}
}

// statusSays waits until a line of the status begins so, and has the rest.
func statusSays(t *testing.T, p *harness.Trafficd, what string, rest ...string) {
	t.Helper()
	harness.WaitFor(t, "the status to speak of the "+what, func() bool {
		for line := range strings.Lines(p.Ctl("status").Stdout) {
			after, about := strings.CutPrefix(line, what)
			if about && !slices.ContainsFunc(rest, func(s string) bool { return !strings.Contains(after, s) }) {
				return true
			}
		}
		return false
	})
}
