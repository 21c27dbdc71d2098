//go:build race || invariants

package eventloop

import (
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// An owner knows the thread that a loop runs on, and panics when another does what only
// that thread may. Before Run and after it, there is no thread to compare with.
type owner struct {
	thread atomic.Int64 // 0: none
}

func (o *owner) enter() { o.thread.Store(int64(unix.Gettid())) }

func (o *owner) leave() { o.thread.Store(0) }

// checkOwner panics if the caller is on a thread other than the loop's.
func (l *Loop) checkOwner(method string) {
	if l == nil {
		return // a timer before its Init
	}
	owner := l.owner.thread.Load()
	if caller := int64(unix.Gettid()); owner != 0 && owner != caller {
		panic(fmt.Sprintf("eventloop: %s of loop %q on thread %d, which belongs to thread %d; use Post", method, l.name, caller, owner))
	}
}
