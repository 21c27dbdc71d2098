package manager

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"trafficd/proc"
	"trafficd/roles/internal/cacheview"
	"trafficd/roles/internal/config"
	"trafficd/roles/internal/heritage"
	"trafficd/roles/internal/link"
	"trafficd/roles/internal/program"
	"trafficd/roles/internal/supervise"
)

// world is a manager among processes and links that are not real, on a clock that is not
// real: a story runs in a synctest bubble, in which time passes when everybody waits.
// Listeners and shared memory are real.
type world struct {
	t *testing.T
	m *manager

	mu       sync.Mutex
	log      lines
	pids     int
	servers  []*fakeProcess // in the order they were started
	cops     []*fakeProcess
	cop      int // holder of cop.lock
	holder   int // of server.lock
	config   string
	custody  bool
	upgraded []program.Step
	saved    []*config.Config
	over     chan struct{}
	signals  chan os.Signal
}

// story runs f with a manager that has begun to run with a configuration file.
func story(t *testing.T, file string, f func(w *world)) {
	t.Helper()
	storyWith(t, file, false, f)
}

// custodyStory is a story with custody in force: a standby is always kept.
func custodyStory(t *testing.T, file string, f func(w *world)) {
	t.Helper()
	storyWith(t, file, true, f)
}

func storyWith(t *testing.T, file string, custody bool, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, pids: 100, config: file, over: make(chan struct{}), signals: make(chan os.Signal), custody: custody}
		es, err := newEstate(heritage.New())
		if err != nil {
			t.Fatal(err)
		}
		cfg, err := w.load()
		if err != nil {
			t.Fatal(err)
		}
		w.cop = 50
		w.m = newManager(w.env(), zerolog.New(&w.log), birth{id: proc.Identity{PID: 60}, generation: 1}, cfg.WithGeneration(1), es)
		w.m.program = &program.Program{Path: "/old", ID: "old"}
		if err := w.m.provide(); err != nil {
			t.Fatal(err)
		}
		go func() {
			defer close(w.over)
			w.m.run(context.Background(), w.signals)
		}()
		defer w.end()
		synctest.Wait()
		f(w)
	})
}

// reborn has the manager die, and another one find what there is: serves holds server.lock, nil: nobody does.
func (w *world) reborn(serves *fakeProcess) {
	w.t.Helper()
	w.m.post(func() { w.m.stop(leaving) }) // which does nothing to anybody, like a death
	<-w.over
	old := w.m
	set, err := old.estate.set.Dup() // as cop holds it
	if err != nil {
		w.t.Fatal(err)
	}
	if err := old.estate.close(); err != nil {
		w.t.Error(err)
	}
	es, err := newEstate(set)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, p := range w.servers { // which have no start time here, without which nobody is met
		if b := es.region.Bank(p.generation); b.Generation() == p.generation && !p.dead() {
			b.Enter(p.pid, 1)
		}
	}
	w.m = newManager(w.env(), zerolog.New(&w.log), birth{id: proc.Identity{PID: 61}, generation: 2}, old.cfg, es)
	w.m.program = old.program
	if serves != nil {
		serves.adopted = true
		w.m.takeServer(serves)
	}
	w.m.meetStandbys()
	if err := w.m.provide(); err != nil {
		w.t.Error(err)
	}
	w.over = make(chan struct{})
	go func() {
		defer close(w.over)
		w.m.run(context.Background(), w.signals)
	}()
	synctest.Wait()
}

const listen = "listen: ['127.0.0.1:0']\nautoconf: {listen: 'off'}\n"

// end stops the manager if the story has not, and lets every process die.
func (w *world) end() {
	w.m.post(func() { w.m.stop(stopping) })
	w.mu.Lock()
	all := slices.Concat(w.servers, w.cops)
	w.mu.Unlock()
	for _, p := range all {
		p.die(supervise.Status{Known: true})
	}
	<-w.over
	if err := w.m.estate.close(); err != nil {
		w.t.Error(err)
	}
	w.m.estate.region.Close()
}

func (w *world) load() (*config.Config, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return config.Load(config.Sources{Flags: config.Overrides{Config: "trafficd.yaml"}, Data: []byte(listen + w.config),
		Env: []string{"TRAFFICD_CACHE_SIZE=4MiB", "TRAFFICD_CUSTODY_ENABLED=" + strconv.FormatBool(w.custody)}})
}

func (w *world) write(file string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.config = file
}

func (w *world) env() env {
	locked := func(f func()) {
		w.mu.Lock()
		defer w.mu.Unlock()
		f()
	}
	return env{
		now: time.Now,
		start: func(x *program.Program, generation uint64, h *heritage.Set) (p process, err error) {
			locked(func() {
				s := w.process()
				s.generation, s.inherited, s.program = generation, h.Names(), x
				w.servers = append(w.servers, s)
				p = s
			})
			return p, nil
		},
		adopt: func(pid int, _ uint64, _ bool) (p process, err error) {
			locked(func() {
				for _, s := range w.servers {
					switch {
					case s.pid != pid:
					case s.dead():
						err = supervise.ErrGone
						return
					default:
						s.adopted = true
						p = s
						return
					}
				}
				s := w.process()
				s.pid, s.adopted = pid, true
				w.servers = append(w.servers, s)
				p = s
			})
			return p, err
		},
		holder: func() (pid int) { locked(func() { pid = w.holder }); return pid },
		gate: supervise.GateEnv{
			Holder:  func(supervise.Role) (pid int, err error) { locked(func() { pid = w.holder }); return pid, nil },
			Inspect: w.inspect,
		},
		load: w.load,
		save: func(c *config.Config) error { locked(func() { w.saved = append(w.saved, c) }); return nil },
		tune: func(*config.Config) {},
		open: func(path, id string) (*program.Program, error) { return &program.Program{Path: path, ID: id}, nil },
		try: func(_ context.Context, path string) (*program.Program, error) {
			return &program.Program{Path: path, ID: "new"}, nil
		},
		rotate: func() error { return nil },
		copHolder: func() (pid int, held bool) {
			locked(func() { pid, held = w.cop, w.cop != 0 })
			return pid, held
		},
		copStart: func(uint64, *heritage.Set) (p process, err error) {
			locked(func() {
				c := w.process()
				w.cops = append(w.cops, c)
				w.cop = c.pid
				p = c
			})
			return p, nil
		},
		copAdopt: func(pid int, _ uint64) (p process, err error) {
			locked(func() {
				c := w.process()
				c.pid = pid
				w.cops = append(w.cops, c)
				p = c
			})
			return p, nil
		},
	}
}

func (w *world) inspect(pid int) (supervise.Identity, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.servers {
		if p.pid == pid && !p.dead() {
			return supervise.Identity{PID: pid}, nil
		}
	}
	return supervise.Identity{}, supervise.ErrGone
}

// on runs f on the manager's loop.
func (w *world) on(f func()) {
	w.t.Helper()
	if !w.m.do(context.Background(), f) {
		w.t.Fatal("the manager's loop has ended")
	}
}

// server is the n-th server that was started, from 1; it fails if there is no such, or a later one.
func (w *world) server(n int) *fakeProcess {
	w.t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.servers) != n {
		w.t.Fatalf("%d servers were started, want %d\n%s", len(w.servers), n, w.log.String())
	}
	return w.servers[n-1]
}

// state is the server as status shows it.
func (w *world) state() (state string, pid int) {
	w.t.Helper()
	synctest.Wait()
	w.on(func() {
		s := w.m.status()
		state, pid = s.Server.State, s.Server.PID
	})
	return state, pid
}

func (w *world) expect(state string, p *fakeProcess) {
	w.t.Helper()
	pid := 0
	if p != nil {
		pid = p.pid
	}
	if got, gotPID := w.state(); got != state || gotPID != pid {
		w.t.Fatalf("server %d is %s, want %d %s\n%s", gotPID, got, pid, state, w.log.String())
	}
}

// lines is a log.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// fakeProcess is a server or a cop, with its end of the link.
type fakeProcess struct {
	w          *world
	pid        int
	generation uint64
	inherited  []string
	program    *program.Program
	adopted    bool
	journal    uint64 // 0: it has no custody
	took       bool
	leaves     bool // it was asked to end by somebody else

	ready, done chan struct{}
	once        sync.Once
	status      supervise.Status // valid when done
	deaf        atomic.Bool      // takes no notice of TERM and "stop"

	mu      sync.Mutex
	asked   []string // ops called, in order
	answers map[string]error
	bodies  map[string]json.RawMessage
	hello   link.Hello
	cache   func(cacheview.Question) cacheview.Answer // nil: it answers nothing
}

// process makes one; w.mu is held.
func (w *world) process() *fakeProcess {
	w.pids++
	return &fakeProcess{w: w, pid: w.pids, ready: make(chan struct{}), done: make(chan struct{}), answers: map[string]error{}, bodies: map[string]json.RawMessage{}}
}

func (p *fakeProcess) PID() int               { return p.pid }
func (p *fakeProcess) Ready() <-chan struct{} { return p.ready }
func (p *fakeProcess) Done() <-chan struct{}  { return p.done }
func (p *fakeProcess) Refusal() error         { return nil }
func (p *fakeProcess) Status() supervise.Status {
	<-p.done
	return p.status
}
func (p *fakeProcess) Release() {}

func (p *fakeProcess) dead() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *fakeProcess) die(s supervise.Status) {
	p.once.Do(func() {
		p.status = s
		close(p.done)
	})
}

// killed is how a process ends that somebody killed.
var killed = supervise.Status{Known: true, Signal: syscall.SIGKILL}

// exe is what the process runs, as its program says.
func (p *fakeProcess) exe() string {
	if p.program == nil {
		return ""
	}
	return p.program.ID
}

func (p *fakeProcess) Target() supervise.Target {
	return supervise.Target{
		Role: supervise.Server, Known: supervise.Identity{PID: p.pid, Exe: p.exe()}, Child: !p.adopted, Vouched: p.adopted,
		Terminate: func(ctx context.Context, e supervise.Escalation) error {
			if e.Grace > 0 && !p.deaf.Load() {
				p.die(supervise.Status{Known: true})
			}
			t := time.NewTimer(e.Grace)
			defer t.Stop()
			select {
			case <-p.done:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			case <-t.C:
				p.die(killed)
				return nil
			}
		},
	}
}

// Hello, Call and Emit make the process a line.
func (p *fakeProcess) Hello() link.Hello { return p.hello }

func (p *fakeProcess) Call(ctx context.Context, op string, body any, _ ...int) (*link.Message, error) {
	if s, ok := body.(program.Step); ok {
		p.w.mu.Lock()
		p.w.upgraded = append(p.w.upgraded, s)
		p.w.mu.Unlock()
	}
	p.mu.Lock()
	p.asked = append(p.asked, op)
	err, cache, said := p.answers[op], p.cache, p.bodies[op]
	p.mu.Unlock()
	if p.dead() {
		err = io.EOF
	}
	if err != nil {
		return nil, err
	}
	if op == opStop && !p.deaf.Load() {
		p.die(supervise.Status{Known: true})
	}
	if q, ok := body.(cacheview.Question); ok && cache != nil {
		b, err := json.Marshal(cache(q))
		return &link.Message{Body: b}, err
	}
	return &link.Message{Body: said}, ctx.Err()
}

func (p *fakeProcess) Emit(op string, _ any, _ ...int) error {
	_, err := p.Call(context.Background(), op, nil)
	return err
}

func (p *fakeProcess) wasAsked(op string) int {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, a := range p.asked {
		if a == op {
			n++
		}
	}
	return n
}

func (p *fakeProcess) refuses(op string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answers[op] = err
}

// answersWith makes text the body of the answers to op.
func (p *fakeProcess) answersWith(op, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bodies[op] = json.RawMessage(text)
}

// stands takes a server from its start to where it stands by.
func (p *fakeProcess) stands() {
	p.w.t.Helper()
	p.w.on(func() { p.journal = p.w.m.estate.journal() })
	p.dials("standby")
}

// makesWayFor has a server that was asked to yield end, and its standby take over.
func (p *fakeProcess) makesWayFor(next *fakeProcess) {
	p.w.t.Helper()
	p.die(supervise.Status{Known: true})
	synctest.Wait()
	next.takesOver()
}

// takesOver has a standby act on the death of the server: it takes the lock, says so, and
// serves when it is told to. Nobody has to have noticed that death.
func (p *fakeProcess) takesOver() {
	p.w.t.Helper()
	p.locks()
	p.took = true
	select {
	case err := <-p.asksTurn():
		if err != nil {
			p.w.t.Fatalf("server %d is not let go: %v", p.pid, err)
		}
	default:
		p.w.t.Fatalf("server %d has taken over and has no turn\n%s", p.pid, p.w.log.String())
	}
	p.says("ready")
	p.w.expect("ready", p)
}

// dials has the process say hello as a server in a state.
func (p *fakeProcess) dials(state string) {
	p.w.t.Helper()
	p.hello = link.Hello{Role: roleServer, PID: p.pid, Generation: p.generation, State: state, Journal: p.journal, Leaves: p.leaves}
	p.w.on(func() { p.w.m.connected(p) })
	synctest.Wait()
}

// says has the process say its state.
func (p *fakeProcess) says(state string) {
	p.w.t.Helper()
	p.w.on(func() {
		if u := p.w.m.byLine(p); u != nil {
			p.w.m.saysState(u, state)
		}
	})
	synctest.Wait()
}

// asksTurn has the process say that it is ready to serve; the answer comes on the channel.
func (p *fakeProcess) asksTurn() <-chan error {
	p.w.t.Helper()
	turn := make(chan error, 1)
	p.w.on(func() {
		p.w.m.saysReady(p, readyBody{p.generation, p.took, p.journal}, func(err error) { turn <- err })
	})
	synctest.Wait()
	return turn
}

// serves takes a server from its start to where it serves.
func (p *fakeProcess) serves() {
	p.w.t.Helper()
	p.dials("starting")
	select {
	case err := <-p.asksTurn():
		if err != nil {
			p.w.t.Fatalf("server %d is not let go: %v", p.pid, err)
		}
	default:
		p.w.t.Fatalf("server %d has no turn\n%s", p.pid, p.w.log.String())
	}
	p.locks()
	p.says("ready")
	p.w.expect("ready", p)
}

// locks has the process hold server.lock.
func (p *fakeProcess) locks() {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	p.w.holder = p.pid
}

// copDials has a cop say hello.
func (w *world) copDials(pid int) *fakeProcess {
	w.t.Helper()
	w.mu.Lock()
	c := w.process()
	c.pid = pid
	w.cop = pid
	w.mu.Unlock()
	c.hello = link.Hello{Role: roleCop, PID: pid, Generation: 1}
	w.on(func() { w.m.connected(c) })
	synctest.Wait()
	return c
}

var errNo = errors.New("no")

// journal tells the estate's journal from any other.
func (w *world) journal() (j uint64) {
	w.t.Helper()
	w.on(func() { j = w.m.estate.journal() })
	return j
}
