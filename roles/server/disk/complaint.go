package disk

import (
	"fmt"
	"sync"
	"time"
)

// A disk that fails does so with every request: each failure is counted, and of each act one line is logged at once and then one
// every complainEvery at most, which says how many there were.
const complainEvery = 10 * time.Second

// failingFor is how long after a failure a store is said to fail: longer than its writer pauses.
const failingFor = pauseMax + pauseMax/2

// complaints are the failures of a store.
type complaints struct {
	mu    sync.Mutex // guards all
	acts  map[string]*complaint
	since time.Time // the first of those that follow each other
	last  time.Time
	what  string // the last one
}

// complaint is the failures of one act.
type complaint struct {
	act    string
	err    error     // the last one
	unsaid int       // failures that no line tells of yet
	next   time.Time // when there may be a line again
}

// note takes a failure in. What it returns is to be logged.
func (c *complaints) note(now time.Time, act string, err error) []complaint {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.acts == nil {
		c.acts = map[string]*complaint{}
	}
	a := c.acts[act]
	if a == nil {
		a = &complaint{act: act}
		c.acts[act] = a
	}
	a.err = err
	a.unsaid++
	if now.Sub(c.last) > failingFor {
		c.since = now
	}
	c.last, c.what = now, fmt.Sprintf("%s: %v", act, err)
	return c.dueLocked(now)
}

// due is what is to be logged now.
func (c *complaints) due(now time.Time) []complaint {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dueLocked(now)
}

func (c *complaints) dueLocked(now time.Time) (lines []complaint) {
	for _, a := range c.acts {
		if a.unsaid == 0 || now.Before(a.next) {
			continue
		}
		lines = append(lines, *a)
		a.unsaid, a.next = 0, now.Add(complainEvery)
	}
	return lines
}

// trouble is what the failures of late amount to; nil for nothing.
func (c *complaints) trouble(now time.Time) *Trouble {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last.IsZero() || now.Sub(c.last) > failingFor {
		return nil
	}
	return &Trouble{Since: c.since, Reason: c.what}
}
