package transaction

import (
	"trafficd/eventloop"
	"trafficd/roles/internal/stats"
	"trafficd/roles/server/cache"
	"trafficd/roles/server/disk"
)

// Disk is the tier below memory. What it has is brought into memory before it is looked at; meanwhile the
// transaction waits, like for a fetch. Nothing of that is noted for a successor: there is no reply yet, so the request begins
// anew there.
type Disk interface {
	// Has reports whether a response for k may be there. It reads memory only.
	Has(k cache.Key) bool
	// Load brings it into memory and then tells w, from any goroutine. False: w is not told.
	Load(k cache.Key, w disk.Waiter) bool
}

// A load is a transaction's wait for the disk. It outlives the transaction, which then takes itself out.
type load struct {
	t    *Transaction // nil: nobody waits any more; the loop's
	loop *eventloop.Loop
	some bool // something has been brought; the disk's until the task is posted
}

// Loaded implements disk.Waiter.
func (l *load) Loaded(some bool) {
	l.some = some
	l.loop.PostTask(l)
}

// RunTask implements eventloop.Task: memory is looked at again.
func (l *load) RunTask() {
	t := l.t
	if t == nil {
		return
	}
	t.load = nil
	t.looks--
	if l.some && t.loads < maxLoads {
		t.asked = false // it may be out of memory again by now
	}
	t.on(evAgain)
}

// maxLoads bounds how often a request has the disk asked.
const maxLoads = 3

// askDisk has what memory does not have brought there. It reports whether to wait for that.
func (t *Transaction) askDisk() bool {
	d := t.env.Disk
	if d == nil || t.asked {
		return false
	}
	t.asked = true
	if !d.Has(t.key) {
		t.env.Stats.Inc(stats.DiskMisses)
		return false
	}
	l := &load{t: t, loop: t.env.Loop}
	if !d.Load(t.key, l) {
		return false
	}
	t.load = l
	t.loads++
	t.on(evFetch)
	return true
}
