package eventloop_test

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"trafficd/eventloop"
)

// Other processes, of other versions, read the cell: its layout is a format.
func TestCellLayout(t *testing.T) {
	var c eventloop.Cell
	if got := unsafe.Sizeof(c); got != 384 || eventloop.CellSize != 384 {
		t.Errorf("size %d, want 128", got)
	}
	tests := []struct {
		name      string
		got, want uintptr
	}{
		{"Iterations", unsafe.Offsetof(c.Iterations), 0},
		{"Events", unsafe.Offsetof(c.Events), 8},
		{"Posts", unsafe.Offsetof(c.Posts), 16},
		{"Timers", unsafe.Offsetof(c.Timers), 24},
		{"Sleeps", unsafe.Offsetof(c.Sleeps), 32},
		{"Busy", unsafe.Offsetof(c.Busy), 40},
		{"Lag", unsafe.Offsetof(c.Lag), 48},
		{"MaxLag", unsafe.Offsetof(c.MaxLag), 56},
		{"MaxHandler", unsafe.Offsetof(c.MaxHandler), 64},
		{"State", unsafe.Offsetof(c.State), 72},
		{"Since", unsafe.Offsetof(c.Since), 80},
		{"Thread", unsafe.Offsetof(c.Thread), 88},
		{"Watches", unsafe.Offsetof(c.Watches), 96},
		{"Armed", unsafe.Offsetof(c.Armed), 104},
		{"Stale", unsafe.Offsetof(c.Stale), 112},
		{"Layout", unsafe.Offsetof(c.Layout), 120},
	}
	for _, tt := range tests {
		if tt.got != tt.want {
			t.Errorf("%s at %d, want %d", tt.name, tt.got, tt.want)
		}
	}
}

// What every connection carries. The memory of an idle connection is a budget of whoever embeds them.
func TestSizes(t *testing.T) {
	if got := unsafe.Sizeof(eventloop.Watch{}); got > 32 {
		t.Errorf("Watch is %d bytes, want at most 32", got)
	}
	if got := unsafe.Sizeof(eventloop.Timer{}); got > 56 {
		t.Errorf("Timer is %d bytes, want at most 56", got)
	}
}

// A loop with a cell in shared memory, and then its successor with the same.
func TestCellInSharedMemory(t *testing.T) {
	mem := shared(t, 4096)
	cell, err := eventloop.CellAt(mem[256:])
	must(t, err)
	var before uint64
	for life := range uint64(2) {
		l, err := eventloop.New(eventloop.Options{Cell: cell})
		must(t, err)
		if got := eventloop.State(cell.State.Load()); got != eventloop.StateNew {
			t.Errorf("state %v, want new", got)
		}
		done := run(t, l)
		var w eventloop.Watch
		on(t, l, func() {
			check(t, l.Watch(&w, ready(t), eventloop.Readable|eventloop.Edge, onEvent(func(*eventloop.Watch, eventloop.Event) {})))
			l.AfterFunc(0, func() {})
			for begin := l.Now(); monotonic()-begin < int64(2*ms); { // a long handler
			}
			if got := eventloop.State(cell.State.Load()); got != eventloop.StateRunning {
				t.Errorf("state %v in a handler, want running", got)
			}
		})
		until(t, "the loop is idle again", func() bool {
			return eventloop.State(cell.State.Load()) == eventloop.StateWaiting && cell.Timers.Load() == life+1
		})
		must(t, l.Close())
		await(t, done, "Run to return")
		for _, tt := range []struct {
			name      string
			got, want uint64
		}{
			{"Events", cell.Events.Load(), life + 1},
			{"Posts", cell.Posts.Load(), life + 1},
			{"Timers", cell.Timers.Load(), life + 1},
			{"State", cell.State.Load(), uint64(eventloop.StateClosed)},
			{"Thread", cell.Thread.Load(), 0},
			{"Watches", cell.Watches.Load(), 1},
			{"Armed", cell.Armed.Load(), 0},
			{"Layout", cell.Layout.Load(), eventloop.CellLayout},
		} {
			if tt.got != tt.want {
				t.Errorf("life %d: %s is %d, want %d", life, tt.name, tt.got, tt.want)
			}
		}
		for _, tt := range []struct {
			name     string
			got, low uint64
		}{
			{"Iterations", cell.Iterations.Load(), before + 1},
			{"Sleeps", cell.Sleeps.Load(), life + 1},
			{"Busy", cell.Busy.Load(), uint64(2 * ms)},
			{"MaxLag", cell.MaxLag.Load(), uint64(2 * ms)},
			{"MaxHandler", cell.MaxHandler.Load(), uint64(2 * ms)},
			{"Lag", cell.Lag.Load(), 1},
		} {
			if tt.got < tt.low {
				t.Errorf("life %d: %s is %d, want at least %d", life, tt.name, tt.got, tt.low)
			}
		}
		before = cell.Iterations.Load()
	}
}

func shared(t *testing.T, size int) []byte {
	t.Helper()
	fd, err := unix.MemfdCreate("cells", unix.MFD_CLOEXEC)
	must(t, err)
	defer unix.Close(fd)
	must(t, unix.Ftruncate(fd, int64(size)))
	mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	t.Cleanup(func() { check(t, unix.Munmap(mem)) })
	return mem
}

func TestCellAtRefuses(t *testing.T) {
	mem := shared(t, 4096)
	for name, mem := range map[string][]byte{"nothing": nil, "too short": mem[:127], "not aligned": mem[4:]} {
		if c, err := eventloop.CellAt(mem); err == nil || c != nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestStateNames(t *testing.T) {
	for s, want := range map[eventloop.State]string{
		eventloop.StateNew: "new", eventloop.StateWaiting: "waiting", eventloop.StateRunning: "running",
		eventloop.StateClosed: "closed", 9: "state(9)",
	} {
		if got := s.String(); got != want {
			t.Errorf("State(%d) prints %q, want %q", uint64(s), got, want)
		}
	}
}
