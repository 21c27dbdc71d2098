package queue

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

var smallShape = Geometry{Loops: 2, Slots: 8, Small: 6, Large: 3}

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

func mustLedger(t testing.TB, j *Journal, loop int) *Ledger {
	t.Helper()
	l, err := j.Ledger(loop)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLayoutOfTheJournal(t *testing.T) {
	if n := unsafe.Sizeof(Slot{}); n != slotSize {
		t.Errorf("a slot has %d bytes, want %d", n, slotSize)
	}
	if n := unsafe.Sizeof(journalHeader{}); n > headerSize {
		t.Errorf("the header has %d bytes, %d fit", n, headerSize)
	}
	j, _ := mustJournal(t, smallShape)
	if len(j.mem) != smallShape.Size() || len(j.PoolMemory(1)) != 6*SmallPage+3*LargePage {
		t.Errorf("%d bytes, pool %d", len(j.mem), len(j.PoolMemory(1)))
	}
	end := uintptr(unsafe.Pointer(&j.PoolMemory(1)[0])) + uintptr(len(j.PoolMemory(1)))
	if end != uintptr(unsafe.Pointer(&j.mem[0]))+uintptr(len(j.mem)) {
		t.Error("the last pool does not end where the journal does")
	}
}

func TestImpossibleGeometryIsRefused(t *testing.T) {
	for _, g := range []Geometry{
		{}, {Loops: 1, Slots: 1}, {Loops: MaxLoops + 1, Slots: 1, Small: 1}, {Loops: 1, Slots: 1, Small: maxPages + 1},
		{Loops: 1, Slots: -1, Small: 1}, {Loops: 1, Slots: 1, Small: 1, Large: -1},
	} {
		if fd, err := NewJournal(g); err == nil {
			unix.Close(fd)
			t.Errorf("%+v was accepted", g)
		}
	}
}

func TestAJournalThatCannotBeReadIsRefused(t *testing.T) {
	for what, spoil := range map[string]func(h *journalHeader){
		"magic":         func(h *journalHeader) { h.magic++ },
		"version":       func(h *journalHeader) { h.version++; h.checksum = h.sum() },
		"checksum":      func(h *journalHeader) { h.slots++ },
		"geometry":      func(h *journalHeader) { h.slots++; h.checksum = h.sum() },
		"no loops":      func(h *journalHeader) { h.loops = 0; h.checksum = h.sum() },
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

func FuzzOpenJournal(f *testing.F) {
	fd, err := NewJournal(smallShape)
	if err != nil {
		f.Fatal(err)
	}
	defer unix.Close(fd)
	head := make([]byte, 64)
	if _, err := unix.Pread(fd, head, 0); err != nil {
		f.Fatal(err)
	}
	f.Add(head, uint64(1), uint64(2))
	f.Fuzz(func(t *testing.T, head []byte, a, b uint64) {
		j, fd := mustJournal(t, smallShape)
		copy(j.mem[:headerSize], head)
		// With a right checksum, so that it is what lies behind that is tried.
		j.header.magic, j.header.version = journalMagic, journalVersion
		j.header.checksum = j.header.sum()
		again, err := OpenJournal(fd)
		if err != nil {
			return
		}
		defer again.Close()
		again.header.high[0].Store(uint32(again.shape.Slots))
		for i := range again.shape.Slots {
			s := again.Slot(0, i)
			s.cookie.Store(a + uint64(i))
			s.buffer.Store(b * uint64(i))
			s.entries[0].head.Store(a * b * uint64(i))
			if v := Classify(s.State(), Progress{Written: a, Consumed: b}); (v.Condition == Lost) != (v.Reason != NotLost) {
				t.Errorf("%v, %v", v.Condition, v.Reason)
			}
		}
		again.Outstanding()
		_, _ = again.Ledger(0)
	})
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
	mark := func(j *Journal, pid int) {
		g, err := j.Claim()
		if err != nil {
			t.Fatal(err)
		}
		j.MarkKept(&Keeper{pid: pid, start: uint64(pid) * 10, generation: g})
	}
	mark(j, 101)
	if got := j.Outstanding(); len(got) != 0 {
		t.Errorf("generation 1 awaits %v", got)
	}
	b := reopen(t, fd)
	mark(b, 102) // and dies while it adopts
	c := reopen(t, fd)
	if _, err := c.Claim(); err != nil { // dies before it has a keeper
		t.Fatal(err)
	}
	d := reopen(t, fd)
	mark(d, 104)
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

// TestALifeOfAConnection goes through the protocol and looks at what a
// successor would find behind every step.
func TestALifeOfAConnection(t *testing.T) {
	j, fd := mustJournal(t, smallShape)
	l := mustLedger(t, j, 1)
	next := reopen(t, fd)
	find := func() SlotState {
		t.Helper()
		for _, s := range mustLedger(t, next, 1).Find() {
			return s.State()
		}
		return SlotState{}
	}
	expect := func(step string, p Progress, want Condition) Verdict {
		t.Helper()
		p.State = TCPEstablished
		v := Classify(find(), p)
		if v.Condition != want {
			t.Errorf("%s: %v (%v), want %v", step, v.Condition, v.Reason, want)
		}
		return v
	}
	expect("accepted", Progress{}, AcceptGap)
	s, err := l.Open(4711, 3, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	expect("open", Progress{}, Idle)
	p, _ := l.Page(100)
	s.Attach(p, 0)
	expect("attach", Progress{}, Idle)
	copy(l.Bytes(p), "GET / and the next")
	expect("received", Progress{Consumed: 18}, HalfRequest)
	big, _ := l.Page(SmallPage + 1)
	copy(l.Bytes(big), l.Bytes(p)[:18])
	s.Replace(big, 0)
	l.Free(p)
	expect("replace", Progress{Consumed: 18}, HalfRequest)
	s.SetNote(2)
	s.SetPeer(99)
	s.Complete(5)
	if v := expect("complete", Progress{Consumed: 18}, Unanswered); v.Pending != 18 {
		t.Errorf("%d bytes pending, want 18", v.Pending)
	}
	head, _ := l.Page(1)
	s.Answer(Head{Page: head, Offset: 7, Length: 40}, 55, 1000)
	expect("answer", Progress{Consumed: 18}, Unanswered)
	if v := expect("sent some", Progress{Consumed: 18, Written: 41}, PartlyAnswered); v.Sent != 41 {
		t.Errorf("%d bytes sent, want 41", v.Sent)
	}
	expect("sent all", Progress{Consumed: 18, Written: 1040}, Answered)
	st := find()
	if st.Head != (Head{head, 7, 40}) || st.Object != 55 || st.Body != 1000 || st.Page != big || st.Kind != 3 || s.Note() != 2 || s.Peer() != 99 {
		t.Errorf("%+v, note %d, peer %d", st, s.Note(), s.Peer())
	}
	if slots, small, large := mustLedger(t, next, 1).InUse(); slots != 1 || small != 1 || large != 1 {
		t.Errorf("a successor finds %d slots, %d small and %d large pages in use", slots, small, large)
	}
	s.Finish(1040)
	l.Free(head)
	if v := expect("finish", Progress{Consumed: 18, Written: 1040}, HalfRequest); v.Pending != 13 || s.Note() != 0 {
		t.Errorf("%d bytes pending, want 13; note %d", v.Pending, s.Note())
	}
	s.Complete(13)
	s.Answer(Head{Page: big, Offset: 100, Length: 4}, 56, UnknownBody)
	expect("answer of unknown length", Progress{Consumed: 18, Written: 9999}, PartlyAnswered)
	s.Finish(9999)
	expect("finish", Progress{Consumed: 18, Written: 9999}, Idle)
	s.Detach()
	l.Free(big)
	expect("detach", Progress{Consumed: 18, Written: 9999}, Idle)
	l.Close(s)
	expect("close", Progress{Consumed: 18, Written: 9999}, Closing)
	if slots, small, large := l.InUse(); slots+small+large != 0 {
		t.Errorf("in use at the end: %d slots, %d small, %d large pages", slots, small, large)
	}
}

func TestClassify(t *testing.T) {
	page := Page(1)
	slot := func(change func(s *SlotState)) SlotState {
		s := SlotState{Cookie: 1, Rx: 1000, Tx: 5000, Page: page, Base: 900}
		change(&s)
		return s
	}
	plain := slot(func(*SlotState) {})
	whole := slot(func(s *SlotState) { s.Request = 50 })
	head := slot(func(s *SlotState) { s.Request, s.Head, s.Body = 50, Head{page, 0, 30}, 70 })
	endless := slot(func(s *SlotState) { s.Request, s.Head, s.Body = 50, Head{page, 0, 30}, UnknownBody })
	empty := slot(func(s *SlotState) { s.Request, s.Head, s.Body = 50, Head{page, 0, 30}, 0 })
	bare := slot(func(s *SlotState) { s.Page, s.Base = 0, 0 })
	upload := slot(func(s *SlotState) { s.Request, s.Base = 1<<40, 1<<33 })
	wrapped := slot(func(s *SlotState) { s.Rx, s.Base = 1<<baseBits+10, 0 })
	none := SlotState{}
	for what, c := range map[string]struct {
		s               SlotState
		consumed, wrote uint64
		state           TCPState
		want            Condition
		reason          LossReason
	}{
		"no slot, nothing moved":           {none, 0, 0, TCPEstablished, AcceptGap, NotLost},
		"no slot, peer is done already":    {none, 0, 0, TCPCloseWait, AcceptGap, NotLost},
		"no slot, we had shut down":        {none, 0, 0, TCPFinWait2, Closing, NotLost},
		"no slot, was read":                {none, 1, 0, TCPEstablished, Closing, NotLost},
		"no slot, was written":             {none, 0, 1, TCPEstablished, Closing, NotLost},
		"no slot, reset":                   {none, 0, 0, TCPClose, Lost, Gone},
		"reset":                            {plain, 1000, 5000, TCPClose, Lost, Gone},
		"idle":                             {bare, 1000, 5000, TCPEstablished, Idle, NotLost},
		"idle, the page still there":       {plain, 1000, 5000, TCPEstablished, Idle, NotLost},
		"idle, peer is done":               {bare, 1000, 5000, TCPCloseWait, Idle, NotLost},
		"one byte":                         {plain, 1001, 5000, TCPEstablished, HalfRequest, NotLost},
		"full page":                        {plain, 900 + SmallPage, 5000, TCPEstablished, HalfRequest, NotLost},
		"more than the page":               {plain, 901 + SmallPage, 5000, TCPEstablished, Lost, OutsidePage},
		"bytes and no page":                {bare, 1001, 5000, TCPEstablished, Lost, NoPage},
		"whole request":                    {whole, 1050, 5000, TCPEstablished, Unanswered, NotLost},
		"whole request, one behind it":     {whole, 1080, 5000, TCPEstablished, Unanswered, NotLost},
		"request longer than what came":    {whole, 1049, 5000, TCPEstablished, Lost, ShortRequest},
		"read too little":                  {plain, 999, 5000, TCPEstablished, Lost, ConsumedTooFew},
		"written too little":               {plain, 1000, 4999, TCPEstablished, Lost, WrittenTooFew},
		"sent without a head":              {whole, 1050, 5001, TCPEstablished, Lost, SentWithoutHead},
		"idle and sent":                    {bare, 1000, 5001, TCPEstablished, Lost, SentWithoutHead},
		"head committed, nothing sent":     {head, 1050, 5000, TCPEstablished, Unanswered, NotLost},
		"part of the head":                 {head, 1050, 5029, TCPEstablished, PartlyAnswered, NotLost},
		"head, no body yet":                {head, 1050, 5030, TCPEstablished, PartlyAnswered, NotLost},
		"all but a byte":                   {head, 1050, 5099, TCPEstablished, PartlyAnswered, NotLost},
		"all":                              {head, 1050, 5100, TCPEstablished, Answered, NotLost},
		"more than all":                    {head, 1050, 5101, TCPEstablished, Lost, SentTooMany},
		"all of an empty body":             {empty, 1050, 5030, TCPEstablished, Answered, NotLost},
		"unknown length":                   {endless, 1050, 1 << 50, TCPEstablished, PartlyAnswered, NotLost},
		"upload passed on, page moved":     {upload, 1 << 33, 5000, TCPEstablished, Lost, ShortRequest},
		"upload received to its end":       {upload, 1000 + 1<<40, 5000, TCPEstablished, Lost, OutsidePage},
		"behind 16 TiB the base is modulo": {wrapped, 1<<baseBits + 20, 5000, TCPEstablished, HalfRequest, NotLost},
	} {
		v := Classify(c.s, Progress{Consumed: c.consumed, Written: c.wrote, State: c.state})
		if v.Condition != c.want || v.Reason != c.reason {
			t.Errorf("%s: got %v (%v), want %v (%v)", what, v.Condition, v.Reason, c.want, c.reason)
		}
	}
}

func TestNamesOfConditionsAndReasons(t *testing.T) {
	for c := range conditions + 1 {
		if c.String() == "" {
			t.Errorf("condition %d has no name", uint8(c))
		}
	}
	for r := range reasons + 1 {
		if r.String() == "" {
			t.Errorf("reason %d has no name", uint8(r))
		}
	}
}

func TestPagesAndSlotsComeBack(t *testing.T) {
	j, fd := mustJournal(t, smallShape)
	l := mustLedger(t, j, 0)
	var slots []*Slot
	for i := range smallShape.Slots {
		s, err := l.Open(uint64(i+1), 0, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		slots = append(slots, s)
	}
	if _, err := l.Open(99, 0, 0, 0); !errors.Is(err, ErrJournalFull) {
		t.Errorf("a full journal: %v", err)
	}
	var pages []Page
	for range smallShape.Small {
		p, ok := l.Page(1)
		if !ok || p.Large() || len(l.Bytes(p)) != SmallPage {
			t.Fatalf("page %#x, %v", p, ok)
		}
		pages = append(pages, p)
	}
	if _, ok := l.Page(1); ok {
		t.Error("more small pages than there are")
	}
	if _, ok := l.Page(LargePage + 1); ok {
		t.Error("a page larger than any")
	}
	// Slots 2 and 5 hold pages 2 and 5; the others are closed, and their
	// pages were in nobody's name.
	for i, s := range slots {
		if i == 2 || i == 5 {
			s.Attach(pages[i], 0)
			continue
		}
		l.Close(s)
	}
	next := mustLedger(t, reopen(t, fd), 0)
	if s, small, large := next.InUse(); s != 2 || small != 2 || large != 0 {
		t.Errorf("found %d slots, %d small, %d large pages in use, want 2, 2, 0", s, small, large)
	}
	taken := map[Page]bool{pages[2]: true, pages[5]: true}
	for range smallShape.Small - 2 {
		p, ok := next.Page(1)
		if !ok || taken[p] {
			t.Fatalf("page %#x, %v: in use or none", p, ok)
		}
		taken[p] = true
	}
	if len(next.Find()) != 2 {
		t.Errorf("%d slots found", len(next.Find()))
	}
}

func TestPagesDoNotOverlap(t *testing.T) {
	j, _ := mustJournal(t, smallShape)
	var all [][]byte
	for loop := range smallShape.Loops {
		l := mustLedger(t, j, loop)
		for _, n := range []int{1, LargePage} {
			for p, ok := l.Page(n); ok; p, ok = l.Page(n) {
				all = append(all, l.Bytes(p))
			}
		}
	}
	if len(all) != 2*9 {
		t.Fatalf("%d pages", len(all))
	}
	for i, p := range all {
		copy(p, bytes.Repeat([]byte{byte(i + 1)}, len(p)))
	}
	for i, p := range all {
		if bytes.Count(p, []byte{byte(i + 1)}) != len(p) {
			t.Errorf("page %d was overwritten", i)
		}
	}
}

func TestADamagedSlotIsFound(t *testing.T) {
	for what, spoil := range map[string]func(a, b *Slot){
		"two slots with one page": func(a, b *Slot) { a.Attach(1, 0); b.Attach(1, 0) },
		"a page that is not":      func(a, _ *Slot) { a.Attach(7, 0) },
		"a large one that is not": func(a, _ *Slot) { a.Attach(largePageBit|4, 0) },
		"number zero":             func(a, _ *Slot) { a.Attach(largePageBit, 0) },
	} {
		j, fd := mustJournal(t, smallShape)
		l := mustLedger(t, j, 0)
		a, _ := l.Open(1, 0, 0, 0)
		b, _ := l.Open(2, 0, 0, 0)
		spoil(a, b)
		if _, err := reopen(t, fd).Ledger(0); !errors.Is(err, ErrNotJournal) {
			t.Errorf("%s: %v, want ErrNotJournal", what, err)
		}
	}
}

func TestHeadsArePackedWhole(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 10_000 {
		p := Page(1 + rng.IntN(maxPages))
		if rng.IntN(2) == 0 {
			p |= largePageBit
		}
		off := rng.IntN(p.Len())
		h := Head{Page: p, Offset: off, Length: 1 + rng.IntN(p.Len()-off)}
		if got := unpackHead(h.pack()); got != h || h.pack() == 0 {
			t.Fatalf("%+v became %+v", h, got)
		}
		base := rng.Uint64()
		b := packBuffer(p, base)
		if Page(b>>baseBits) != p || b&baseMask != base&baseMask {
			t.Fatalf("page %#x, base %#x became %#x", p, base, b)
		}
	}
	if unpackHead(0).Length != 0 {
		t.Error("no head has a length")
	}
}

func TestAHeadOutsideOfItsPageIsABug(t *testing.T) {
	j, _ := mustJournal(t, smallShape)
	s := j.Slot(0, 0)
	for _, h := range []Head{{}, {Page: 1}, {Page: 1, Offset: SmallPage, Length: 1}, {Page: 1, Length: SmallPage + 1}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%+v was committed", h)
				}
			}()
			s.Answer(h, 0, 0)
		}()
	}
}

func TestStepsDoNotAllocate(t *testing.T) {
	j, _ := mustJournal(t, smallShape)
	l := mustLedger(t, j, 0)
	s, err := l.Open(1, 0, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { oneRequest(l, s, 0) }); n > 0 {
		t.Errorf("%v allocations in a request", n)
	}
}

// oneRequest is what the journal of one request costs.
func oneRequest(l *Ledger, s *Slot, tx uint64) {
	p, _ := l.Page(512)
	s.Attach(p, 0)
	s.Complete(0)
	s.Answer(Head{Page: p, Offset: 2048, Length: 200}, 7, 1024)
	s.Finish(tx)
	s.Detach()
	l.Free(p)
}

func TestPopulateAndKeepFromChildren(t *testing.T) {
	j, _ := mustJournal(t, Geometry{Loops: 2, Slots: 1000, Small: 4})
	if err := j.Populate(100); err != nil {
		t.Error(err)
	}
	if err := j.Populate(1 << 20); err != nil {
		t.Error(err)
	}
	if err := j.KeepFromChildren(); err != nil {
		t.Error(err)
	}
	if n := j.Notices(); len(n) != 2 || n[0] == n[1] {
		t.Error("the loops share a notice")
	}
}
