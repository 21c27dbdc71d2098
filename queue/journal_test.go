package queue

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

var smallShape = Geometry{Loops: 2, Slots: 8, Pool: 8192}

func mustJournal(t testing.TB, g Geometry) (*Journal, int) {
	t.Helper()
	fd, err := NewJournal(g)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return reopen(t, fd), fd
}

// reopen maps the journal once more, as the next process would.
func reopen(t testing.TB, fd int) *Journal {
	t.Helper()
	j, err := OpenJournal(fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func mustOpen(t testing.TB, l *Ledger, cookie uint64) *Slot {
	t.Helper()
	s, err := l.Open(cookie, uint32(cookie)+1000)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestLayoutOfTheJournal(t *testing.T) {
	if n := unsafe.Sizeof(Slot{}); n != slotSize {
		t.Errorf("a slot has %d bytes, want %d", n, slotSize)
	}
	if n := unsafe.Sizeof(journalHeader{}); n > headerSize {
		t.Errorf("the header has %d bytes, %d fit", n, headerSize)
	}
	for _, g := range []Geometry{
		smallShape, {Loops: 1, Slots: 1}, {Loops: 3, Slots: 129, Pool: 4096}, {Loops: MaxLoops, Slots: 1000, Pool: 1 << 16},
	} {
		j, _ := mustJournal(t, g)
		if j.Geometry() != g || len(j.mem) != g.Size() || g.Size()%pageSize != 0 {
			t.Errorf("%+v became %+v in %d bytes", g, j.Geometry(), len(j.mem))
		}
		checkNothingOverlaps(t, j)
	}
}

// checkNothingOverlaps: header, notices, slots and pools lie behind each other, and
// the last ends where the journal does.
func checkNothingOverlaps(t *testing.T, j *Journal) {
	t.Helper()
	start := uintptr(unsafe.Pointer(&j.mem[0]))
	at := uintptr(headerSize)
	part := func(what string, p unsafe.Pointer, size int) {
		if from := uintptr(p) - start; from < at {
			t.Fatalf("%+v: %s begins at %d, where %d is the first free byte", j.shape, what, from, at)
		}
		at = uintptr(p) - start + uintptr(size)
	}
	for _, n := range j.Notices() {
		part("a notice", unsafe.Pointer(n), NoticeSize)
	}
	for loop := range j.shape.Loops {
		for i := range j.shape.Slots {
			part("a slot", unsafe.Pointer(j.Slot(loop, i)), slotSize)
		}
	}
	for loop := range j.shape.Loops {
		pool := j.Pool(loop)
		if len(pool) != j.shape.Pool || cap(pool) != len(pool) {
			t.Fatalf("%+v: pool of %d bytes", j.shape, len(pool))
		}
		p := unsafe.Pointer(unsafe.SliceData(pool))
		if len(pool) == 0 {
			continue
		}
		if uintptr(p)%pageSize != 0 {
			t.Errorf("%+v: the pool of loop %d does not begin at a page", j.shape, loop)
		}
		part("a pool", p, len(pool))
	}
	if j.shape.Pool > 0 && at != uintptr(len(j.mem)) || at > uintptr(len(j.mem)) {
		t.Errorf("%+v: ends at %d of %d", j.shape, at, len(j.mem))
	}
}

func TestImpossibleGeometryIsRefused(t *testing.T) {
	for _, g := range []Geometry{
		{}, {Loops: 1}, {Slots: 1}, {Loops: -1, Slots: 1}, {Loops: MaxLoops + 1, Slots: 1}, {Loops: 1, Slots: -1},
		{Loops: 1, Slots: 1<<24 + 1}, {Loops: 1, Slots: 1, Pool: -4096}, {Loops: 1, Slots: 1, Pool: 100}, {Loops: 1, Slots: 1, Pool: 1<<36 + 4096},
	} {
		if fd, err := NewJournal(g); err == nil {
			unix.Close(fd)
			t.Errorf("%+v was accepted", g)
		}
	}
}

func TestASlotThatIsNotThereIsABug(t *testing.T) {
	j, _ := mustJournal(t, smallShape)
	for _, at := range [][2]int{{-1, 0}, {2, 0}, {0, -1}, {0, 8}} {
		mustPanic(t, fmt.Sprint("slot ", at), func() { j.Slot(at[0], at[1]) })
	}
}

func mustPanic(t *testing.T, what string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s: no panic", what)
		}
	}()
	f()
}

func TestAJournalThatCannotBeReadIsRefused(t *testing.T) {
	for what, spoil := range map[string]func(h *journalHeader){
		"magic":         func(h *journalHeader) { h.magic++ },
		"version":       func(h *journalHeader) { h.version++; h.checksum = h.sum() },
		"checksum":      func(h *journalHeader) { h.slots++ },
		"geometry":      func(h *journalHeader) { h.slots += 1000; h.checksum = h.sum() },
		"no loops":      func(h *journalHeader) { h.loops = 0; h.checksum = h.sum() },
		"many loops":    func(h *journalHeader) { h.loops = 1 << 31; h.checksum = h.sum() },
		"no slots":      func(h *journalHeader) { h.slots = 0; h.checksum = h.sum() },
		"pool":          func(h *journalHeader) { h.pool += 4096; h.checksum = h.sum() },
		"part of page":  func(h *journalHeader) { h.pool++; h.checksum = h.sum() },
		"huge pool":     func(h *journalHeader) { h.pool = 1 << 63; h.checksum = h.sum() },
		"generation":    func(h *journalHeader) { h.generation.Store(77) },
		"too many used": func(h *journalHeader) { h.high[1].Store(9) },
	} {
		j, fd := mustJournal(t, smallShape)
		spoil(j.header)
		if _, err := OpenJournal(fd); !errors.Is(err, ErrNotJournal) {
			t.Errorf("%s: %v, want ErrNotJournal", what, err)
		}
	}
	file, _ := memory(t, 100)
	if _, err := OpenJournal(int(file.Fd())); !errors.Is(err, ErrNotJournal) {
		t.Errorf("a short file: %v", err)
	}
	_, fd := mustJournal(t, smallShape)
	if err := unix.Ftruncate(fd, 4096); err == nil {
		t.Error("a journal can be made shorter under those who map it")
	}
}

// FuzzOpenJournal: whatever lies in the memory, opening it and looking at all of
// it reads nothing outside, and ends.
func FuzzOpenJournal(f *testing.F) {
	fd, err := NewJournal(smallShape)
	if err != nil {
		f.Fatal(err)
	}
	defer unix.Close(fd)
	head := make([]byte, headerSize)
	if _, err := unix.Pread(fd, head, 0); err != nil {
		f.Fatal(err)
	}
	f.Add(head[:64], []byte{1}, true)
	f.Add(head, []byte("slots and records"), true)
	f.Add(head, bytes.Repeat([]byte{0xff}, 512), false)
	f.Fuzz(func(t *testing.T, head, rest []byte, repair bool) {
		j, fd := mustJournal(t, smallShape)
		copy(j.mem[:headerSize], head)
		for at := headerSize; len(rest) > 0 && at < len(j.mem); at += len(rest) {
			copy(j.mem[at:], rest)
		}
		if repair {
			// So that it is what lies behind the checksum that is tried.
			h := j.header
			h.magic, h.version, h.loops, h.slots, h.pool = journalMagic, journalVersion, 2, 8, 8192
			h.checksum = h.sum()
			h.seal.Store(^h.generation.Load())
		}
		again, err := OpenJournal(fd)
		if err != nil {
			if !errors.Is(err, ErrNotJournal) {
				t.Errorf("%v, want ErrNotJournal", err)
			}
			return
		}
		defer again.Close()
		readAll(t, again)
	})
}

// readAll is what a successor does with a journal, and a server then.
func readAll(t *testing.T, j *Journal) {
	if n := len(j.Outstanding()); n > keptPlaces {
		t.Errorf("%d keepers outstanding", n)
	}
	for _, n := range j.Notices() {
		n.Died()
	}
	for loop := range j.shape.Loops {
		l := j.Ledger(loop)
		used := 0
		for s := range l.All() {
			used++
			_, _ = s.Word(), s.Kind()
		}
		if used != l.InUse() {
			t.Errorf("%d slots found, %d in use", used, l.InUse())
		}
		r := RecordAt[turn](j.Pool(loop))
		v := r.Load()
		v.base++
		r.Commit(&v, stepTurn)
		if r.Load() != v {
			t.Error("a record in garbage does not hold what was committed")
		}
		for {
			s, err := l.Open(1, 0)
			if err != nil {
				break
			}
			if s.Word() != 0 {
				t.Error("a slot was opened with a word in it")
			}
		}
		if l.InUse() != j.shape.Slots {
			t.Errorf("%d slots in use of %d", l.InUse(), j.shape.Slots)
		}
	}
	g := j.Generation()
	if mine, err := j.Claim(); err == nil && mine != g+1 {
		t.Errorf("claimed as %d behind %d", mine, g)
	}
}

func TestClaimsAreCountedAndFenced(t *testing.T) {
	a, fd := mustJournal(t, smallShape)
	if g, err := a.Claim(); g != 1 || err != nil || a.Fenced() {
		t.Fatalf("first claim: %d, %v", g, err)
	}
	b := reopen(t, fd)
	if g, err := b.Claim(); g != 2 || err != nil || b.Fenced() || !a.Fenced() {
		t.Errorf("second claim: %d, %v", g, err)
	}
	// Death between the two stores of a claim.
	b.header.generation.Store(3)
	c := reopen(t, fd)
	if g, err := c.Claim(); g != 4 || err != nil {
		t.Errorf("claim behind one that was cut short: %d, %v", g, err)
	}
	reopen(t, fd)
}

func TestOutstandingCustody(t *testing.T) {
	j, fd := mustJournal(t, smallShape)
	mark(t, j, 101, 1010)
	if got := j.Outstanding(); len(got) != 0 {
		t.Errorf("generation 1 awaits %v", got)
	}
	b := reopen(t, fd)
	mark(t, b, 102, 1020) // and dies while it adopts
	c := reopen(t, fd)
	if _, err := c.Claim(); err != nil { // dies before it has a keeper
		t.Fatal(err)
	}
	d := reopen(t, fd)
	mark(t, d, 104, 1040)
	got := d.Outstanding()
	want := []Sender{{Generation: 1, PID: 101, StartTime: 1010}, {Generation: 2, PID: 102, StartTime: 1020}}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("awaits %v, want %v", got, want)
	}
	d.MarkReceived()
	if got := d.Outstanding(); len(got) != 0 {
		t.Errorf("still awaits %v", got)
	}
	if got := reopen(t, fd).Outstanding(); len(got) != 1 || got[0].PID != 104 {
		t.Errorf("a looker sees %v outstanding, want generation 4", got)
	}
}

// mark claims the journal in the name of a process with such a keeper.
func mark(t *testing.T, j *Journal, pid int, start uint64) {
	t.Helper()
	g, err := j.Claim()
	if err != nil {
		t.Fatal(err)
	}
	markKept(j, Sender{Generation: g, PID: pid, StartTime: start})
}

// markKept does what a keeper's birth does.
func markKept(j *Journal, who Sender) {
	r := j.prepareKept(who.Generation)
	r.pid.Store(uint64(who.PID))
	r.start.Store(who.StartTime)
	j.onlyKept(r)
}

func TestAKeeperInPlaceOfAnother(t *testing.T) {
	j, fd := mustJournal(t, smallShape)
	mark(t, j, 101, 1)
	want := []Sender{{Generation: 1, PID: 102, StartTime: 2}}
	markKept(j, want[0])
	if got := reopen(t, fd).Outstanding(); !slices.Equal(got, want) {
		t.Errorf("awaits %v, want %v", got, want)
	}
}

// TestAStormOfGenerations: the first of them had the connections, and its keeper
// is not done; hundreds die behind it, each while it adopts. Nothing may be
// forgotten that is still to come.
func TestAStormOfGenerations(t *testing.T) {
	const sockets = 1500
	in, out := socketpair(t, unix.SOCK_SEQPACKET)
	if err := unix.SetsockoptInt(int(in.Fd()), unix.SOL_SOCKET, unix.SO_SNDBUF, 4096); err != nil {
		t.Fatal(err)
	}
	j, fd := mustJournal(t, smallShape)
	p := startKeptInto(t, in, out, 1, sockets)
	mark(t, j, p.keeper.PID, p.keeper.StartTime)
	p.kill()
	me := os.Getpid()
	for name, start := range map[string]uint64{"keepers that are over": 1, "keepers that wait": startTime(me)} {
		for range 3 * keptPlaces {
			mark(t, reopen(t, fd), me, start)
		}
		all := reopen(t, fd).Outstanding()
		if len(all) != keptPlaces || !slices.Contains(all, p.keeper) {
			t.Errorf("%s: %d are outstanding, the first among them: %v", name, len(all), slices.Contains(all, p.keeper))
		}
		last := Sender{Generation: reopen(t, fd).Generation(), PID: me, StartTime: start}
		if !slices.Contains(all, last) {
			t.Errorf("%s: the last is not outstanding", name)
		}
	}
	next := reopen(t, fd)
	if _, err := next.Claim(); err != nil {
		t.Fatal(err)
	}
	// Not those that this test stands for: it sends nothing.
	var senders []Sender
	for _, s := range next.Outstanding() {
		if s.PID != me || s.StartTime == 1 {
			senders = append(senders, s)
		}
	}
	got, c := receiveAll(t, out, CustodyOptions{Senders: senders})
	if !c.Ended(1) || len(got) != sockets+2 {
		t.Errorf("%d descriptors of %d, %v", len(got), sockets+2, c.Err())
	}
	next.MarkReceived()
	if left := next.Outstanding(); len(left) > 0 {
		t.Errorf("%d still outstanding", len(left))
	}
}

// TestALifeOfAConnection goes through the protocol and looks at what a
// successor would find behind every step.
func TestALifeOfAConnection(t *testing.T) {
	j, fd := mustJournal(t, smallShape)
	l := j.Ledger(1)
	next := reopen(t, fd)
	find := func() *Slot {
		t.Helper()
		var found *Slot
		for s := range next.Ledger(1).All() {
			if found != nil {
				t.Fatal("more than one slot")
			}
			found = s
		}
		return found
	}
	if find() != nil {
		t.Error("a slot before there is a connection")
	}
	s, err := l.Open(4711, 3)
	if err != nil {
		t.Fatal(err)
	}
	if f := find(); f == nil || f.Cookie() != 4711 || f.Kind() != 3 || f.Word() != 0 {
		t.Errorf("opened: %+v", f)
	}
	record := RecordAt[turn](j.Pool(1)[64:])
	theirs := RecordAt[turn](next.Pool(1)[64:])
	v := turn{page: 4096, base: 7}
	record.Commit(&v, stepTurn)
	if f := find(); f.Word() != 0 {
		t.Errorf("before Set the word is %d", f.Word())
	}
	s.Set(64)
	if f := find(); f.Word() != 64 || theirs.Load() != v {
		t.Errorf("set: word %d, record %+v", f.Word(), theirs.Load())
	}
	for i := range uint64(5) {
		v.rx, v.tx = i, i*i
		record.Commit(&v, stepTold)
		if theirs.Load() != v {
			t.Errorf("commit %d: %+v, want %+v", i, theirs.Load(), v)
		}
	}
	s.Set(0)
	if f := find(); f.Word() != 0 {
		t.Errorf("at rest the word is %d", f.Word())
	}
	s.Set(64)
	l.Close(s)
	if find() != nil {
		t.Error("a slot behind Close")
	}
	again := mustOpen(t, l, 4712)
	if again != s || again.Word() != 0 {
		t.Errorf("the next connection finds the word %d", again.Word())
	}
}

func TestSlotsComeBack(t *testing.T) {
	j, fd := mustJournal(t, smallShape)
	l := j.Ledger(0)
	if _, err := l.Open(0, 0); err == nil || l.InUse() != 0 {
		t.Errorf("a connection without a cookie: %v", err)
	}
	var slots []*Slot
	for i := range smallShape.Slots {
		slots = append(slots, mustOpen(t, l, uint64(i+1)))
	}
	if _, err := l.Open(99, 0); !errors.Is(err, ErrJournalFull) {
		t.Errorf("a full journal: %v", err)
	}
	for i, s := range slots {
		if i != 2 && i != 5 {
			l.Close(s)
		}
	}
	other := reopen(t, fd).Ledger(1)
	next := reopen(t, fd).Ledger(0)
	if next.InUse() != 2 || l.InUse() != 2 || other.InUse() != 0 {
		t.Errorf("found %d slots in use, and %d of the other loop, want 2 and 0", next.InUse(), other.InUse())
	}
	var cookies []uint64
	for s := range next.All() {
		cookies = append(cookies, s.Cookie())
	}
	if !slices.Equal(cookies, []uint64{3, 6}) {
		t.Errorf("found the slots of %v, want 3 and 6", cookies)
	}
	for i := range smallShape.Slots - 2 {
		if s := mustOpen(t, next, uint64(100+i)); slices.Contains(cookies, s.Cookie()) {
			t.Error("a slot in use was given away")
		}
	}
	if _, err := next.Open(99, 0); !errors.Is(err, ErrJournalFull) {
		t.Errorf("a full journal: %v", err)
	}
	for range next.All() {
		break // may be left early
	}
}

// TestARecordBetweenItsTwoStores: what a death leaves, by hand.
func TestARecordBetweenItsTwoStores(t *testing.T) {
	r := RecordAt[turn](make([]byte, RecordSize[turn]()))
	a, b := turn{rx: 1, body: 11}, turn{rx: 2, body: 22}
	r.Commit(&a, stepTurn)
	r.bank[(r.cur.Load()+1)&1].rx = 2 // one word of the next value, and no more
	if r.Load() != a {
		t.Errorf("half of a value shows: %+v", r.Load())
	}
	r.Commit(&b, stepTurn)
	if r.Load() != b {
		t.Errorf("%+v, want %+v", r.Load(), b)
	}
}

func TestARecordInGarbage(t *testing.T) {
	for _, cur := range []uint64{0, 1, 2, 1<<63 + 1, ^uint64(0), ^uint64(0) - 1} {
		mem := bytes.Repeat([]byte{0xa5}, RecordSize[turn]())
		binary.NativeEndian.PutUint64(mem, cur)
		r := RecordAt[turn](mem)
		garbage := r.bank[cur&1]
		if r.Load() != garbage {
			t.Errorf("cur %#x: loads something else than what lies there", cur)
		}
		for i := range uint64(3) { // over the end of cur
			v := turn{rx: i, tx: i}
			if r.Commit(&v, stepTurn); r.Load() != v {
				t.Errorf("cur %#x: commit %d was not kept", cur, i)
			}
		}
	}
}

func TestARecordThatDoesNotFitIsABug(t *testing.T) {
	mem := make([]byte, 4096)
	mustPanic(t, "too short", func() { RecordAt[turn](mem[:RecordSize[turn]()-1]) })
	mustPanic(t, "crooked", func() { RecordAt[turn](mem[4:]) })
	mustPanic(t, "nothing", func() { RecordAt[turn](nil) })
}

// A whole is a value of which a part shows: all its words are one number.
type whole [32]uint64

func (w whole) is() (n uint64, ok bool) {
	return w[0], w == wholeOf(w[0])
}

func wholeOf(n uint64) (w whole) {
	for i := range w {
		w[i] = n
	}
	return w
}

// runCommitter lives through connections, one behind the other in each of its
// slots, whose record is the one that the word says. 3: the journal.
func runCommitter() error {
	j, err := OpenJournal(3)
	if err != nil {
		return err
	}
	if _, err := j.Claim(); err != nil {
		return err
	}
	l := j.Ledger(0)
	var slots []*Slot
	for s := range l.All() {
		slots = append(slots, s)
	}
	records := j.Pool(0)
	size := RecordSize[whole]()
	for n := j.Generation() << 32; ; n++ {
		for len(slots) > int(n%4) {
			l.Close(slots[0])
			slots = slots[1:]
		}
		s, err := l.Open(n+1, uint32(n))
		if err != nil {
			return err
		}
		slots = append(slots, s)
		at := size * (1 + l.index(s))
		v := wholeOf(n << 8)
		RecordAt[whole](records[at:]).Commit(&v, UserStep)
		s.Set(uint64(at))
		for i := range n % 5 {
			v = wholeOf(n<<8 + i + 1)
			RecordAt[whole](records[at:]).Commit(&v, UserStep)
		}
	}
}

// runDier commits to a record, and dies where the environment says. 3: memory.
func runDier() error {
	mem, err := mapShared(3, pageSize)
	if err != nil {
		return err
	}
	r := RecordAt[whole](mem)
	for n := range uint64(10) {
		v := wholeOf(n + 1)
		r.Commit(&v, UserStep)
	}
	return errors.New("alive")
}

// TestTheJournalOfADeadProcess: killed at any instruction, it leaves slots that
// are somebody's or nobody's, and whole records that belong to them.
func TestTheJournalOfADeadProcess(t *testing.T) {
	j, fd := mustJournal(t, Geometry{Loops: 1, Slots: 8, Pool: 8192})
	file := os.NewFile(uintptr(mustDup(t, fd)), "journal")
	defer file.Close()
	rng := rand.New(rand.NewPCG(1, 1))
	looked, withRecord := 0, 0
	for range 60 {
		before := j.Generation()
		first := j.Slot(0, 0).Cookie() + j.Slot(0, 1).Cookie()
		c := startRole(t, "committer", nil, []*os.File{file})
		eventually(t, "a life of its own", func() bool {
			return j.Generation() > before && j.Slot(0, 0).Cookie()+j.Slot(0, 1).Cookie() != first
		})
		for range rng.IntN(2000) {
			_ = j.Generation()
		}
		c.kill()
		next := reopen(t, fd)
		for s := range next.Ledger(0).All() {
			looked++
			if uint32(s.Cookie()-1) != s.Kind() {
				t.Fatalf("slot of %#x has the kind of %#x", s.Cookie(), s.Kind())
			}
			if s.Word() == 0 {
				continue
			}
			withRecord++
			n, ok := RecordAt[whole](next.Pool(0)[s.Word():]).Load().is()
			if !ok || n>>8 != s.Cookie()-1 {
				t.Fatalf("slot of %#x has the record of %#x, whole: %v", s.Cookie(), n, ok)
			}
		}
	}
	if withRecord == 0 {
		t.Errorf("%d slots were found, none with a record", looked)
	}
}

func mustDup(t *testing.T, fd int) int {
	t.Helper()
	d, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestStepsDoNotAllocate(t *testing.T) {
	j, _ := mustJournal(t, smallShape)
	l := j.Ledger(0)
	s := mustOpen(t, l, 1)
	r := RecordAt[turn](j.Pool(0))
	if n := testing.AllocsPerRun(100, func() { oneRequest(s, r) }); n > 0 {
		t.Errorf("%v allocations in a request", n)
	}
}

// oneRequest is what the journal of one request costs.
func oneRequest(s *Slot, r *Record[turn]) {
	v := turn{page: 4096}
	r.Commit(&v, stepTurn)
	s.Set(1)
	v.head, v.headLen, v.body = 8192, 200, 1024
	r.Commit(&v, stepTold)
	s.Set(0)
}

func TestPopulateAndKeepFromChildren(t *testing.T) {
	j, _ := mustJournal(t, Geometry{Loops: 2, Slots: 1000, Pool: 1 << 16})
	for _, n := range []int{0, 1, 100, 1 << 20} {
		if err := j.Populate(n); err != nil {
			t.Errorf("populate %d: %v", n, err)
		}
	}
	if err := j.KeepFromChildren(); err != nil {
		t.Error(err)
	}
	if n := j.Notices(); len(n) != 3 || n[0] == n[1] || n[2] == n[1] || n[2] != j.Receiver() {
		t.Error("threads share a notice, or have none")
	}
}
