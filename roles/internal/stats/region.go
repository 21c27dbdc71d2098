package stats

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"trafficd/eventloop"
)

// Sizes of the layout; see the package documentation.
const (
	MaxLoops = 64   // loops of one server
	Banks    = 4    // servers side by side
	RowSize  = 1024 // bytes; a multiple of two cache lines, as the prefetcher fetches them in pairs

	roleWords = 32
	bankWords = 8

	rolesAt = 4096
	banksAt = 8192
	superAt = 12288
	loopsAt = 16384

	cellsSize = MaxLoops * eventloop.CellSize
	bankSize  = cellsSize + MaxLoops*RowSize

	// Size of the whole mapping, in bytes. Pages that nobody wrote cost nothing.
	Size = loopsAt + Banks*bankSize
)

const (
	magic   = 0x7472_6166_7374_6174 // "trafstat"
	version = 1
)

// The table must fit the row, and two rows the space before the loops. Either constant is negative, and does not
// compile as a length, if not.
var (
	_ [RowSize/8 - numMetrics]struct{}
	_ [loopsAt - superAt - 2*RowSize]struct{}
)

// ErrUnreadable is matched by the error of Attach for memory of another version, or none of ours at all.
var ErrUnreadable = errors.New("not readable by this version")

// A header is the first page. magic is stored last, so that memory whose maker died half way is unreadable.
type header struct {
	magic, version, hash, size atomic.Uint64
	created                    atomic.Uint64 // unix ns
}

// A Row is one writer's metrics. The zero Row is ready for use, for a test or a tool that has no shared memory.
type Row [RowSize / 8]atomic.Uint64

// Add adds n to m.
func (r *Row) Add(m Metric, n uint64) { r[m].Add(n) }

// Inc adds one to m.
func (r *Row) Inc(m Metric) { r[m].Add(1) }

// Dec takes one from the gauge m.
func (r *Row) Dec(m Metric) { r[m].Add(^uint64(0)) }

// Set gives the gauge m a value.
func (r *Row) Set(m Metric, n uint64) { r[m].Store(n) }

// Load reads m.
func (r *Row) Load(m Metric) uint64 { return r[m].Load() }

// Response counts a response by its status, 100 to 599.
func (r *Row) Response(status int) {
	if c := status/100 - 1; c >= 0 && c < 5 {
		r[int(Responses1xx)+c].Add(1)
	}
}

func (r *Row) zeroGauges() {
	for m, d := range table {
		if d.Kind == Gauge {
			r[m].Store(0)
		}
	}
}

// A Region is the mapping of the shared memory. It is safe for concurrent use. It stays mapped until Close.
type Region struct {
	mem  []byte
	file *os.File // nil if the memory is the caller's; owned by the Region
}

// Create makes the shared memory: a memfd, close-on-exec, its size sealed, so that no holder can make another's access
// a SIGBUS by shrinking it. The Region owns the descriptor (File).
func Create() (*Region, error) {
	fd, err := memfd()
	if err != nil {
		return nil, fmt.Errorf("create stats: memfd: %w", err)
	}
	f := os.NewFile(uintptr(fd), "stats")
	r, err := prepare(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("create stats: %w", err)
	}
	return r, nil
}

// memfd asks for memory that cannot be executed where the kernel knows it (6.3).
func memfd() (int, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("trafficd-stats", flags|unix.MFD_NOEXEC_SEAL)
	if err == unix.EINVAL {
		fd, err = unix.MemfdCreate("trafficd-stats", flags)
	}
	return fd, err
}

const sizeSeals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW

func prepare(f *os.File) (*Region, error) {
	if err := f.Truncate(Size); err != nil {
		return nil, err
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, sizeSeals|unix.F_SEAL_SEAL); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	r, err := mapFile(f)
	if err != nil {
		return nil, err
	}
	r.format()
	return r, nil
}

func mapFile(f *os.File) (*Region, error) {
	mem, err := unix.Mmap(int(f.Fd()), 0, Size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mmap: %w", err)
	}
	return &Region{mem: mem, file: f}, nil
}

// Attach maps what Create made, here or in another process. On success the Region owns f; on error the caller still
// does. Memory that this version cannot read gives ErrUnreadable.
func Attach(f *os.File) (*Region, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("attach stats: %w", err)
	}
	seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	if err != nil || seals&sizeSeals != sizeSeals || st.Size != Size {
		return nil, fmt.Errorf("attach stats: %d bytes, seals %#x: %w", st.Size, seals, ErrUnreadable)
	}
	r, err := mapFile(f)
	if err != nil {
		return nil, fmt.Errorf("attach stats: %w", err)
	}
	if err := r.verify(); err != nil {
		unix.Munmap(r.mem)
		return nil, fmt.Errorf("attach stats: %w", err)
	}
	return r, nil
}

// New makes a Region of ordinary memory, for tests and tools.
func New() *Region {
	words := make([]uint64, Size/8)
	r := &Region{mem: unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), Size)}
	r.format()
	return r
}

func (r *Region) format() {
	h := r.header()
	h.version.Store(version)
	h.hash.Store(layoutHash())
	h.size.Store(Size)
	h.created.Store(uint64(time.Now().UnixNano()))
	h.magic.Store(magic)
}

func (r *Region) verify() error {
	h := r.header()
	switch {
	case h.magic.Load() != magic:
		return fmt.Errorf("magic %#x: %w", h.magic.Load(), ErrUnreadable)
	case h.version.Load() != version:
		return fmt.Errorf("layout version %d, want %d: %w", h.version.Load(), version, ErrUnreadable)
	case h.size.Load() != Size || h.hash.Load() != layoutHash():
		return fmt.Errorf("layout hash %#x, want %#x: %w", h.hash.Load(), layoutHash(), ErrUnreadable)
	}
	return nil
}

// File is the descriptor, for the heritage. It belongs to the Region; nil for New.
func (r *Region) File() *os.File { return r.file }

// Close unmaps the memory and closes the descriptor. No Row, Cell or Role of it may be used any more. The memory itself
// lives on as long as any process holds it.
func (r *Region) Close() error {
	if r.file == nil {
		return nil
	}
	err := unix.Munmap(r.mem)
	return errors.Join(err, r.file.Close())
}

// Created is when the counting began.
func (r *Region) Created() time.Time { return time.Unix(0, int64(r.header().created.Load())) }

func (r *Region) at(off int) unsafe.Pointer { return unsafe.Pointer(&r.mem[off]) }
func (r *Region) header() *header           { return (*header)(r.at(0)) }

// Manager is the manager's own row.
func (r *Region) Manager() *Row { return (*Row)(r.at(superAt)) }

// Cop is cop's own row.
func (r *Region) Cop() *Row { return (*Row)(r.at(superAt + RowSize)) }

// A Bank is the memory of one server.
type Bank struct {
	r *Region
	i int
}

// A bankHeader says who uses a bank. Written by the manager, before it starts the server and after it is dead, but for
// pid and start, which the server writes as well.
type bankHeader struct {
	generation atomic.Uint64
	loops      atomic.Uint64
	pid        atomic.Uint64 // of the server; 0: not known. Stored after start
	start      atomic.Uint64 // its start time, clock ticks since boot
	_          [bankWords - 4]uint64
}

// Bank is the bank of the server with this generation.
func (r *Region) Bank(generation uint64) Bank { return Bank{r, int(generation % Banks)} }

// GenerationOf is the generation that a process was started as; 0: no bank names it.
func (r *Region) GenerationOf(pid int) uint64 {
	for i := range uint64(Banks) {
		if owner, _ := r.Bank(i).Process(); owner == pid {
			return r.Bank(i).Generation()
		}
	}
	return 0
}

func (b Bank) header() *bankHeader { return (*bankHeader)(b.r.at(banksAt + b.i*bankWords*8)) }
func (b Bank) base() int           { return loopsAt + b.i*bankSize }

// Begin notes that the server of a generation uses this bank with so many loops, and removes the gauges of whoever had
// it before. Called by the manager before that server starts.
func (b Bank) Begin(generation uint64, loops int) {
	b.ZeroGauges()
	b.header().pid.Store(0)
	b.header().loops.Store(uint64(min(max(loops, 0), MaxLoops)))
	b.header().generation.Store(generation)
}

// Enter notes which process uses the bank, so that a manager which is started anew knows of a server that has not dialled
// in yet. Whoever knows it first, the manager that has started it or the process itself.
func (b Bank) Enter(pid int, startTime uint64) {
	b.header().start.Store(startTime)
	b.header().pid.Store(uint64(pid))
}

// Process is what Enter noted; pid 0 if there is no such process, or if it is not known.
func (b Bank) Process() (pid int, startTime uint64) {
	return int(b.header().pid.Load()), b.header().start.Load()
}

// Generation is that of the server that has, or had last, the bank; 0 if none had.
func (b Bank) Generation() uint64 { return b.header().generation.Load() }

// Loops is how many rows and cells are in use.
func (b Bank) Loops() int { return int(min(b.header().loops.Load(), MaxLoops)) }

// End is called by the manager once that server is dead: its gauges go to zero and its loops are no longer shown.
// Counters stay. Counters written later by a process that was thought dead are still counted; its gauges are wrong until
// the next Begin.
func (b Bank) End() {
	b.header().pid.Store(0)
	b.header().loops.Store(0)
	b.ZeroGauges()
}

// ZeroGauges sets every gauge of the bank, and what its cells say of the present, to zero.
func (b Bank) ZeroGauges() {
	for i := range MaxLoops {
		b.Row(i).zeroGauges()
		c := b.Cell(i)
		c.Lag.Store(0)
		c.Watches.Store(0)
		c.Armed.Store(0)
	}
}

// Row is the metrics of loop i, 0 to MaxLoops-1.
func (b Bank) Row(i int) *Row {
	checkLoop(i)
	return (*Row)(b.r.at(b.base() + cellsSize + i*RowSize))
}

// Cell is the progress of loop i, 0 to MaxLoops-1, for eventloop.Options.Cell.
func (b Bank) Cell(i int) *eventloop.Cell {
	checkLoop(i)
	return (*eventloop.Cell)(b.r.at(b.base() + i*eventloop.CellSize))
}

func checkLoop(i int) {
	if i < 0 || i >= MaxLoops {
		panic(fmt.Sprintf("stats: loop %d of %d", i, MaxLoops))
	}
}

// Progress reads how often each loop in use has gone round, for the two-strikes rule: a loop whose number stands still
// between two heartbeats is stuck. It appends to dst.
func (b Bank) Progress(dst []uint64) []uint64 {
	for i := range b.Loops() {
		dst = append(dst, b.Cell(i).Iterations.Load())
	}
	return dst
}
