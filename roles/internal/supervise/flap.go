package supervise

import "time"

// FlapPolicy is when a failing manager is held. The zero value of each field takes
// the original's number, named at it.
type FlapPolicy struct {
	Starts int           // failed starts within Window that trip the hold; default 3
	Window time.Duration // default 60 s
	Hold   time.Duration // default 60 s
}

func (p FlapPolicy) withDefaults() FlapPolicy {
	if p.Starts <= 0 {
		p.Starts = 3
	}
	if p.Window <= 0 {
		p.Window = 60 * time.Second
	}
	if p.Hold <= 0 {
		p.Hold = 60 * time.Second
	}
	return p
}

// Flap is the original's flap control: after three failed starts within 60 s the
// manager is left alone for 60 s.
//
// The original held without looking at who was waiting. Here a hold is for a manager
// that fails while a server goes on serving. With no server at all the back-off
// decides, so that clients never wait longer for flap control's sake.
//
// Owned by one goroutine.
type Flap struct {
	policy FlapPolicy
	failed []time.Time // failed starts within the window, oldest first
	until  time.Time   // end of the hold; zero: none
}

// NewFlap returns a Flap that has seen nothing yet.
func NewFlap(p FlapPolicy) *Flap { return &Flap{policy: p.withDefaults()} }

// SetPolicy changes the policy and keeps what was seen. A hold that has begun goes on.
func (f *Flap) SetPolicy(p FlapPolicy) { f.policy = p.withDefaults() }

// Failed records a manager that died before it was ready, and reports whether this
// one tripped a hold. Tripping forgets the failures that led to it, as the original
// did: after the hold three new ones are needed.
func (f *Flap) Failed(now time.Time) (tripped bool) {
	keep := f.failed[:0]
	for _, t := range f.failed {
		if now.Sub(t) < f.policy.Window {
			keep = append(keep, t)
		}
	}
	f.failed = append(keep, now)
	if len(f.failed) < f.policy.Starts {
		return false
	}
	f.failed = f.failed[:0]
	f.until = now.Add(f.policy.Hold)
	return true
}

// Held returns how much of the hold is left at now; zero: no hold.
func (f *Flap) Held(now time.Time) time.Duration {
	return max(0, f.until.Sub(now))
}

// Delay returns how long to wait before the next start: the back-off's delay, or the
// rest of the hold if that is longer and a server is up to serve the clients meanwhile.
func (f *Flap) Delay(now time.Time, backoff time.Duration, serverUp bool) time.Duration {
	if !serverUp {
		return backoff
	}
	return max(backoff, f.Held(now))
}

// Reset ends a hold and forgets every failure: the operator asked for a start.
func (f *Flap) Reset() { f.failed, f.until = f.failed[:0], time.Time{} }
