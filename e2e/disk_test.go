package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"trafficd/e2e/harness"
)

// onDisk waits until n responses have been written behind memory.
func onDisk(p *harness.Trafficd, n float64) {
	p.ExpectMetric("trafficd_cache_disk_objects", fmt.Sprint("at least ", n), func(v float64) bool { return v >= n })
}

// Everything is killed at one go, and started again: what was stored is served at once, to the byte,
// and the origin hears nothing of it.
func TestHitsAfterTheDeathOfAll(t *testing.T) {
	t.Parallel()
	big := letters(3 << 20)
	const fresh = "Cache-Control: max-age=600"
	p, o := proxy(t, map[string]harness.Handler{
		"/small":   harness.Reply(200, "small", fresh, `ETag: "1"`, "X-Kept: yes"),
		"/big":     harness.Reply(200, big, fresh),
		"/empty":   harness.Reply(200, "", fresh),
		"/vary":    func(e *harness.Exchange) { e.Reply(200, e.Header.Get("Accept"), fresh, "Vary: Accept") },
		"/removed": func(e *harness.Exchange) { e.Reply(200, e.Method, fresh) },
		"/stale": func(e *harness.Exchange) {
			if e.Header.Get("If-None-Match") == `"s"` {
				e.Reply(304, "", `ETag: "s"`, fresh)
				return
			}
			e.Reply(200, "stale", `ETag: "s"`, "Cache-Control: max-age=60", "Age: 60")
		},
	})
	ask := func() {
		t.Helper()
		p.Client().Get("/small").Expect(200, "small").Header("X-Kept", "yes")
		p.Client().Get("/small", `If-None-Match: "1"`).Expect(304, "")
		p.Client().Get("/big").Expect(200, big)
		p.Client().Get("/big", "Range: bytes=1000000-1000009").Expect(206, big[1000000:1000010])
		p.Client().Head("/big").Expect(200, "").Header("Content-Length", fmt.Sprint(len(big)))
		p.Client().Get("/empty").Expect(200, "")
		p.Client().Get("/vary", "Accept: a/b").Expect(200, "a/b")
		p.Client().Get("/vary", "Accept: c/d").Expect(200, "c/d")
	}
	ask()
	p.Client().Get("/removed").Expect(200, "GET")
	p.Client().Get("/stale").Expect(200, "stale")
	onDisk(p, 7)
	p.Client().Post("/removed", "x").Expect(200, "POST") // invalidates
	for range 2 {
		p.Annihilate()
		p.StartAgain()
		ask()
	}
	o.ExpectCount("/small", 1)
	o.ExpectCount("/big", 1)
	o.ExpectCount("/empty", 1)
	o.ExpectCount("/vary", 2)
	p.Client().Get("/removed").Expect(200, "GET")
	o.ExpectCount("/removed", 3)
	p.Client().Get("/stale").Expect(200, "stale") // its validator has survived
	o.ExpectCount("/stale", 2)
	p.Expect("trafficd_cache_disk_errors_total", 0)
}

// The answer of a hundred clients at once is read once.
func TestOneReadForMany(t *testing.T) {
	t.Parallel()
	body := letters(200_000)
	p, o := proxy(t, map[string]harness.Handler{"/a": harness.Reply(200, body, "Cache-Control: max-age=600")})
	p.Client().Get("/a").Expect(200, body)
	onDisk(p, 1)
	p.Annihilate()
	p.StartAgain()
	for _, r := range p.Client().Concurrently(100, harness.Request("GET", "/a", ""), nil) {
		r.Expect(200, body)
	}
	o.ExpectCount("/a", 1)
	p.Expect(`trafficd_cache_disk_lookups_total{result="hit"}`, 1)
}

// The store is damaged while nobody runs: a miss, counted, and never a wrong byte.
func TestDamagedStore(t *testing.T) {
	t.Parallel()
	p, o := proxy(t, map[string]harness.Handler{"": func(e *harness.Exchange) {
		e.Reply(200, e.Target+letters(20_000), "Cache-Control: max-age=600")
	}})
	ask := func() {
		t.Helper()
		for i := range 20 {
			p.Client().Get(fmt.Sprint("/", i)).Expect(200, fmt.Sprint("/", i)+letters(20_000))
		}
	}
	ask()
	onDisk(p, 20)
	p.Annihilate()
	path := filepath.Join(p.RunRoot, "cache", "store")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(b), "/7"+letters(20_000))
	if at < 0 {
		t.Fatal("it is not in the store")
	}
	b[at+5000] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	p.StartAgain()
	ask()
	o.ExpectCount("/6", 1)
	o.ExpectCount("/7", 2)
	p.Expect("trafficd_cache_disk_errors_total", 1)
}

// What does not fit into memory any more comes from the disk, not from the origin.
func TestMoreThanMemory(t *testing.T) {
	t.Parallel()
	p, o := proxy(t, map[string]harness.Handler{"": func(e *harness.Exchange) {
		e.Reply(200, e.Target+letters(60_000), "Cache-Control: max-age=600")
	}}, harness.Set("cache.size", "2MiB"))
	c := p.Client().Dial()
	for round := range 2 {
		for i := range 100 {
			target := fmt.Sprintf("/m/%d", i)
			c.Send(harness.Request("GET", target, "")).Read("GET").Expect(200, target+letters(60_000))
			if round == 0 && i%10 == 9 { // before it is out of memory again
				p.ExpectMetric("trafficd_cache_disk_writes_total", fmt.Sprint(i+1), func(v float64) bool { return v > float64(i) })
			}
		}
	}
	if n := len(o.Requests()); n != 100 {
		t.Errorf("the origin was asked %d times, want 100", n)
	}
}

// Another instance has the directory, or somebody else's file is there: the proxy runs without.
func TestWithoutTheDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "store"), []byte("a diary"), 0o600); err != nil {
		t.Fatal(err)
	}
	routes := map[string]harness.Handler{"/a": harness.Reply(200, "a", "Cache-Control: max-age=600")}
	p, o := proxy(t, routes, harness.Set("cache.disk_path", dir))
	for range 2 {
		p.Client().Get("/a").Expect(200, "a")
	}
	o.ExpectCount("/a", 1)
	p.Log.Wait(t, 0, "why there is none", harness.Message("no cache on disk"))
	p.Terminate()
	if b, _ := os.ReadFile(filepath.Join(dir, "store")); string(b) != "a diary" {
		t.Errorf("the file says %q now", b)
	}
	shared := t.TempDir()
	one, _ := proxy(t, routes, harness.Set("cache.disk_path", shared))
	two, _ := proxy(t, routes, harness.Set("cache.disk_path", shared))
	two.Log.Wait(t, 0, "why there is none", harness.Message("no cache on disk"))
	one.Client().Get("/a").Expect(200, "a")
	two.Client().Get("/a").Expect(200, "a")
	onDisk(one, 1)
	two.Expect("trafficd_cache_disk_objects", 0)
}

// A power cut, as the next start sees it: the store is there, and the index cannot be trusted. It is made anew, and nothing that was
// removed comes back.
func TestHitsAfterAPowerCut(t *testing.T) {
	t.Parallel()
	p, o := proxy(t, map[string]harness.Handler{"": func(e *harness.Exchange) {
		e.Reply(200, e.Target+letters(5000), "Cache-Control: max-age=600")
	}})
	for i := range 50 {
		p.Client().Get(fmt.Sprint("/", i)).ExpectStatus(200)
	}
	onDisk(p, 50)
	for i := range 10 {
		p.Client().Do("DELETE", fmt.Sprint("/", i), "").ExpectStatus(200)
	}
	p.ExpectMetric("trafficd_cache_disk_objects", "40", func(v float64) bool { return v == 40 })
	// That is the index. A purge is answered when its tombstone is in the log, and so are those from before.
	purge(t, p, 0, "/none")
	p.Annihilate()
	if err := os.Remove(filepath.Join(p.RunRoot, "cache", "index")); err != nil {
		t.Fatal(err)
	}
	p.StartAgain()
	onDisk(p, 40)
	for i := range 50 {
		target := fmt.Sprint("/", i)
		p.Client().Get(target).Expect(200, target+letters(5000))
		want := 1
		if i < 10 {
			want = 3
		}
		o.ExpectCount(target, want)
	}
}

// The server is killed again and again while nearly every answer has to be read from disk first: no
// client notices, and the origin is not asked again.
func TestKillsWhileReadingFromDisk(t *testing.T) {
	const objects, size = 60, 400_000
	p, o := proxy(t, map[string]harness.Handler{"": func(e *harness.Exchange) {
		e.Reply(200, e.Target+letters(size), "Cache-Control: max-age=600")
	}}, harness.Bearing(), harness.Set("cache.size", "12MiB"), harness.Set("cache.disk_size", "64MiB"))
	target := func(i int) string { return fmt.Sprint("/", i%objects) }
	for i := range objects { // memory holds some of them only, and not for long
		p.Client().Get(target(i)).ExpectStatus(200)
		p.ExpectMetric("trafficd_cache_disk_writes_total", fmt.Sprint(i+1), func(v float64) bool { return v > float64(i) })
	}
	stop, failed := make(chan struct{}), make(chan error, 4)
	for client := range 4 {
		go func() {
			failed <- func() error {
				c, err := harness.Connect(p.Addr)
				if err != nil {
					return err
				}
				defer c.Close()
				for i := client * 7; ; i += 3 {
					select {
					case <-stop:
						return nil
					default:
					}
					c.Offer(harness.Request("GET", target(i), ""))
					r, err := c.Try("GET")
					if err != nil {
						return fmt.Errorf("%s: %w", target(i), err)
					}
					if r.Status != 200 || string(r.Body) != target(i)+letters(size) {
						return fmt.Errorf("%s: status %d, %d bytes", target(i), r.Status, len(r.Body))
					}
				}
			}()
		}()
	}
	for range 12 {
		p.Standby()
		old := p.Kill(harness.Server)
		old.WaitGone(t)
		p.WaitTaken(old.PID, harness.Patience)
	}
	close(stop)
	for range 4 {
		if err := harness.Receive(t, "the end of a client", failed); err != nil {
			t.Error(err)
		}
	}
	for i := range objects {
		o.ExpectCount(target(i), 1)
	}
	p.ExpectMetric(`trafficd_cache_disk_lookups_total{result="hit"}`, "many", func(v float64) bool { return v >= objects })
	p.Expect("trafficd_cache_disk_errors_total", 0)
}

// There is no room for a store of the size that was asked for: said clearly, and the proxy runs without.
func TestNoRoomOnDisk(t *testing.T) {
	t.Parallel()
	p, o := proxy(t, map[string]harness.Handler{"/a": harness.Reply(200, "a", "Cache-Control: max-age=600")},
		harness.Set("cache.disk_path", t.TempDir()), harness.Set("cache.disk_size", "15TiB"))
	line := p.Log.Wait(t, 0, "why there is none", harness.Message("no cache on disk"))
	if !strings.Contains(line.Raw, "no space left") {
		t.Errorf("it says %s", line.Raw)
	}
	for range 2 {
		p.Client().Get("/a").Expect(200, "a")
	}
	o.ExpectCount("/a", 1)
}

// A directory for the cache that cannot be made, and a log that cannot be written, are mistakes in the settings, and said before anything is served.
func TestPathsThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for setting, says := range map[string]string{
		"cache.disk_path": "TRAFFICD_CACHE_DISK_PATH: cache.disk_path: cannot make",
		"access_log.path": "TRAFFICD_ACCESS_LOG_PATH: access_log.path: cannot write",
	} {
		p := harness.Start(t, harness.NotReady(), harness.ExitAny(), harness.Set(setting, file+"/below"))
		p.Log.Wait(t, 0, "what is wrong", func(l harness.Line) bool { return strings.HasPrefix(l.Raw, says) })
		if code := p.ExitCode(); code != 78 {
			t.Errorf("%s: exit code %d, want 78", setting, code)
		}
	}
}

// The disk goes away while the proxy runs, and nothing can be made where it was: each server that comes goes on without it, and says so.
func TestTheDiskGoesAway(t *testing.T) {
	t.Parallel()
	mount := filepath.Join(t.TempDir(), "mount")
	p, o := proxy(t, map[string]harness.Handler{"/a": harness.Reply(200, "a", "Cache-Control: max-age=600")},
		harness.Set("cache.disk_path", mount+"/store"))
	p.Client().Get("/a").Expect(200, "a")
	onDisk(p, 1)
	if err := os.Rename(mount, mount+".gone"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(mount, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		p.Standby()
		mark, old := p.Log.Mark(), p.PID(harness.Server)
		p.Kill(harness.Server)
		p.WaitReplaced(harness.Server, old)
		p.Client().Get("/a").Expect(200, "a")
		p.Log.Wait(t, mark, "that there is no disk", harness.Message("no cache on disk"))
	}
	o.ExpectCount("/a", 1)
	p.Standby() // the manager knows by then that the last of them is ready
	if r := p.Ctl("cache", "stat"); !strings.Contains(r.Stdout, "off since") || !strings.Contains(r.Stdout, "not a directory") {
		t.Errorf("cache stat: %s%s", r.Stdout, r.Stderr)
	}
	statusSays(t, p, "cache on disk", "off since", "not a directory")
	p.ExpectMetric("trafficd_cache_disk_errors_total", "at least 3", func(v float64) bool { return v >= 3 })
}

// A path that cannot be made is refused by a reload, which changes nothing for the servers to come.
func TestReloadOfADirectoryThatCannotBeMade(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Config("cache: {disk_path: '{{run-root}}/here'}\n"))
	p.WriteConfig("cache: {disk_path: /proc/foo}\n")
	for _, args := range [][]string{{"config", "check"}, {"config", "check", p.ConfigPath()}, {"config", "reload"}} {
		if r := p.Ctl(args...); r.Code != 78 || !strings.Contains(r.Stderr, "trafficd.yaml:1:20: cache.disk_path: cannot make /proc/foo") {
			t.Errorf("%q: exit code %d, %s", args, r.Code, r.Stderr)
		}
	}
	for range 2 {
		p.Standby()
		old := p.PID(harness.Server)
		p.Kill(harness.Server)
		p.WaitReplaced(harness.Server, old)
		p.Client().Get("/").ExpectStatus(200)
	}
}

// Somebody truncates the index while it is in use: the disk is off, which is said and counted once, and memory serves on. The next server makes
// the index anew.
func TestTheIndexIsTruncated(t *testing.T) {
	t.Parallel()
	p, o := proxy(t, map[string]harness.Handler{"": func(e *harness.Exchange) { e.Reply(200, e.Target, "Cache-Control: max-age=600") }})
	p.Client().Get("/a").Expect(200, "/a")
	onDisk(p, 1)
	if err := os.Truncate(filepath.Join(p.RunRoot, "cache", "index"), 0); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"/b", "/c", "/a"} {
		p.Client().Get(target).Expect(200, target)
	}
	off := func(l harness.Line) bool { return strings.HasPrefix(l.Message, "cache on disk is off") }
	p.Log.Wait(t, 0, "that the disk is off", off)
	if n := p.Log.Count(0, off); n != 1 {
		t.Errorf("it says %d times that the disk is off", n)
	}
	p.Expect("trafficd_cache_disk_errors_total", 1)
	if r := p.Ctl("cache", "stat"); !strings.Contains(r.Stdout, "off since") || !strings.Contains(r.Stdout, "index") {
		t.Errorf("cache stat: %s%s", r.Stdout, r.Stderr)
	}
	statusSays(t, p, "cache on disk", "off since", "index")
	o.ExpectCount("/a", 1)
	if r := p.Ctl("restart", "server"); r.Code != 0 {
		t.Fatalf("restart: %s", r.Stderr)
	}
	onDisk(p, 3)
	for _, args := range [][]string{{"cache", "stat"}, {"status"}} {
		if r := p.Ctl(args...); r.Code != 0 || strings.Contains(r.Stdout, "off since") {
			t.Errorf("%q: %s%s", args, r.Stdout, r.Stderr)
		}
	}
}

// All that is on disk is damaged: every read is counted, and few lines tell of it.
func TestEveryReadFails(t *testing.T) {
	t.Parallel()
	p, _ := proxy(t, map[string]harness.Handler{"": func(e *harness.Exchange) {
		e.Reply(200, e.Target+letters(20_000), "Cache-Control: max-age=600")
	}})
	const objects = 100
	ask := func() {
		t.Helper()
		for i := range objects {
			p.Client().Get(fmt.Sprint("/", i)).Expect(200, fmt.Sprint("/", i)+letters(20_000))
		}
	}
	ask()
	onDisk(p, objects)
	p.Annihilate()
	path := filepath.Join(p.RunRoot, "cache", "store")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b = []byte(strings.ReplaceAll(string(b), letters(20_000)[100:1000], strings.Repeat("x", 900)))
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	p.StartAgain()
	mark := p.Log.Mark()
	ask()
	p.Expect("trafficd_cache_disk_errors_total", objects)
	if n := p.Log.Count(mark, harness.Message("cache on disk")); n < 1 || n > objects/10 {
		t.Errorf("%d lines tell of %d failures", n, objects)
	}
	statusSays(t, p, "cache on disk", "failing since")
}
