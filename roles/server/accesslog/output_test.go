package accesslog

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"trafficd/roles/server/custody"
)

// newLogs makes a log over memory of its own. Its writer does not run.
func newLogs(t testing.TB, loops int) *Output {
	t.Helper()
	mem, err := NewMemory(loops)
	if err != nil {
		t.Fatal(err)
	}
	return heir(t, mem, loops)
}

// little is memory with the smallest rings.
func little(loops int) []byte { return make([]byte, dataAt+loops*minRing) }

// heir makes the log of a server that finds mem as the one before has left it.
func heir(t testing.TB, mem []byte, loops int) *Output {
	t.Helper()
	out, err := New(Options{
		Loops: loops, Memory: mem, Self: func() (int, uint64) { return 1, 1 },
		Report: func(error) {}, Written: func(int) {}, Failed: func() {}, Dropped: func(int) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := out.Claim(); err != nil {
		t.Fatal(err)
	}
	f, err := NewFormat("custom", "%U")
	if err != nil {
		t.Fatal(err)
	}
	for i := range loops {
		out.Log(i).Use(f)
	}
	return out
}

// add logs requests for /n.
func add(t testing.TB, l *Log, from, to int) {
	t.Helper()
	for n := from; n < to; n++ {
		l.Add(example(t, fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: h\r\n\r\n", n)))
	}
}

func want(from, to int) string {
	var b strings.Builder
	for n := from; n < to; n++ {
		fmt.Fprintf(&b, "/%d\n", n)
	}
	return b.String()
}

func begin(out *Output, path string) *Output {
	out.path, out.inherited = path, true
	return out
}

func check(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Fatalf("%s: %v; %d bytes, want %d:\n%.300s", filepath.Base(path), err, len(got), len(want), got)
	}
}

func TestLinesOfSeveralLoops(t *testing.T) {
	out := begin(newLogs(t, 3), filepath.Join(t.TempDir(), "log"))
	for i := range 3 {
		add(t, out.Log(i), 10*i, 10*i+10)
	}
	if !out.write() {
		t.Fatal("not written")
	}
	check(t, out.path, want(0, 30))
	if !out.empty() {
		t.Error("the rings are not empty")
	}
}

// Round and round: lines that lie across the end of the ring come out whole.
func TestARingIsUsedAgain(t *testing.T) {
	out := begin(heir(t, little(1), 1), filepath.Join(t.TempDir(), "log"))
	dropped := 0
	out.o.Dropped = func(int) { dropped++ }
	n, all := 0, len(out.logs[0].ring.data)*3/32
	for n < all {
		add(t, out.Log(0), n, n+1000)
		n += 1000
		out.write()
	}
	check(t, out.path, want(0, n))
	if dropped != 0 {
		t.Errorf("%d lines were dropped", dropped)
	}
}

// A full ring keeps what it has.
func TestAFullRingDropsLines(t *testing.T) {
	out := begin(heir(t, little(1), 1), filepath.Join(t.TempDir(), "log"))
	dropped := 0
	out.o.Dropped = func(int) { dropped++ }
	n := 0
	for ; dropped == 0; n++ {
		add(t, out.Log(0), n, n+1)
	}
	out.write()
	check(t, out.path, want(0, n-1))
}

// Each loop has 4 MiB of the memory that the manager makes, however many there are. Of a little memory each takes as
// much as makes a power of two.
func TestSizeOfRings(t *testing.T) {
	for _, loops := range []int{1, 2, 3, maxLoops} {
		for _, c := range []struct{ each, want int }{{4 << 20, 4 << 20}, {8<<20 - 8, 4 << 20}, {minRing, minRing}} {
			m, err := newMemory(make([]byte, dataAt+loops*c.each), loops)
			if err != nil {
				t.Fatal(err)
			}
			if m.ring != c.want {
				t.Errorf("%d loops with %d bytes each: a ring has %d, want %d", loops, c.each, m.ring, c.want)
			}
		}
	}
}

// A server dies at each step of the writer. What it had written then, its successor neither loses
// nor writes again.
func TestDeathOfTheWriter(t *testing.T) {
	whole := want(0, 100)
	for _, c := range []struct {
		name string
		die  func(out *Output, s *state)
		file string // what must be in it
	}{
		{"before the batch", func(*Output, *state) {}, whole},
		{"before it is written", func(out *Output, s *state) { out.next(s) }, whole},
		{"in the midst of it", func(out *Output, s *state) {
			out.next(s)
			out.file.f.Write(out.m.batch()[:137])
		}, whole},
		{"before that is noted", func(out *Output, s *state) {
			out.next(s)
			out.file.f.Write(out.m.batch()[:s.length])
		}, whole},
		{"after a part was noted", func(out *Output, s *state) {
			out.next(s)
			out.file.f.Write(out.m.batch()[:100])
			s.done = 100
			out.commit(s)
			out.file.f.Write(out.m.batch()[100:101])
		}, whole},
		{"behind lines of another server", func(out *Output, s *state) {
			out.next(s)
			out.file.f.WriteString("/other\n/0\n")
			out.file.f.Write(out.m.batch()[:s.length])
		}, "/other\n/0\n" + whole},
		{"while it was truncated", func(out *Output, s *state) {
			out.file.f.WriteString("/older\n")
			out.next(s)
			out.file.f.Truncate(0)
		}, whole},
		{"after it was truncated", func(out *Output, s *state) {
			out.file.f.WriteString(want(1000, 1100))
			out.next(s)
			out.file.f.Truncate(0)
			out.file.f.Write(out.m.batch()[:50])
		}, whole},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := begin(newLogs(t, 2), filepath.Join(t.TempDir(), "log"))
			if err := out.open(); err != nil {
				t.Fatal(err)
			}
			add(t, out.Log(0), 0, 60)
			add(t, out.Log(1), 60, 100)
			s := out.m.state().Load()
			c.die(out, &s)

			next := begin(heir(t, out.o.Memory, 2), out.path)
			if !next.write() {
				t.Fatal("not written")
			}
			check(t, out.path, c.file)
			add(t, next.Log(0), 100, 101)
			next.write()
			check(t, out.path, c.file+want(100, 101))
		})
	}
}

// The batch that a dead server had begun belongs into the file that it was writing to, whatever that is
// called by now.
func TestDeathDuringARotation(t *testing.T) {
	dir := t.TempDir()
	out := begin(newLogs(t, 1), filepath.Join(dir, "log"))
	if err := out.open(); err != nil {
		t.Fatal(err)
	}
	add(t, out.Log(0), 0, 10)
	s := out.m.state().Load()
	out.next(&s)
	out.file.f.Write(out.m.batch()[:7])
	if err := os.Rename(out.path, filepath.Join(dir, "log.1")); err != nil {
		t.Fatal(err)
	}
	add(t, out.Log(0), 10, 20)

	next := begin(heir(t, out.o.Memory, 1), out.path)
	next.write()
	check(t, filepath.Join(dir, "log.1"), want(0, 10))
	check(t, out.path, want(10, 20))
}

func TestReopen(t *testing.T) {
	dir := t.TempDir()
	out := begin(newLogs(t, 1), filepath.Join(dir, "log"))
	add(t, out.Log(0), 0, 5)
	out.write()
	if err := os.Rename(out.path, filepath.Join(dir, "log.1")); err != nil {
		t.Fatal(err)
	}
	add(t, out.Log(0), 5, 8)
	// Something stands in the way of the new file: the old one stays.
	if err := os.Mkdir(out.path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := out.reopen(); err == nil || !strings.Contains(err.Error(), "lines go to the old file still") {
		t.Errorf("reopen: %v", err)
	}
	add(t, out.Log(0), 8, 10)
	out.write()
	if err := os.Remove(out.path); err != nil {
		t.Fatal(err)
	}
	if err := out.reopen(); err != nil {
		t.Fatal(err)
	}
	add(t, out.Log(0), 10, 12)
	out.write()
	check(t, filepath.Join(dir, "log.1"), want(0, 10))
	check(t, out.path, want(10, 12))
}

// copytruncate: the file is shortened behind our back.
func TestATruncatedFile(t *testing.T) {
	out := begin(newLogs(t, 1), filepath.Join(t.TempDir(), "log"))
	add(t, out.Log(0), 0, 5)
	out.write()
	if err := os.Truncate(out.path, 0); err != nil {
		t.Fatal(err)
	}
	add(t, out.Log(0), 5, 7)
	out.write()
	check(t, out.path, want(5, 7))
}

// Where lines cannot be written they wait; the trouble is told once.
func TestTrouble(t *testing.T) {
	dir := t.TempDir()
	out := begin(newLogs(t, 1), filepath.Join(dir, "missing", "log"))
	var told []string
	out.o.Report = func(err error) { told = append(told, fmt.Sprint(err)) }
	add(t, out.Log(0), 0, 5)
	for range 3 {
		if out.write() {
			t.Fatal("written to nowhere")
		}
	}
	if tr := out.Trouble(); tr == nil || tr.Since.IsZero() || !strings.Contains(tr.Err.Error(), "missing/log") {
		t.Errorf("trouble %+v", tr)
	}
	if err := out.reopen(); err == nil || strings.Contains(err.Error(), "old file") || !strings.Contains(err.Error(), "in memory") {
		t.Errorf("reopen without a file: %v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "missing"), 0o700); err != nil {
		t.Fatal(err)
	}
	add(t, out.Log(0), 5, 6)
	if !out.write() {
		t.Fatal("not written")
	}
	check(t, out.path, want(0, 6))
	if len(told) != 2 || !strings.Contains(told[0], "missing/log") || told[1] != "<nil>" {
		t.Errorf("told: %q", told)
	}
	if tr := out.Trouble(); tr != nil {
		t.Errorf("trouble that is over: %+v", tr)
	}
}

// Whose line is the last one of a ring is known to the successor, also when the loop died before it
// was published.
func TestLogged(t *testing.T) {
	out := newLogs(t, 2)
	l := out.Log(1)
	for n := range uint64(3) {
		e := example(t, head)
		e.Conn, e.Request = 7, n
		l.Add(e)
	}
	for name, c := range map[string]struct {
		last uint64
		want bool
	}{
		"published":     {l.ring.h.last.Load(), true},
		"not published": {l.ring.h.head.Load(), false},
	} {
		l.ring.h.last.Store(c.last)
		next := heir(t, out.o.Memory, 2)
		if got := next.Log(1).Logged(7, 2); got != c.want {
			t.Errorf("%s: got %v", name, got)
		}
		if next.Log(1).Logged(7, 1) || next.Log(0).Logged(7, 2) || next.Log(0).Logged(0, 0) {
			t.Errorf("%s: others are logged as well", name)
		}
	}
}

// The writer by itself: it waits for its predecessor, writes in its own time, reopens, changes file, ends.
func TestTheWriter(t *testing.T) {
	dir := t.TempDir()
	out := newLogs(t, 1)
	var lines atomic.Int64
	out.o.Written = func(n int) { lines.Add(int64(n)) }
	gone := make(chan struct{})
	out.Use(filepath.Join(dir, "a"))
	out.Start(gone)
	add(t, out.Log(0), 0, 3)
	if pid, _ := out.Predecessor(); pid != 0 {
		t.Error("the writer has begun before its predecessor was gone")
	}
	close(gone)
	wait(t, func() bool { return lines.Load() == 3 })
	if pid, start := out.Predecessor(); pid != 1 || start != 1 {
		t.Errorf("the writer is %d, %d", pid, start)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "a.1")); err != nil {
		t.Fatal(err)
	}
	if err := out.Reopen(ctx); err != nil {
		t.Fatal(err)
	}
	add(t, out.Log(0), 3, 4)
	wait(t, func() bool { return lines.Load() == 4 })
	out.Use(filepath.Join(dir, "b"))
	wait(t, func() bool { _, err := os.Stat(filepath.Join(dir, "b")); return err == nil })
	add(t, out.Log(0), 4, 6)
	out.Close(ctx)
	check(t, filepath.Join(dir, "a.1"), want(0, 3))
	check(t, filepath.Join(dir, "a"), want(3, 4))
	check(t, filepath.Join(dir, "b"), want(4, 6))
}

func wait(t *testing.T, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !cond(); {
		if time.Now().After(end) {
			t.Fatal("waited in vain")
		}
		time.Sleep(time.Millisecond)
	}
}

// What cannot be is given up, and nothing is read from where it says.
func TestDamagedMemory(t *testing.T) {
	for name, damage := range map[string]func(m *memory){
		"version": func(m *memory) { m.header().version.Store(99) },
		"head":    func(m *memory) { m.ringHeader(0).head.Store(1 << 40) },
		"batch":   func(m *memory) { m.state().Commit(&state{length: 1 << 40}, custody.StepBatch) },
	} {
		t.Run(name, func(t *testing.T) {
			out := newLogs(t, 1)
			add(t, out.Log(0), 0, 3)
			damage(out.m)
			next, err := New(out.o)
			if err != nil {
				t.Fatal(err)
			}
			if err := next.Claim(); err == nil {
				t.Error("nothing was found to be wrong")
			}
			f, _ := NewFormat("custom", "%U")
			next.Log(0).Use(f)
			begin(next, filepath.Join(t.TempDir(), "log"))
			next.write()
			add(t, next.Log(0), 3, 4)
			next.write()
			got, err := os.ReadFile(next.path)
			if err != nil || !strings.HasSuffix(string(got), want(3, 4)) {
				t.Errorf("%v, %q", err, got)
			}
		})
	}
}
