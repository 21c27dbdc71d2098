package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"trafficd/e2e/harness"
)

// logged is an instance with an access log.
func logged(t *testing.T, format string, routes map[string]harness.Handler, opts ...harness.Option) (*harness.Trafficd, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "access.log")
	o := harness.NewOrigin(t, harness.Routes(routes))
	all := []harness.Option{harness.Map("/", o), harness.Set("access_log.path", path), harness.Args("--threads", "1")}
	if strings.Contains(format, "%") {
		all = append(all, harness.Set("access_log.format", "custom"), harness.Set("access_log.custom", format))
	} else {
		all = append(all, harness.Set("access_log.format", format))
	}
	return harness.Start(t, append(all, opts...)...), path
}

// lines waits until the file has as many lines, of requests that are not the harness's own, and returns them.
func lines(t *testing.T, path string, n int) []string {
	t.Helper()
	var got []string
	harness.WaitFor(t, fmt.Sprintf("%d lines in %s", n, path), func() bool {
		text, err := os.ReadFile(path)
		if err != nil {
			return false
		}
		got = got[:0]
		for line := range strings.Lines(string(text)) {
			if !strings.Contains(line, "OPTIONS") && !strings.HasPrefix(line, "* ") {
				got = append(got, strings.TrimSuffix(line, "\n"))
			}
		}
		return len(got) >= n
	})
	if len(got) != n {
		t.Fatalf("%d lines, want %d:\n%s", len(got), n, strings.Join(got, "\n"))
	}
	return got
}

var answers = map[string]harness.Handler{
	"/a": harness.Reply(200, "hello", "Cache-Control: max-age=600", "Content-Type: text/plain; charset=utf-8", "ETag: \"1\""),
	"/b": harness.Reply(404, "no", "Cache-Control: no-store"),
}

// askAll makes the requests that the stories of the formats tell of.
func askAll(p *harness.Trafficd) {
	p.Client().Get("/a?x=1", "User-Agent: t/1 \"q\"", "Referer: http://r/").Expect(200, "hello")
	p.Client().Get("/a?x=1").Expect(200, "hello")
	p.Client().Get("/a?x=1", `If-None-Match: "1"`).Expect(304, "")
	p.Client().Get("/b").Expect(404, "no")
	c := p.Client().Dial()
	c.Send("GET /\x01 \"x\r\n\r\n").Read("GET").ExpectStatus(400)
	c.ExpectEOF()
}

func TestAccessLogFormats(t *testing.T) {
	t.Parallel()
	const addr, clf = `127\.0\.0\.1`, `127\.0\.0\.1 - - \[../.../....:..:..:.. .....\] `
	for format, want := range map[string][]string{
		"common": {
			clf + `"GET /a\?x=1 HTTP/1\.1" 200 5`, clf + `"GET /a\?x=1 HTTP/1\.1" 200 5`, clf + `"GET /a\?x=1 HTTP/1\.1" 304 -`,
			clf + `"GET /b HTTP/1\.1" 404 2`, clf + `"GET /\\x01 \\"x" 400 [0-9]+`,
		},
		"combined": {
			clf + `"GET /a\?x=1 HTTP/1\.1" 200 5 "http://r/" "t/1 \\"q\\""`, clf + `"GET /a\?x=1 HTTP/1\.1" 200 5 "-" "-"`,
			clf + `"GET /a\?x=1 HTTP/1\.1" 304 - "-" "-"`, clf + `"GET /b HTTP/1\.1" 404 2 "-" "-"`, clf + `"GET /\\x01 \\"x" 400 [0-9]+ "-" "-"`,
		},
		"squid": {
			`[0-9]+\.[0-9]{3} +[0-9]+ ` + addr + ` TCP_MISS/200 [0-9]+ GET http://localhost/a\?x=1 - DIRECT/127\.0\.0\.1 text/plain`,
			`[0-9]+\.[0-9]{3} +[0-9]+ ` + addr + ` TCP_MEM_HIT/200 [0-9]+ GET http://localhost/a\?x=1 - NONE/- text/plain`,
			`[0-9]+\.[0-9]{3} +[0-9]+ ` + addr + ` TCP_IMS_HIT/304 [0-9]+ GET http://localhost/a\?x=1 - NONE/- .*`,
			`[0-9]+\.[0-9]{3} +[0-9]+ ` + addr + ` TCP_MISS/404 [0-9]+ GET http://localhost/b - DIRECT/127\.0\.0\.1 -`,
			`[0-9]+\.[0-9]{3} +[0-9]+ ` + addr + ` NONE/400 [0-9]+ - error:invalid-request - NONE/- text/plain`,
		},
		`%m %U%q %s %B %{cache}x %{Content-Length}o %{Via}o %{User-Agent}i %X %k`: {
			`GET /a\?x=1 200 5 TCP_MISS 5 1\.1 trafficd t/1 \\"q\\" - 0`, `GET /a\?x=1 200 5 TCP_MEM_HIT 5 1\.1 trafficd - - 0`,
			`GET /a\?x=1 304 0 TCP_IMS_HIT - 1\.1 trafficd - - 0`, `GET /b 404 2 TCP_MISS 2 1\.1 trafficd - - 0`, `- - 400 [0-9]+ NONE [0-9]+ - - - 0`,
		},
	} {
		t.Run(strings.Fields(format)[0], func(t *testing.T) {
			t.Parallel()
			p, path := logged(t, format, answers)
			askAll(p)
			for i, line := range lines(t, path, len(want)) {
				if !regexp.MustCompile("^" + want[i] + "$").MatchString(line) {
					t.Errorf("line %d:\n got %s\nwant %s", i, line, want[i])
				}
			}
		})
	}
}

func TestAccessLogJSON(t *testing.T) {
	t.Parallel()
	p, path := logged(t, "json", answers)
	askAll(p)
	var got []string
	for _, line := range lines(t, path, 5) {
		var e struct {
			Time, Client, Method, Host, URL, Request, Cache, Hierarchy, Origin string
			Status, BodyBytes                                                  int
			Aborted                                                            bool
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if _, err := time.Parse(time.RFC3339Nano, e.Time); err != nil || e.Client != "127.0.0.1" || e.Aborted {
			t.Errorf("%s: %v", line, err)
		}
		got = append(got, fmt.Sprint(e.Method, " ", e.Host, e.URL, e.Request, " ", e.Status, " ", e.Cache))
	}
	want := []string{
		"GET localhost/a?x=1 200 TCP_MISS", "GET localhost/a?x=1 200 TCP_MEM_HIT", "GET localhost/a?x=1 304 TCP_IMS_HIT",
		"GET localhost/b 404 TCP_MISS", " GET /\x01 \"x 400 NONE",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// What does not come to its end has a line as well: an origin that breaks off, a client that goes before
// there is an answer, one that is too slow.
func TestAccessLogOfWhatFails(t *testing.T) {
	t.Parallel()
	arrived, hold := make(chan struct{}, 1), make(chan struct{})
	routes := map[string]harness.Handler{
		"/half": func(e *harness.Exchange) {
			e.Raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\nCache-Control: no-store\r\n\r\nhalf")
			e.Await(arrived)
			e.Close()
		},
		"/wait": func(e *harness.Exchange) {
			arrived <- struct{}{}
			<-hold
		},
	}
	defer close(hold)
	p, path := logged(t, `%m %U %s %B %{cache}x %X "%r"`, routes, harness.Set("timeouts.client_header", "50ms"), harness.Set("timeouts.client_body", "50ms"))
	c := p.Client().Dial()
	c.Send(harness.Request("GET", "/half", ""))
	c.ReadHead().ExpectStatus(200)
	c.ReadRaw(4)
	arrived <- struct{}{}
	lines(t, path, 1)
	c = p.Client().Dial()
	c.Send(harness.Request("GET", "/wait", ""))
	<-arrived
	c.Reset()
	lines(t, path, 2)
	c = p.Client().Dial()
	c.Send("GET /slow HT").Read("GET").ExpectStatus(408)
	lines(t, path, 3)
	c = p.Client().Dial()
	c.Send("POST /wait HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nabc").Read("POST").ExpectStatus(408) // whether or not the origin has heard of it by then
	got := lines(t, path, 4)
	for i, want := range []string{
		`GET /half 200 4 TCP_MISS_ABORTED X "GET /half HTTP/1\.1"`,
		`GET /wait 499 0 TCP_MISS_ABORTED X "GET /wait HTTP/1\.1"`,
		`- - 408 [0-9]+ NONE - "GET /slow HT"`,
		`(-|POST) (-|/wait) 408 [0-9]+ [A-Z_]+ - "POST /wait HTTP/1\.1"`,
	} {
		if !regexp.MustCompile("^" + want + "$").MatchString(got[i]) {
			t.Errorf("line %d:\n got %s\nwant %s", i, got[i], want)
		}
	}
}

// A visitor makes requests with numbers, and knows which were answered to the last byte.
type visitors struct {
	t    *testing.T
	addr string
	wg   sync.WaitGroup
	stop atomic.Bool
	next atomic.Int64
	done sync.Map // by number
}

func visit(t *testing.T, addr string, n int) *visitors {
	v := &visitors{t: t, addr: addr}
	for i := range n {
		v.wg.Go(func() { v.run(i) })
	}
	return v
}

func (v *visitors) run(kind int) {
	var c *harness.Conn
	defer func() {
		if c != nil {
			c.Close()
		}
	}()
	for !v.stop.Load() {
		if c == nil {
			var err error
			if c, err = harness.Connect(v.addr); err != nil {
				v.t.Errorf("connect: %v", err)
				return
			}
		}
		id := v.next.Add(1)
		if kind == 0 && id%5 == 0 {
			if err := v.tunnel(id); err != nil {
				v.t.Errorf("tunnel %d: %v", id, err)
				return
			}
			continue
		}
		method, target, body, headers := "GET", "/hit", "", []string{fmt.Sprintf("X-Id: %d", id)}
		switch (int(id) + kind) % 4 {
		case 1:
			target = fmt.Sprintf("/miss?%d", id)
		case 2:
			method, target, body = "POST", "/post", strings.Repeat("x", int(id)%3000)
		case 3:
			target = "/chunked"
		}
		last := int(id)%7 == 0
		if last {
			headers = append(headers, "Connection: close")
		}
		if _, err := c.Write([]byte(harness.Request(method, target, body, headers...))); err != nil {
			v.t.Errorf("request %d, %s %s: %v", id, method, target, err)
			return
		}
		r, err := c.Try(method)
		if err != nil || r.Status != 200 || string(r.Body) != page {
			v.t.Errorf("request %d, %s %s: %v, %v", id, method, target, err, r)
			return
		}
		v.done.Store(fmt.Sprint(id), true)
		if last {
			c.Close()
			c = nil
		}
	}
}

const echoed = 1000

// tunnel sends something through a tunnel, twice, and gets it back.
func (v *visitors) tunnel(id int64) error {
	c, err := harness.Connect(v.addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write([]byte(harness.Request("GET", "/echo", "", fmt.Sprintf("X-Id: %d", id), "Connection: Upgrade", "Upgrade: echo"))); err != nil {
		return err
	}
	if r, err := c.Try("GET"); err != nil || r.Status != 101 {
		return fmt.Errorf("%v, %v", err, r)
	}
	for range 2 {
		if _, err := c.Write([]byte(page[:echoed/2])); err != nil {
			return err
		}
		var got strings.Builder
		if _, err := c.CopyRaw(&got, echoed/2); err != nil || got.String() != page[:echoed/2] {
			return fmt.Errorf("%v, %q", err, got.String())
		}
	}
	c.CloseWriteIfOpen()
	if _, err := c.CopyRaw(io.Discard, 1); err != io.EOF {
		return fmt.Errorf("end: %v", err)
	}
	v.done.Store(fmt.Sprint(id), true)
	return nil
}

// leave ends the visits. It returns the numbers of the requests.
func (v *visitors) leave() map[string]bool {
	v.stop.Store(true)
	v.wg.Wait()
	ids := map[string]bool{}
	v.done.Range(func(id, _ any) bool { ids[id.(string)] = true; return true })
	return ids
}

var page = strings.Repeat("0123456789", 2000)

var visited = map[string]harness.Handler{
	"/hit":  harness.Reply(200, page, "Cache-Control: max-age=600"),
	"/miss": harness.Reply(200, page, "Cache-Control: max-age=600"),
	"/post": harness.Reply(200, page),
	"/echo": func(e *harness.Exchange) {
		e.Raw("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		s := e.Stream()
		io.Copy(s, s)
		e.Close()
	},
	"/chunked": func(e *harness.Exchange) {
		e.Raw("HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nTransfer-Encoding: chunked\r\n\r\n")
		e.Chunk(page[:7000])
		e.Chunk(page[7000:])
		e.Raw("0\r\n\r\n")
	},
}

// compare looks for every request in the logs, each once, and whole.
func compare(t *testing.T, dir string, ids map[string]bool) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "access.log*"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			id, rest, _ := strings.Cut(line, " ")
			if id == "-" {
				continue // the harness's own
			}
			seen[id]++
			if rest != fmt.Sprintf("200 %d\n", len(page)) && rest != fmt.Sprintf("101 %d\n", echoed) {
				t.Errorf("%s: %q", filepath.Base(file), line)
			}
		}
	}
	lost, doubled := 0, 0
	for id := range ids {
		switch n := seen[id]; {
		case n == 0:
			lost++
		case n > 1:
			doubled++
		}
		delete(seen, id)
	}
	t.Logf("%d requests, %d files", len(ids), len(files))
	if lost > 0 || doubled > 0 || len(seen) > 0 {
		t.Errorf("of %d requests %d have no line and %d more than one; lines of requests that nobody made: %v", len(ids), lost, doubled, seen)
	}
}

// "No line lost or doubled by a crash": servers are killed at any instant, each pair of processes as well, and the log
// is rotated meanwhile. Every request that a client saw completed has one line.
func TestAccessLogOverKills(t *testing.T) {
	p, path := logged(t, "%{X-Id}i %s %B", visited, harness.Bearing(), harness.Args("--threads", "2"))
	seed := rand.Uint64N(1 << 32)
	t.Logf("seed %d", seed)
	v := visit(t, p.Addr, 6)
	c := newCampaign(t, p, seed, victims, 30*time.Millisecond)
	kills := 60
	if harness.Race() || testing.Short() {
		kills = 25
	}
	for n := 1; c.kills < kills; n++ {
		c.run(c.kills + 5)
		if err := os.Rename(path, fmt.Sprintf("%s.%d", path, n)); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		p.Ctl("log", "reopen", "--timeout", "5s") // the manager may be dead just now
	}
	ids := v.leave()
	t.Log(c.report())
	p.Terminate()
	compare(t, filepath.Dir(path), ids)
}

// Rotation by rename and USR1, under load.
func TestAccessLogRotation(t *testing.T) {
	t.Parallel()
	p, path := logged(t, "%{X-Id}i %s %B", visited, harness.Args("--threads", "2"))
	v := visit(t, p.Addr, 3)
	for n := range 5 {
		at := v.next.Load()
		harness.WaitFor(t, "requests", func() bool { return v.next.Load() > at+200 || t.Failed() })
		if err := os.Rename(path, fmt.Sprintf("%s.%d", path, n)); err != nil {
			t.Fatal(err)
		}
		p.Signal(harness.Cop, 10 /* USR1 */)
		harness.WaitFor(t, "a new file", func() bool { _, err := os.Stat(path); return err == nil })
	}
	ids := v.leave()
	p.Terminate()
	compare(t, filepath.Dir(path), ids)
}

// A tunnel has its line at its end, with the bytes of both directions, also those that a server moved that is dead by then.
func TestAccessLogOfATunnel(t *testing.T) {
	t.Parallel()
	p, path := logged(t, "%m %U %s %I %B %{cache}x %{hierarchy}x %{User-Agent}i", visited)
	old := p.PID(harness.Server)
	c := p.Client().Dial()
	request := harness.Request("GET", "/echo", "", "Connection: Upgrade", "Upgrade: echo", "User-Agent: t/1")
	c.Send(request).ReadHead().ExpectStatus(101)
	for range 2 {
		c.Send(page[:100])
		if got := c.ReadRaw(100); got != page[:100] {
			t.Fatalf("got %q", got)
		}
		p.Standby()
		p.Kill(harness.Server)
		old = p.WaitReplaced(harness.Server, old)
	}
	c.CloseWrite()
	c.ExpectEOF()
	want := fmt.Sprintf("GET /echo 101 %d 200 TCP_TUNNEL DIRECT t/1", len(request)+200)
	if got := lines(t, path, 1); got[0] != want {
		t.Errorf("got %q, want %q", got[0], want)
	}
}

// A new file that cannot be opened: the old one stays in use, and whoever asked is told.
func TestAccessLogReopenFails(t *testing.T) {
	t.Parallel()
	p, path := logged(t, "%{X-Id}i", answers)
	p.Client().Get("/a", "X-Id: 1").Expect(200, "hello")
	lines(t, path, 2) // and one of the harness
	old := path + ".1"
	if err := os.Rename(path, old); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	p.Signal(harness.Cop, 10 /* USR1 */)
	harness.WaitFor(t, "the failure in the log", func() bool { return strings.Contains(p.Log.Tail(0, 100), "lines go to the old file still") })
	p.Client().Get("/a", "X-Id: 2").Expect(200, "hello")
	lines(t, old, 3)
	if r := p.Ctl("log", "reopen"); r.Code != 1 || !strings.Contains(r.Stderr, "is a directory") {
		t.Errorf("ctl log reopen: %v", r)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if r := p.Ctl("log", "reopen"); r.Code != 0 {
		t.Errorf("ctl log reopen: %v", r)
	}
	p.Client().Get("/a", "X-Id: 3").Expect(200, "hello")
	lines(t, path, 1)
}

// The logs are reopened again and again while servers start: each of them is asked to at some instant of its start.
func TestReopenWhileServersStart(t *testing.T) {
	t.Parallel()
	p, path := logged(t, "%m %{X-Id}i", answers, harness.Bearing())
	for range 5 {
		mark := p.Log.Mark()
		p.Kill(harness.Server)
		harness.WaitFor(t, "the next standby", func() bool {
			p.Signal(harness.Cop, 10 /* USR1 */)
			return slices.ContainsFunc(p.Log.Since(mark), harness.About("server stands by", harness.Server))
		})
	}
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if r := p.Ctl("log", "reopen"); r.Code != 0 {
		t.Errorf("ctl log reopen: %v", r)
	}
	p.Client().Get("/a", "X-Id: 1").Expect(200, "hello")
	if got := lines(t, path, 1); got[0] != "GET 1" {
		t.Errorf("got %q", got)
	}
}

// Switched on, changed and off by a reload.
func TestAccessLogReload(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config := func(log string) string { return "listen: [\"{{addr}}\"]\n" + log }
	p := harness.Start(t, harness.NoListen(), harness.Config(config("")))
	reload := func(log string) harness.Result {
		p.WriteConfig(strings.ReplaceAll(config(log), "{{addr}}", p.Addr))
		return p.Ctl("config", "reload")
	}
	first, second := filepath.Join(dir, "1"), filepath.Join(dir, "2")
	if r := reload("access_log: {path: " + first + ", format: common}\n"); r.Code != 0 {
		t.Fatal(r)
	}
	p.Client().Get("/").ExpectStatus(200)
	lines(t, first, 1)
	if r := reload("access_log: {path: " + second + ", format: custom, custom: '%m %s'}\n"); r.Code != 0 {
		t.Fatal(r)
	}
	p.Client().Get("/").ExpectStatus(200)
	if got := lines(t, second, 1); got[0] != "GET 200" {
		t.Errorf("got %q", got)
	}
	if r := reload("access_log: {path: " + second + ", format: custom, custom: '%m %R'}\n"); r.Code != 78 || !strings.Contains(r.Stderr, "did you mean %r") {
		t.Errorf("a format that is wrong: %v", r)
	}
	if r := reload(""); r.Code != 0 {
		t.Fatal(r)
	}
	p.Client().Get("/").ExpectStatus(200)
	p.Terminate()
	lines(t, first, 1)
	lines(t, second, 1)
}

// An access log that cannot be opened is trouble that the status shows, until it can. What is logged meanwhile waits in memory. (Where a path
// is plainly wrong, nothing is started with it; here it leads through a link to a directory that is not there.)
func TestAnAccessLogThatCannotBeOpened(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	dir, path := filepath.Join(base, "missing"), filepath.Join(base, "access.log")
	if err := os.Symlink(filepath.Join(dir, "access.log"), path); err != nil {
		t.Fatal(err)
	}
	p, _ := logged(t, "%{X-Id}i", answers, harness.Set("access_log.path", path))
	p.Client().Get("/a", "X-Id: 1").Expect(200, "hello")
	statusSays(t, p, "access log", "not written since", path)
	if r := p.Ctl("log", "reopen"); r.Code != 1 || strings.Contains(r.Stderr, "old file") || !strings.Contains(r.Stderr, "lines wait in memory") {
		t.Errorf("ctl log reopen: %+v", r)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	lines(t, path, 2) // and one of the harness
	harness.WaitFor(t, "the end of the trouble", func() bool { return !strings.Contains(p.Ctl("status").Stdout, "access log") })
}
