package logging

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// lines reads a file of JSON lines.
func lines(t *testing.T, path string) []map[string]any {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []map[string]any
	for sc := bufio.NewScanner(bytes.NewReader(b)); sc.Scan(); {
		var m map[string]any
		if err := json.Unmarshal(sc.Bytes(), &m); err != nil {
			t.Fatalf("%q: %v", sc.Text(), err)
		}
		out = append(out, m)
	}
	return out
}

func open(t *testing.T, o Options) *Log {
	t.Helper()
	l, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestLineHasRolePidAndTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := open(t, Options{Role: "manager", Path: path})
	l.Info().Str("reason", "a\nb").Msg("spawn_server")
	got := lines(t, path)
	if len(got) != 1 || got[0]["role"] != "manager" || got[0]["pid"] != float64(os.Getpid()) || got[0]["message"] != "spawn_server" ||
		got[0]["level"] != "info" || got[0]["reason"] != "a\nb" {
		t.Fatalf("got %v", got)
	}
	if _, err := time.Parse(timeForm, got[0]["time"].(string)); err != nil {
		t.Error(err)
	}
}

func TestLevelCanBeChanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := open(t, Options{Path: path, Level: "warn"})
	child := l.With().Str("part", "x").Logger()
	child.Info().Msg("1")
	child.Warn().Msg("2")
	if err := l.SetLevel("debug"); err != nil {
		t.Fatal(err)
	}
	child.Debug().Msg("3")
	child.Trace().Msg("4")
	if got := lines(t, path); len(got) != 2 || got[0]["message"] != "2" || got[1]["message"] != "3" {
		t.Errorf("got %v", got)
	}
	if err := l.SetLevel("loud"); err == nil {
		t.Error("SetLevel(loud) succeeded")
	}
}

func TestReopenAfterRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := open(t, Options{Path: path})
	fd := l.FD()
	var wg sync.WaitGroup
	const writers, each = 4, 200
	for range writers {
		wg.Go(func() {
			for i := range each {
				l.Info().Int("i", i).Msg("x")
			}
		})
	}
	for i := range 5 {
		if err := os.Rename(path, fmt.Sprint(path, i)); err != nil {
			t.Fatal(err)
		}
		if err := l.Reopen(); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	n := len(lines(t, path))
	for i := range 5 {
		n += len(lines(t, fmt.Sprint(path, i)))
	}
	if n != writers*each {
		t.Errorf("%d lines in all files, want %d", n, writers*each)
	}
	if l.FD() != fd {
		t.Errorf("descriptor %d became %d", fd, l.FD())
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(); err == nil {
		t.Error("Reopen after Close succeeded")
	}
}

func TestHumanForm(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	l := open(t, Options{Role: "cop", Format: "human", Out: w})
	l.Warn().Int("server", 7).Str("why", "two words").Msg("safe_kill")
	w.Close()
	line, _ := bufio.NewReader(r).ReadString('\n')
	if !strings.Contains(line, "WRN cop     safe_kill") || !strings.Contains(line, `server=7`) || !strings.Contains(line, `why="two words"`) || strings.Contains(line, "\x1b") {
		t.Errorf("got %q", line)
	}
}

// A role learns late in which form its log is wanted, while others write to it and have it reopened.
func TestFormCanBeChanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := open(t, Options{Path: path})
	var others sync.WaitGroup
	stop := make(chan struct{})
	others.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				l.Info().Msg("meanwhile")
				if err := l.Reopen(); err != nil {
					t.Error(err)
				}
			}
		}
	})
	for _, f := range []struct {
		format string
		json   bool
	}{{"human", false}, {"json", true}, {"human", false}, {"auto", true}, {"", true}} {
		if err := l.SetFormat(f.format); err != nil {
			t.Fatal(err)
		}
		l.Info().Msg("now " + f.format)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(string(text), `"message":"now `+f.format+`"`); got != f.json {
			t.Errorf("%q: JSON is %v", f.format, got)
		}
	}
	close(stop)
	others.Wait()
	if err := l.SetFormat("xml"); err == nil {
		t.Error("SetFormat(xml) succeeded")
	}
}

// The reader of standard error goes away: neither an error nor SIGPIPE may reach the role.
func TestReaderThatWentAway(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	l := open(t, Options{Out: w})
	r.Close()
	l.Info().Msg("into the void")
}

func TestBadOptions(t *testing.T) {
	for _, o := range []Options{{Level: "x"}, {Level: "fatal"}, {Format: "x"}, {Path: "/nonexistent/x"}} {
		if l, err := New(o); err == nil {
			l.Close()
			t.Errorf("New(%+v) succeeded", o)
		}
	}
}
