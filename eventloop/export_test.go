package eventloop

import "time"

// Drive gives tests a loop with a clock of their own and no thread: Turn does what one
// turn of Run does with timers and posts.
type Drive struct {
	*Loop
	Time int64
}

// NewDrive makes such a loop at the given reading of its clock.
func NewDrive(at time.Duration) (*Drive, error) {
	l, err := New(Options{Name: "driven"})
	if err != nil {
		return nil, err
	}
	d := &Drive{Loop: l, Time: int64(at)}
	l.clock = func() int64 { return d.Time }
	l.running = true
	l.wheel.now = d.Time / int64(Tick)
	l.beginTurn()
	return d, nil
}

// Advance moves the clock and runs one turn.
func (d *Drive) Advance(by time.Duration) {
	d.Time += int64(by)
	d.Turn()
}

// Turn runs one turn without events.
func (d *Drive) Turn() {
	d.beginTurn()
	d.runPosts()
	d.runTimers()
	d.account()
}

// More reports whether due timers were left for the next turn.
func (d *Drive) More() bool { return d.more }

// Coarse makes the loop do without epoll_pwait2. Before Run.
func (l *Loop) Coarse() { l.epoll.coarse = true }

// Asleep reports whether the loop has announced that it sleeps.
func (l *Loop) Asleep() bool { return l.waker.state.Load() == asleep }

// StepWall makes the wall clock of d stand a number of ns ahead of its monotonic one; the number may be changed.
func StepWall(d *Drive, ahead int64) *int64 {
	d.epoch = func() int64 { return ahead }
	return &ahead
}

// Sleep has the loop of d sleep, as at the end of a turn, and reports whether it did.
func Sleep(d *Drive, limit time.Duration) bool {
	before := d.sleeps
	if _, err := d.sleep(limit); err != nil {
		panic(err)
	}
	return d.sleeps > before
}

// UntilNext returns how long the loop of d would sleep now.
func UntilNext(d *Drive) time.Duration { return d.untilNext() }
