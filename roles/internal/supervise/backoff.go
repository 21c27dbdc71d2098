package supervise

import "time"

// BackoffPolicy is how patiently a process is started again. The zero value of
// each field takes the default named at it.
type BackoffPolicy struct {
	Budget    int           // immediate restarts allowed within Window; default 30, negative: none
	External  int           // the same for deaths that came from outside; default 20 times Budget, negative: none
	Window    time.Duration // default 1 minute
	First     time.Duration // first delay; default 1 s
	Max       time.Duration // no delay is longer, jitter included; default 60 s
	Sustained time.Duration // ready for this long takes the delay back to First; default 60 s
	// Jitter returns a number in [0,1): how much of half the delay is added. Nodes
	// that died together must not come back in step. Nil: no jitter.
	Jitter func() float64
}

func (p BackoffPolicy) withDefaults() BackoffPolicy {
	if p.Budget == 0 {
		p.Budget = 30
	}
	if p.External == 0 {
		p.External = max(20*p.Budget, -1)
	}
	if p.Window <= 0 {
		p.Window = time.Minute
	}
	if p.First <= 0 {
		p.First = time.Second
	}
	if p.Max <= 0 {
		p.Max = 60 * time.Second
	}
	if p.Sustained <= 0 {
		p.Sustained = 60 * time.Second
	}
	return p
}

// Backoff says how long to wait before a dead process is started again.
//
// A process that had been ready is replaced at once: most likely something outside
// killed it, and every second without it is a second of queueing. That is paid from
// a budget, so that one which becomes ready and crashes in a loop is not respawned
// for ever at full speed. Whatever dies before it is ready, or finds the budget
// empty, waits 1, 2, 4 … 60 s.
//
// A death from outside (DiedOutside: a SIGKILL that was not ours) says nothing about
// the process, and delays nothing that could be helped by waiting: it has a budget of
// its own, which only a machine that cannot keep a process alive uses up. So a storm of
// a hundred kills a minute does not leave clients without a server, and a program that
// crashes by itself is still slowed down after 30.
//
// Only sustained readiness takes the delay back. The original reset it whenever the
// fork succeeded and so never backed off (apache/trafficserver PR #2485).
//
// Owned by one goroutine.
type Backoff struct {
	policy BackoffPolicy
	spent  []time.Time // immediate restarts within the window, oldest first
	outer  []time.Time // the same, after deaths from outside
	step   uint        // delays given since the last sustained readiness
}

// NewBackoff returns a Backoff that has seen nothing yet.
func NewBackoff(p BackoffPolicy) *Backoff {
	return &Backoff{policy: p.withDefaults()}
}

// SetPolicy changes the policy and keeps what was seen: the configuration was reloaded.
func (b *Backoff) SetPolicy(p BackoffPolicy) { b.policy = p.withDefaults() }

// Died returns the delay before the next start of a process that died at now.
// readyFor is how long it had been ready; zero if it never was.
func (b *Backoff) Died(now time.Time, readyFor time.Duration) time.Duration {
	if readyFor >= b.policy.Sustained {
		b.step = 0
	}
	if readyFor > 0 && b.spend(&b.spent, b.policy.Budget, now) {
		return 0
	}
	return b.delay()
}

// DiedOutside is Died for a process that somebody else killed.
func (b *Backoff) DiedOutside(now time.Time, readyFor time.Duration) time.Duration {
	if readyFor >= b.policy.Sustained {
		b.step = 0
	}
	if readyFor > 0 && b.spend(&b.outer, b.policy.External, now) {
		return 0
	}
	return b.delay()
}

// Step returns how many delays in a row were given: 0 means that the next failure
// waits First.
func (b *Backoff) Step() int { return int(b.step) }

// Reset forgets every failure and restart: the operator asked for a start.
func (b *Backoff) Reset() { b.step, b.spent, b.outer = 0, b.spent[:0], b.outer[:0] }

// spend takes one immediate restart from a budget, if there is one.
func (b *Backoff) spend(spent *[]time.Time, budget int, now time.Time) bool {
	keep := (*spent)[:0]
	for _, t := range *spent {
		if now.Sub(t) < b.policy.Window {
			keep = append(keep, t)
		}
	}
	*spent = keep
	if len(keep) >= budget {
		return false
	}
	*spent = append(keep, now)
	return true
}

func (b *Backoff) delay() time.Duration {
	d := b.policy.Max
	// Past 2^30 of any First the delay is long at Max; the shift must not overflow.
	if b.step < 30 && b.policy.First<<b.step < d {
		d = b.policy.First << b.step
		b.step++
	}
	if b.policy.Jitter != nil {
		d += time.Duration(b.policy.Jitter() * float64(d) / 2)
	}
	return min(d, b.policy.Max)
}
