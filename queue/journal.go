package queue

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Geometry is the shape of a journal. It is fixed for its life: a server that
// wants another starts with a new journal and no connections.
type Geometry struct {
	Loops int // event loops: each owns a run of slots and a pool; 1 to MaxLoops
	Slots int // connections of each loop
	Pool  int // bytes of each loop's pool, whole pages of the machine (4 KiB)
}

// MaxLoops is the largest number of event loops of a journal.
const MaxLoops = 64

// journalHeader is the first two pages. Everything behind it depends on the
// geometry:
//
//	| header | notices | slots of loop 0, 1, … | pool of loop 0, 1, … |
//	  8 KiB    12 KiB    32 bytes each, to the    the user's: records and
//	                     end of a page            what they name
//
// Header and notices are inherited by children (the keeper waits on the
// notices), the rest can be kept out of them: see Journal.KeepFromChildren.
type journalHeader struct {
	// Immutable once format has published it; checksum is over these.
	magic    uint64
	version  uint32
	loops    uint32
	slots    uint32
	_        uint32
	pool     uint64
	checksum uint64

	generation atomic.Uint64
	seal       atomic.Uint64 // ^generation; one behind while it is being claimed
	kept       [keptPlaces]keptRecord
	high       [MaxLoops]atomic.Uint32 // slots ever used, by loop; never falls
	work       [MaxLoops]workWord
	owner      [4]atomic.Uint64
}

// workWord is the user's word of one loop, on a cache line of its own: it is stored all the time.
type workWord struct {
	word atomic.Uint64
	_    [56]byte
}

// keptRecord says what is known of the custody of one generation.
type keptRecord struct {
	generation atomic.Uint64 // 0: none; stored last
	pid        atomic.Uint64 // of the keeper; 0: there is none yet
	start      atomic.Uint64 // of the keeper, clock ticks since boot; 0: unknown
}

const (
	journalMagic   = 0x6c6e6a7166636174 // "tacfqjnl"
	journalVersion = 6

	// keptPlaces bounds how many keepers can be awaited by name: all but the
	// last of a dead server that died while it adopted. See keptPlace.
	keptPlaces = 64

	headerSize  = 8192
	noticesSize = ((MaxLoops+1)*NoticeSize + pageSize - 1) &^ (pageSize - 1)
	slotSize    = 32
)

var (
	// ErrNotJournal reports memory that does not hold a journal this program
	// can read: another version, another geometry, damaged. It is refused, not
	// guessed at; connections described in it are lost.
	ErrNotJournal = errors.New("not a journal of this version")
	// ErrFenced reports that a newer generation has claimed the journal.
	ErrFenced = errors.New("a newer generation has claimed the journal")
	// ErrJournalFull reports that no slot is free: the connection cannot be
	// served under custody.
	ErrJournalFull = errors.New("no free slot in the journal")
)

// A Journal is the little that the kernel does not remember of the
// connections of a server: which bytes of the stream the request began with,
// where they lie, and what is being answered. It is shared memory, so it
// outlives the server; the next reads it, asks the sockets how far they got
// (Progress), and goes on.
//
// There is no log: what is to be known of a connection is one Slot, and one
// Record while something is in progress on it. Each step becomes true with one
// store of one word. A death between any two stores leaves what was before the
// step, or what is after it.
//
// Nothing in it is a pointer. The owner of a slot, and of a loop's pool, is the
// loop; the header is written by whoever claims the journal. Free lists are in
// process memory, and rebuilt from the slots at adoption.
type Journal struct {
	mem    []byte // owned; unmapped by Close
	header *journalHeader
	shape  Geometry
	mine   uint64 // the generation claimed by this process, 0: none
}

// Size returns the number of bytes that a journal of this shape takes.
func (g Geometry) Size() int {
	return headerSize + noticesSize + g.slotsSize() + g.Loops*g.Pool
}

// slotsSize is what the slots of all loops take, in whole pages.
func (g Geometry) slotsSize() int { return (g.Loops*g.Slots*slotSize + pageSize - 1) &^ (pageSize - 1) }

const pageSize = 4096

func (g Geometry) check() error {
	if g.Loops < 1 || g.Loops > MaxLoops || g.Slots < 1 || g.Slots > 1<<24 ||
		g.Pool < 0 || g.Pool > 1<<36 || g.Pool%pageSize != 0 {
		return fmt.Errorf("geometry %+v", g)
	}
	return nil
}

// NewJournal makes an empty journal in shared memory and returns its memfd,
// which is close-on-exec and the caller's. Pass it on to every process
// concerned, and open it there.
func NewJournal(g Geometry) (fd int, err error) {
	if err := g.check(); err != nil {
		return -1, fmt.Errorf("make journal: %w", err)
	}
	fd, err = unix.MemfdCreate("trafficd-journal", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, fmt.Errorf("make journal: memfd_create: %w", err)
	}
	if err := formatJournal(fd, g); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("make journal: %w", err)
	}
	return fd, nil
}

func formatJournal(fd int, g Geometry) error {
	if err := unix.Ftruncate(fd, int64(g.Size())); err != nil {
		return fmt.Errorf("size: %w", err)
	}
	// A journal that somebody shortens would kill all that map it (SIGBUS).
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW); err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	mem, err := unix.Mmap(fd, 0, headerSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map: %w", err)
	}
	defer func() { _ = unix.Munmap(mem) }()
	h := (*journalHeader)(unsafe.Pointer(unsafe.SliceData(mem)))
	h.version, h.loops, h.slots, h.pool = journalVersion, uint32(g.Loops), uint32(g.Slots), uint64(g.Pool)
	h.magic = journalMagic
	h.seal.Store(^uint64(0))
	h.checksum = h.sum()
	return nil
}

// sum is over what is immutable: the words of a living journal change by
// single stores, and need none.
func (h *journalHeader) sum() uint64 {
	f := fnv.New64a()
	f.Write(unsafe.Slice((*byte)(unsafe.Pointer(h)), unsafe.Offsetof(h.checksum)))
	return f.Sum64()
}

// OpenJournal maps the journal in the memfd fd, which stays the caller's. What
// it cannot read is ErrNotJournal. It may be opened by any number of
// processes, to look; only one may Claim and write.
func OpenJournal(fd int) (*Journal, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	if st.Size < headerSize+noticesSize || st.Size > 1<<40 {
		return nil, fmt.Errorf("open journal: %w: %d bytes", ErrNotJournal, st.Size)
	}
	mem, err := unix.Mmap(fd, 0, int(st.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("open journal: map %d bytes: %w", st.Size, err)
	}
	j := &Journal{mem: mem, header: (*journalHeader)(unsafe.Pointer(unsafe.SliceData(mem)))}
	if err := j.verify(); err != nil {
		_ = unix.Munmap(mem)
		return nil, fmt.Errorf("open journal: %w", err)
	}
	return j, nil
}

func (j *Journal) verify() error {
	h := j.header
	if h.magic != journalMagic || h.version != journalVersion {
		return fmt.Errorf("%w: magic %#x, version %d", ErrNotJournal, h.magic, h.version)
	}
	if h.checksum != h.sum() {
		return fmt.Errorf("%w: the header's checksum is wrong", ErrNotJournal)
	}
	if h.pool > 1<<36 {
		return fmt.Errorf("%w: pools of %d bytes", ErrNotJournal, h.pool)
	}
	j.shape = Geometry{Loops: int(h.loops), Slots: int(h.slots), Pool: int(h.pool)}
	if err := j.shape.check(); err != nil {
		return fmt.Errorf("%w: %w", ErrNotJournal, err)
	}
	if j.shape.Size() != len(j.mem) {
		return fmt.Errorf("%w: %d bytes for %+v", ErrNotJournal, len(j.mem), j.shape)
	}
	if g, seal := h.generation.Load(), h.seal.Load(); seal != ^g && seal != ^(g-1) {
		return fmt.Errorf("%w: generation %d, sealed as %d", ErrNotJournal, g, ^seal)
	}
	for i := range j.shape.Loops {
		if high := h.high[i].Load(); high > h.slots {
			return fmt.Errorf("%w: loop %d has used %d slots of %d", ErrNotJournal, i, high, h.slots)
		}
	}
	return nil
}

// Close unmaps the journal. Nothing of it may be in use, and no thread of this
// process be registered with its Notices.
func (j *Journal) Close() error {
	mem := j.mem
	j.mem, j.header = nil, nil
	if err := unix.Munmap(mem); err != nil {
		return fmt.Errorf("close journal: %w", err)
	}
	return nil
}

// Geometry returns the journal's shape.
func (j *Journal) Geometry() Geometry { return j.shape }

// KeepFromChildren keeps slots and pools out of processes that are forked from
// now on (MADV_DONTFORK), the keeper above all: it makes the fork cheaper, and
// the keeper does not hold the memory. The notices stay visible to it. Call it
// before StartKeeper.
func (j *Journal) KeepFromChildren() error {
	if err := unix.Madvise(j.mem[headerSize+noticesSize:], unix.MADV_DONTFORK); err != nil {
		return fmt.Errorf("keep journal from children: %w", err)
	}
	return nil
}

// Populate touches the slots that were ever used, and at least the first n of
// each loop, before there is a client to wait for it: the first touch of a
// slot area of 16 MB costs 3 to 11 ms.
func (j *Journal) Populate(n int) error {
	for loop := range j.shape.Loops {
		used := max(int(j.header.high[loop].Load()), min(n, j.shape.Slots))
		from := j.slotAt(loop, 0)
		first := from &^ (pageSize - 1)
		run := j.mem[first : from+used*slotSize]
		if err := unix.Madvise(run, unix.MADV_POPULATE_WRITE); err != nil {
			if errors.Is(err, unix.EINVAL) {
				return nil // Linux before 5.14
			}
			return fmt.Errorf("populate journal: %w", err)
		}
	}
	return nil
}

// Notice is where the death of this loop's thread is announced.
func (j *Journal) Notice(loop int) *Notice {
	at := headerSize + loop*NoticeSize
	n, err := NoticeAt(j.mem[at : at+NoticeSize : at+NoticeSize])
	if err != nil {
		panic("queue: " + err.Error()) // aligned and long enough by construction
	}
	return n
}

// Receiver is where the death of the thread is announced that receives what a predecessor left, while it
// does so: what a last system call of it brings is this process's to send on.
func (j *Journal) Receiver() *Notice { return j.Notice(MaxLoops) }

// Notices are those of all threads that use descriptors, for a watcher or the keeper: one for each loop, and Receiver.
func (j *Journal) Notices() []*Notice {
	ns := make([]*Notice, j.shape.Loops, j.shape.Loops+1)
	for i := range ns {
		ns[i] = j.Notice(i)
	}
	return append(ns, j.Receiver())
}

// Generation is the number of the last generation that claimed the journal, 0
// if none did.
func (j *Journal) Generation() uint64 { return j.header.generation.Load() }

// Claim makes this process the one that writes, with the next generation
// number. It is a fence for those who ask (Fenced), not a lock: before writing
// to a connection, make sure that the threads of the generation before are
// dead (WaitAllNotices), for one that is only stopped does not ask.
func (j *Journal) Claim() (uint64, error) {
	h := j.header
	for {
		was := h.generation.Load()
		// Somebody died between the two stores, or is between them.
		h.seal.CompareAndSwap(^(was - 1), ^was)
		if was == ^uint64(0) {
			return 0, fmt.Errorf("claim journal: %w: generation %d", ErrNotJournal, was)
		}
		if h.generation.CompareAndSwap(was, was+1) {
			Killpoint(stepClaim)
			h.seal.CompareAndSwap(^was, ^(was + 1))
			j.mine = was + 1
			return j.mine, nil
		}
	}
}

// Fenced tells whether a newer generation has claimed the journal.
func (j *Journal) Fenced() bool { return j.header.generation.Load() != j.mine }

// prepareKept is the record of a keeper of this generation that is about to be made. Until it has a number there is nobody to
// be awaited: a death before that leaves a keeper that has nothing.
func (j *Journal) prepareKept(generation uint64) *keptRecord {
	r := j.keptPlace()
	r.generation.Store(0)
	r.pid.Store(0)
	r.start.Store(0)
	r.generation.Store(generation)
	return r
}

// onlyKept forgets who kept this generation before r.
func (j *Journal) onlyKept(r *keptRecord) {
	Killpoint(stepKept)
	for i := range j.header.kept {
		if old := &j.header.kept[i]; old != r && old.generation.Load() == r.generation.Load() {
			old.generation.Store(0)
		}
	}
}

// tid is where the kernel stores who it is: the lower half of pid, on the little-endian machines that there are keepers on.
func (r *keptRecord) tid() *uint32 { return (*uint32)(unsafe.Pointer(&r.pid)) }

// keptPlace finds room for one keeper more. There is some, unless as many
// generations as there are places died one behind the other, each while it
// adopted. Then a keeper that is over gives up its place: all that it sent is in
// the socket, and Custody empties that. If they all live, the youngest does: it
// has received least, and the first has everything.
func (j *Journal) keptPlace() *keptRecord {
	var youngest *keptRecord
	for i := range j.header.kept {
		r := &j.header.kept[i]
		if r.generation.Load() == 0 {
			return r
		}
		if youngest == nil || r.generation.Load() > youngest.generation.Load() {
			youngest = r
		}
	}
	for i := range j.header.kept {
		if r := &j.header.kept[i]; r.sender().over() {
			return r
		}
	}
	return youngest
}

func (r *keptRecord) sender() Sender {
	return Sender{Generation: r.generation.Load(), PID: int(r.pid.Load()), StartTime: r.start.Load()}
}

// MarkReceived notes that what the generations before this one had is in this
// process's table now, and so in its keeper's. The last step of receiving.
func (j *Journal) MarkReceived() {
	for i := range j.header.kept {
		r := &j.header.kept[i]
		if g := r.generation.Load(); g != 0 && g < j.mine {
			r.generation.Store(0)
			Killpoint(stepMarkReceived)
		}
	}
}

// Outstanding lists the keepers of dead generations whose END has not been
// received, oldest first: what CustodyOptions.Senders is to be. More than one
// if a successor died while it adopted. To one that has not claimed the journal,
// that of the generation that serves is among them.
func (j *Journal) Outstanding() []Sender {
	var out []Sender
	for i := range j.header.kept {
		s := j.header.kept[i].sender()
		if s.Generation != 0 && s.PID != 0 && (j.mine == 0 || s.Generation < j.mine) {
			out = append(out, s)
		}
	}
	slices.SortStableFunc(out, func(a, b Sender) int { return cmp.Compare(a.Generation, b.Generation) })
	return out
}

func (j *Journal) slotAt(loop, index int) int {
	return headerSize + noticesSize + (loop*j.shape.Slots+index)*slotSize
}

func (j *Journal) poolAt(loop int) int {
	return headerSize + noticesSize + j.shape.slotsSize() + loop*j.shape.Pool
}

// Owner is four words for who has claimed the journal, for its successor. Nothing here reads them.
func (j *Journal) Owner() *[4]atomic.Uint64 { return &j.header.owner }

// Work is a word of each loop for what it works on, so that a successor knows with what it
// died. Nothing here reads it.
func (j *Journal) Work(loop int) *atomic.Uint64 { return &j.header.work[loop].word }

// Slot returns a slot by its place.
func (j *Journal) Slot(loop, index int) *Slot {
	if loop < 0 || loop >= j.shape.Loops || index < 0 || index >= j.shape.Slots {
		panic("queue: no such slot")
	}
	at := j.slotAt(loop, index)
	return (*Slot)(unsafe.Pointer(&j.mem[at]))
}

// Pool is the memory of one loop for its Records and all that they name. What is
// in it and where is the user's to say; it begins at a page of the machine.
func (j *Journal) Pool(loop int) []byte {
	at := j.poolAt(loop)
	return j.mem[at : at+j.shape.Pool : at+j.shape.Pool]
}
