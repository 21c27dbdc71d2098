package stats

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"trafficd/eventloop"
)

func create(t *testing.T) *Region {
	t.Helper()
	r, err := Create()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// attach maps r again, as another process does with the descriptor it inherited.
func attach(t *testing.T, r *Region) (*Region, error) {
	t.Helper()
	fd, err := unix.FcntlInt(r.File().Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "stats")
	r2, err := Attach(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	t.Cleanup(func() { r2.Close() })
	return r2, nil
}

func TestTableIsComplete(t *testing.T) {
	names, families := map[string]bool{}, map[string]Desc{}
	ok := regexp.MustCompile(`^[a-z]+(_[a-z0-9]+)*$`)
	for m, d := range table {
		if !ok.MatchString(d.Family) || names[d.JSONName()] {
			t.Errorf("metric %d: name %q is missing, malformed or taken", m, d.JSONName())
		}
		names[d.JSONName()] = true
		first, seen := families[d.Family]
		if !seen {
			families[d.Family], first = d, d
			if d.Help == "" || strings.ContainsRune(d.Help, '\n') {
				t.Errorf("%s has no one-line help", d.Family)
			}
		} else if d.Help != "" || d.Label == "" {
			t.Errorf("%s: help twice, or no label", d.JSONName())
		}
		if d.Kind != first.Kind || d.Label != first.Label || d.Unit != first.Unit {
			t.Errorf("%s differs from its family", d.JSONName())
		}
		if (d.Kind == Counter) != strings.HasSuffix(d.Family, "_total") {
			t.Errorf("%s: a counter ends in _total and a gauge does not", d.Family)
		}
	}
}

func TestLayoutIsAsDocumented(t *testing.T) {
	if unsafe.Sizeof(Role{}) != 256 || unsafe.Sizeof(bankHeader{}) != 64 || unsafe.Sizeof(Row{}) != RowSize || eventloop.CellSize != 384 {
		t.Error("a record has another size than the layout says")
	}
	r := New()
	places := map[uintptr]string{}
	base := uintptr(unsafe.Pointer(&r.mem[0]))
	add := func(name string, p unsafe.Pointer, size uintptr) {
		off := uintptr(p) - base
		if off%128 != 0 && size >= 128 || off+size > Size {
			t.Errorf("%s at %d is not aligned or outside", name, off)
		}
		for o := off; o < off+size; o += 64 {
			if places[o] != "" {
				t.Errorf("%s and %s share offset %d", name, places[o], o)
			}
			places[o] = name
		}
	}
	add("header", unsafe.Pointer(r.header()), 64)
	for id := range numRoles {
		add("role", unsafe.Pointer(r.Role(id)), 256)
	}
	add("manager", unsafe.Pointer(r.Manager()), RowSize)
	add("cop", unsafe.Pointer(r.Cop()), RowSize)
	for b := range uint64(Banks) {
		add("bank", unsafe.Pointer(r.Bank(b).header()), 64)
		for i := range MaxLoops {
			add("cell", unsafe.Pointer(r.Bank(b).Cell(i)), eventloop.CellSize)
			add("row", unsafe.Pointer(r.Bank(b).Row(i)), RowSize)
		}
	}
}

func TestCountersSurviveTheirProcess(t *testing.T) {
	r := create(t)
	server, err := attach(t, r)
	if err != nil {
		t.Fatal(err)
	}
	r.Bank(1).Begin(1, 2)
	row := server.Bank(1).Row(1)
	row.Add(Requests, 3)
	row.Response(200)
	row.Response(599)
	row.Response(42)
	row.Add(ClientConnectionsCurrent, 5)
	row.Dec(ClientConnectionsCurrent)
	server.Bank(1).Cell(0).Watches.Store(9)
	if got := r.Sum(ClientConnectionsCurrent); got != 4 {
		t.Errorf("connections = %d, want 4", got)
	}
	if got := r.Bank(1).Progress(nil); len(got) != 2 {
		t.Errorf("Progress = %v, want two loops", got)
	}
	// The server dies; the next one has another bank, the fifth has the same one again.
	r.Bank(1).End()
	r.Bank(5).Begin(5, 1)
	server.Bank(5).Row(1).Inc(Requests)
	for m, want := range map[Metric]uint64{Requests: 4, Responses2xx: 1, Responses5xx: 1, Responses4xx: 0, ClientConnectionsCurrent: 0} {
		if got := r.Sum(m); got != want {
			t.Errorf("%s = %d, want %d", table[m].JSONName(), got, want)
		}
	}
	if b := r.Bank(1); b.Generation() != 5 || b.Loops() != 1 || b.Cell(0).Watches.Load() != 0 {
		t.Errorf("bank: generation %d, %d loops", b.Generation(), b.Loops())
	}
}

func TestSumsOfRowsWithManyWriters(t *testing.T) {
	r := New()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			row := r.Bank(uint64(i)).Row(i)
			for range 1000 {
				row.Inc(Requests)
				row.Inc(ClientConnectionsCurrent)
				row.Dec(ClientConnectionsCurrent)
				r.Role(RoleServer).Probes.Add(1)
			}
		})
	}
	for range 10 {
		r.Snapshot()
	}
	wg.Wait()
	if r.Sum(Requests) != 8000 || r.Sum(ClientConnectionsCurrent) != 0 || r.Role(RoleServer).Probes.Load() != 8000 {
		t.Errorf("got %d requests, %d connections", r.Sum(Requests), r.Sum(ClientConnectionsCurrent))
	}
	// A gauge may be read between the rows of a connection that moved.
	r.Bank(0).Row(0).Dec(TunnelsCurrent)
	if got := r.Sum(TunnelsCurrent); got != 0 {
		t.Errorf("a gauge below zero reads %d, want 0", got)
	}
}

func TestForeignMemoryIsRefused(t *testing.T) {
	for name, spoil := range map[string]func(*header){
		"died while it was made": func(h *header) { h.magic.Store(0) },
		"version":                func(h *header) { h.version.Store(version + 1) },
		"table":                  func(h *header) { h.hash.Store(1) },
		"size":                   func(h *header) { h.size.Store(1) },
	} {
		r := create(t)
		spoil(r.header())
		if _, err := attach(t, r); !errors.Is(err, ErrUnreadable) {
			t.Errorf("%s: %v, want ErrUnreadable", name, err)
		}
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if _, err := Attach(null); !errors.Is(err, ErrUnreadable) {
		t.Errorf("/dev/null: %v, want ErrUnreadable", err)
	}
}

func TestSizeIsSealed(t *testing.T) {
	r := create(t)
	if err := r.File().Truncate(0); !errors.Is(err, os.ErrPermission) {
		t.Errorf("Truncate: %v, want EPERM", err)
	}
	flags, err := unix.FcntlInt(r.File().Fd(), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %#x, %v, want close-on-exec", flags, err)
	}
}

func TestRoleEnterAndLeave(t *testing.T) {
	o := New().Role(RoleManager)
	o.Enter(7, 99, 1)
	o.State.Store(uint64(Ready))
	o.Leave(6) // somebody else's death
	if at := o.read(); at.PID != 7 || at.State != "ready" || at.StartTime != 99 || at.Started.IsZero() {
		t.Errorf("got %+v", at)
	}
	o.Leave(7)
	if at := o.read(); at.PID != 0 || at.State != "stopped" || at.Generation != 1 {
		t.Errorf("got %+v", at)
	}
	o.State.Store(1 << 60)
	if at := o.read(); at.State != "unknown" {
		t.Errorf("state of garbage = %q", at.State)
	}
}

func TestPrometheusText(t *testing.T) {
	r := New()
	r.Bank(3).Begin(3, 1)
	r.Bank(3).Row(0).Response(404)
	r.Bank(3).Cell(0).Lag.Store(1500000)
	r.Manager().Add(QueueWait, 2500000000)
	r.Role(RoleServer).Enter(1, 2, 3)
	r.Role(RoleServer).Restarts.Add(2)
	var b bytes.Buffer
	if err := r.WritePrometheus(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"# HELP trafficd_responses_total Responses sent to clients, by class of status.\n# TYPE trafficd_responses_total counter\n" +
			"trafficd_responses_total{class=\"1xx\"} 0\n",
		"trafficd_responses_total{class=\"4xx\"} 1\n",
		"trafficd_queue_wait_seconds_total 2.5\n",
		"# TYPE trafficd_client_connections gauge\ntrafficd_client_connections 0\n",
		"trafficd_process_restarts_total{role=\"server\"} 2\n",
		"trafficd_loop_lag_seconds{generation=\"3\",loop=\"0\"} 0.0015\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	line := regexp.MustCompile(`^(# (HELP|TYPE) trafficd_[a-z0-9_]+ .+|trafficd_[a-z0-9_]+(\{([a-z]+="[^"]*",?)+\})? [0-9.e+-]+)$`)
	types := map[string]bool{}
	for l := range strings.Lines(b.String()) {
		l = strings.TrimSuffix(l, "\n")
		if !line.MatchString(l) {
			t.Errorf("malformed line %q", l)
		}
		if strings.HasPrefix(l, "# TYPE ") {
			if types[l] {
				t.Errorf("family twice: %q", l)
			}
			types[l] = true
		}
	}
}

func TestEscaping(t *testing.T) {
	if got := escapeHelp("a\\b\n\"c\""); got != `a\\b\n"c"` {
		t.Errorf("help: %s", got)
	}
	if got := escapeLabel("a\\b\n\"c\""); got != `a\\b\n\"c\"` {
		t.Errorf("label: %s", got)
	}
}

func TestJSON(t *testing.T) {
	r := New()
	r.Bank(0).Begin(4, 2)
	r.Bank(0).Row(1).Inc(CacheHits)
	b, err := json.Marshal(r.Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	var s Snapshot
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	if len(s.Metrics) != int(numMetrics)+1 || s.Metrics["cache_lookups_total.hit"] != 1 || len(s.Loops) != 2 || s.Loops[1].Generation != 4 || len(s.Roles) != 3 {
		t.Errorf("got %s", b)
	}
}

// Attach trusts nothing in the header; this tries what else could be there.
func FuzzAttach(f *testing.F) {
	f.Add(uint64(magic), uint64(version), uint64(Size), uint64(1<<63))
	f.Fuzz(func(t *testing.T, m, v, size, loops uint64) {
		r := New()
		h := r.header()
		h.magic.Store(m)
		h.version.Store(v)
		h.size.Store(size)
		r.Bank(0).header().loops.Store(loops)
		if err := r.verify(); (err == nil) != (m == magic && v == version && size == Size) {
			t.Fatalf("verify: %v", err)
		}
		r.Snapshot()
	})
}

func BenchmarkInc(b *testing.B) {
	row := new(Row)
	for b.Loop() {
		row.Inc(Requests)
	}
}
