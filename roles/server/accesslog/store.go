package accesslog

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"trafficd/queue"
	"trafficd/roles/server/custody"
)

// The shared memory:
//
//	| header | state | ring headers | batch   | ring of loop 0, 1, … |
//	  4 KiB    4 KiB   8 KiB          256 KiB   a power of two each
//
// Everything is zero until somebody writes it, and zero is an empty log: what nobody uses costs no
// memory.
const (
	magic   = 0x676f6c7363636174 // "taccslog"
	version = 3

	maxLoops  = queue.MaxLoops
	pageSize  = 4096
	stateAt   = pageSize
	ringsAt   = 2 * pageSize
	batchAt   = 4 * pageSize
	batchSize = 256 << 10
	dataAt    = batchAt + batchSize

	// minRing holds some of the longest lines. A ring is a power of two.
	minRing = 256 << 10
)

type memHeader struct {
	magic   atomic.Uint64 // stored last
	version atomic.Uint64
	loops   atomic.Uint64
	pid     atomic.Uint64 // the writer's process
	start   atomic.Uint64 // clock ticks since boot
}

// state is what the writer has come to. It changes as a whole.
type state struct {
	// What lies in the batch: length bytes, the first done of which are in the file. The rest is to be appended
	// to the file with this inode, which had base bytes when that was decided.
	length, done uint64
	dev, ino     uint64
	base         uint64
	tails        [maxLoops]uint64 // up to where each ring has been copied into batches
}

// ringHeader is two cache lines: one that the loop writes, and one that the writer does.
type ringHeader struct {
	head atomic.Uint64 // lines are published up to here
	last atomic.Uint64 // where the last one begins; head: it is not published yet
	_    [48]byte
	tail atomic.Uint64 // what is below may be written over
	_    [56]byte
}

var _ = [1]struct{}{}[batchAt-ringsAt-maxLoops*int(unsafe.Sizeof(ringHeader{}))]

// memory is the shared memory, mapped.
type memory struct {
	mem   []byte
	loops int
	ring  int // bytes of each
}

// NewMemory makes memory of this process's own, for a log whose last lines end with it.
func NewMemory(loops int) ([]byte, error) {
	mem, err := unix.Mmap(-1, 0, dataAt+loops<<22, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("access log: map memory: %w", err)
	}
	return mem, nil
}

// newMemory looks at the memory and writes nothing.
func newMemory(mem []byte, loops int) (*memory, error) {
	if loops < 1 || loops > maxLoops {
		return nil, fmt.Errorf("access log: %d event loops, at most %d are possible", loops, maxLoops)
	}
	m := &memory{mem: mem, loops: loops, ring: minRing}
	for dataAt+2*m.ring*loops <= len(mem) {
		m.ring *= 2
	}
	if dataAt+m.ring*loops > len(mem) {
		return nil, fmt.Errorf("access log: memory of %d bytes is too small for %d event loops", len(mem), loops)
	}
	return m, nil
}

func at[T any](m *memory, off int) *T { return (*T)(unsafe.Pointer(&m.mem[off])) }

func (m *memory) header() *memHeader { return at[memHeader](m, 0) }

func (m *memory) state() *queue.Record[state] { return queue.RecordAt[state](m.mem[stateAt:ringsAt]) }

func (m *memory) ringHeader(loop int) *ringHeader {
	return at[ringHeader](m, ringsAt+loop*int(unsafe.Sizeof(ringHeader{})))
}

func (m *memory) batch() []byte { return m.mem[batchAt : batchAt+batchSize : batchAt+batchSize] }

func (m *memory) data(loop int) []byte {
	from := dataAt + loop*m.ring
	return m.mem[from : from+m.ring : from+m.ring]
}

// claim makes the memory this process's. What is in it of a version that is not known here is
// forgotten, and reported.
func (m *memory) claim() error {
	h := m.header()
	if h.magic.Load() == magic && h.version.Load() == version && h.loops.Load() == uint64(m.loops) {
		return m.check()
	}
	var err error
	if h.magic.Load() != 0 {
		err = fmt.Errorf("access log: what is left of lines is of another version (%d), and is lost", h.version.Load())
	}
	h.magic.Store(0)
	clear(m.mem[pageSize:batchAt])
	h.version.Store(version)
	h.loops.Store(uint64(m.loops))
	h.pid.Store(0)
	h.magic.Store(magic)
	return err
}

// check gives up what cannot be.
func (m *memory) check() error {
	var bad error
	s := m.state().Load()
	if s.length > batchSize || s.done > s.length {
		bad = fmt.Errorf("access log: a batch of %d bytes, %d of them written: given up", s.length, s.done)
		s.length, s.done = 0, 0
	}
	for i := range m.loops {
		r := m.ringHeader(i)
		head := r.head.Load()
		if s.tails[i] > head || head-s.tails[i] > uint64(m.ring) || head&7 != 0 || s.tails[i]&7 != 0 {
			bad = fmt.Errorf("access log: lines %d to %d in a ring of %d bytes: given up", s.tails[i], head, m.ring)
			head = head &^ 7
			r.last.Store(head)
			r.head.Store(head)
			s.tails[i] = head
		}
		r.tail.Store(s.tails[i])
	}
	if bad != nil {
		m.state().Commit(&s, custody.StepBatch)
	}
	return bad
}
