package eventloop

import (
	"math"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A clock reads CLOCK_MONOTONIC by way of package time.
//
// time.Since costs one vDSO call and no system call, but counts from the start of the
// process. Readings that lie in shared memory are compared by other processes, so the
// distance to the kernel's own zero is measured once and added. It is off by less than
// the width of the narrowest of a few readings, which is far below a tick.
type clock struct {
	base time.Time // immutable
	zero int64     // immutable: CLOCK_MONOTONIC at base, in ns
}

// processClock is shared by all loops, so that their readings are comparable to the ns.
var processClock = sync.OnceValue(newClock)

func newClock() *clock {
	c := &clock{base: time.Now()}
	narrowest := int64(math.MaxInt64)
	for range 8 {
		var ts unix.Timespec
		before := int64(time.Since(c.base))
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
			panic("eventloop: read CLOCK_MONOTONIC: " + err.Error())
		}
		after := int64(time.Since(c.base))
		if after-before < narrowest {
			narrowest = after - before
			c.zero = ts.Nano() - before - (after-before)/2
		}
	}
	return c
}

// monotonic returns ns of CLOCK_MONOTONIC.
func (c *clock) monotonic() int64 { return int64(time.Since(c.base)) + c.zero }

// epoch returns what must be added to monotonic to get Unix time, in ns. It takes both
// from one time.Now, so a preemption between two readings cannot skew it.
func (c *clock) epoch() int64 {
	t := time.Now()
	return t.UnixNano() - (int64(t.Sub(c.base)) + c.zero)
}
