package accesslog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"trafficd/queue"
	"trafficd/roles/server/custody"
)

// Options of New. All are needed.
type Options struct {
	Loops   int
	Memory  []byte                         // shared, and zero when nobody has used it; see NewMemory
	Self    func() (pid int, start uint64) // this process
	Report  func(err error)                // a failure, once until it is another or over; nil: it is over
	Written func(lines int)                // so many lines are in the file
	Failed  func()                         // lines could not be written, for now
	Dropped func(loop int)                 // a line was dropped; called on the loop
}

// An Output is the access log of a server. Its methods are for any goroutine, but for those of
// what Log returns.
//
//	New ─▶ Claim ─▶ Start ─▶ Use, Reopen … ─▶ Close
//
// Until Claim it only has the memory mapped, and another server may be using it.
type Output struct {
	o     Options
	m     *memory
	logs  []*Log
	calls chan func() // for the writer
	wake  chan struct{}
	stop  chan struct{}
	done  chan struct{}

	want    atomic.Pointer[string] // the path
	asleep  atomic.Bool            // the writer waits to be woken
	started atomic.Bool
	trouble atomic.Pointer[Trouble] // nil: lines are written, or nobody wants any

	// Owned by the writer.
	path      string
	file      *file // nil: not open
	inherited bool  // what the batch says is a dead server's word
	failed    string
	retry     time.Time
}

// New makes the log of a server.
func New(o Options) (*Output, error) {
	m, err := newMemory(o.Memory, o.Loops)
	if err != nil {
		return nil, err
	}
	out := &Output{o: o, m: m, calls: make(chan func()), wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	out.Use("")
	for i := range o.Loops {
		out.logs = append(out.logs, &Log{out: out, loop: i, ring: m.ringOf(i)})
	}
	return out, nil
}

// Trouble is why lines are not written.
type Trouble struct {
	Since time.Time
	Err   error
}

// Trouble tells why lines are not written now; nil if they are.
func (out *Output) Trouble() *Trouble { return out.trouble.Load() }

// Log is the way of one loop to the log.
func (out *Output) Log(loop int) *Log { return out.logs[loop] }

// Claim makes the memory this process's: the loops of the server before are dead. An error says
// what is lost of its lines; the log is good in any case.
func (out *Output) Claim() error {
	err := out.m.claim()
	for _, l := range out.logs {
		l.ring.recall()
	}
	return err
}

// Predecessor is the process whose writer had the memory last; 0: there was none.
func (out *Output) Predecessor() (pid int, start uint64) {
	h := out.m.header()
	return int(h.pid.Load()), h.start.Load()
}

// Start starts the writer, which begins when the writer before it is gone: what that one was about
// to do, it may be doing still.
func (out *Output) Start(gone <-chan struct{}) {
	out.started.Store(true)
	go func() {
		defer close(out.done)
		select {
		case <-gone:
		case <-out.stop:
			return
		}
		pid, start := out.o.Self()
		out.m.header().start.Store(start)
		out.m.header().pid.Store(uint64(pid))
		out.run()
	}()
}

// Use makes path the file that lines go to from now on; "": none, and no lines are kept. It returns before
// that is done.
func (out *Output) Use(path string) {
	out.want.Store(&path)
	out.rouse(true)
}

// Reopen opens the file again, and says whether that went well.
func (out *Output) Reopen(ctx context.Context) error {
	if !out.started.Load() {
		return nil // whoever begins opens the file anew
	}
	result := make(chan error, 1)
	reopen := func() { result <- out.reopen() }
	for call := out.calls; ; {
		select {
		case call <- reopen:
			call = nil
		case err := <-result:
			return err
		case <-out.done:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("access log: reopen: %w", ctx.Err())
		}
	}
}

// Close writes what there is and ends the writer, or gives it up when ctx ends. The loops log nothing any more.
func (out *Output) Close(ctx context.Context) {
	close(out.stop)
	if !out.started.Load() {
		return
	}
	select {
	case <-out.done:
	case <-ctx.Done():
	}
}

// gather is how long the writer waits for more lines once there is one.
const gather = 50 * time.Millisecond

// retryAfter is how long it waits after a failure.
const retryAfter = time.Second

// never is longer than anybody waits.
const never = 24 * time.Hour

// run writes until the end.
func (out *Output) run() {
	out.inherited = true
	t := time.NewTimer(0) // what a dead server has left
	defer t.Stop()
	for {
		select {
		case <-t.C:
			t.Reset(out.turn())
		case <-out.wake:
			t.Reset(out.pause())
		case f := <-out.calls:
			f()
			t.Reset(0)
		case <-out.stop:
			out.write()
			out.file.close()
			return
		}
	}
}

// pause is how long to wait when there is a line.
func (out *Output) pause() time.Duration {
	if *out.want.Load() != out.path {
		return 0
	}
	if d := time.Until(out.retry); d > 0 {
		return d
	}
	for _, l := range out.logs {
		if l.ring.pressing() {
			return 0
		}
	}
	return gather
}

// turn writes what there is and returns when to come again.
func (out *Output) turn() time.Duration {
	if path := *out.want.Load(); path != out.path {
		out.use(path)
	}
	if d := time.Until(out.retry); d > 0 {
		return d
	}
	if !out.write() {
		return retryAfter
	}
	out.asleep.Store(true)
	if out.empty() || !out.asleep.Swap(false) {
		return never
	}
	return gather
}

func (out *Output) empty() bool {
	for _, l := range out.logs {
		if l.ring.used() > 0 {
			return false
		}
	}
	return true
}

// rouse wakes the writer if it sleeps, or if a loop is about to run out of room.
func (out *Output) rouse(urgent bool) {
	if urgent || out.asleep.Load() && out.asleep.Swap(false) {
		select {
		case out.wake <- struct{}{}:
		default:
		}
	}
}

func (out *Output) use(path string) {
	if out.path != "" {
		out.write() // what came before goes where it belongs
	}
	out.file.close()
	out.file, out.path, out.failed, out.retry = nil, path, "", time.Time{}
	out.trouble.Store(nil)
}

// open opens the file if it is not. A batch that a dead server has begun on another one is ended
// there first.
func (out *Output) open() error {
	if out.file != nil {
		return nil
	}
	s := out.m.state().Load()
	f, err := openFile(out.path)
	if s.done < s.length && (err != nil || f.dev != s.dev || f.ino != s.ino) {
		if old := findFile(out.path, s.dev, s.ino); old != nil {
			out.file = old
			oldErr := out.settle(&s)
			old.close()
			out.file = nil
			if oldErr != nil {
				f.close()
				return oldErr
			}
		}
	}
	if err != nil {
		return err
	}
	out.file = f
	return nil
}

// reopen begins a new file under the same path. Without success the old one stays, if there is one.
func (out *Output) reopen() error {
	if out.path == "" {
		return nil
	}
	out.write()
	f, err := openFile(out.path)
	switch {
	case err != nil && out.file == nil:
		return fmt.Errorf("%w; lines wait in memory, as many as there is room for", err)
	case err != nil:
		return fmt.Errorf("%w; lines go to the old file still", err)
	}
	out.file.close()
	out.file, out.retry = f, time.Time{}
	return nil
}

// write writes all there is. False: not now.
func (out *Output) write() bool {
	if out.path == "" {
		out.discard()
		return true
	}
	err := out.open()
	for err == nil {
		s := out.m.state().Load()
		if err = out.settle(&s); err == nil && !out.next(&s) {
			out.inherited = false
			break
		}
	}
	out.report(err)
	return err == nil
}

// discard forgets what is in the rings: nobody wants it.
func (out *Output) discard() {
	s := out.m.state().Load()
	changed := s.length != 0
	for i, l := range out.logs {
		head := l.ring.h.head.Load()
		changed = changed || s.tails[i] != head
		s.tails[i] = head
	}
	if !changed {
		return
	}
	s.length, s.done = 0, 0
	out.commit(&s)
}

// next makes a batch of what is in the rings. False: there is nothing.
func (out *Output) next(s *state) bool {
	b := out.m.batch()[:0]
	for i, l := range out.logs {
		b, s.tails[i] = l.ring.take(b, s.tails[i])
	}
	if len(b) == 0 {
		return false
	}
	s.length, s.done = uint64(len(b)), 0
	out.commit(s)
	return true
}

// commit notes s, and then lets the loops use again what has been taken from them.
func (out *Output) commit(s *state) {
	if s.done < s.length {
		s.dev, s.ino, s.base = out.file.dev, out.file.ino, out.file.size()
	}
	out.m.state().Commit(s, custody.StepBatch)
	for i, l := range out.logs {
		l.ring.h.tail.Store(s.tails[i])
	}
}

// settle appends what of the batch is not in the file yet.
func (out *Output) settle(s *state) error {
	if s.done == s.length {
		return nil
	}
	batch := out.m.batch()[:s.length]
	rest := batch[s.done:]
	switch same := s.dev == out.file.dev && s.ino == out.file.ino; {
	case !same:
		// Whatever part of a line is in the old file, the new one gets the line.
		s.done = uint64(bytes.LastIndexByte(batch[:s.done], '\n') + 1)
		rest = batch[s.done:]
		out.commit(s)
	case out.inherited:
		n := out.file.written(rest, s.base)
		s.done += uint64(n)
		rest = rest[n:]
		out.commit(s)
	}
	out.inherited = false
	for len(rest) > 0 {
		n, err := out.file.f.Write(rest)
		queue.Killpoint(custody.StepAppended)
		s.done += uint64(n)
		rest = rest[n:]
		if err != nil || n == 0 {
			out.commit(s)
			return fmt.Errorf("access log: %w", errors.Join(err, shortWrite(err)))
		}
	}
	lines := bytes.Count(batch, []byte("\n"))
	s.length, s.done = 0, 0
	out.commit(s)
	out.o.Written(lines)
	return nil
}

func shortWrite(err error) error {
	if err == nil {
		return errors.New("nothing can be written")
	}
	return nil
}

// report tells of a failure once, and of its end.
func (out *Output) report(err error) {
	if err == nil {
		if out.failed != "" {
			out.failed = ""
			out.trouble.Store(nil)
			out.o.Report(nil)
		}
		return
	}
	now := time.Now()
	out.retry = now.Add(retryAfter)
	if text := err.Error(); text != out.failed {
		since := now
		if before := out.trouble.Load(); before != nil {
			since = before.Since // it has another reason now
		}
		out.trouble.Store(&Trouble{since, err})
		out.failed = text
		out.o.Report(err)
	}
	out.o.Failed()
}
