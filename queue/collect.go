package queue

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Collect moves connections from the kernel's queues into the FIFO until they
// are empty, the FIFO is full or most have been moved, and returns how many
// were. It goes round the listeners taking one of each, so that order is kept
// within a listener exactly, and between listeners to within a round.
//
// A connection is put into the FIFO right after it was accepted, one by one:
// for the few microseconds in between this process alone holds it, and would
// take it along if it were killed. Before accepting, room is made sure of; if
// the kernel refuses all the same (descriptors in flight), the connection is
// handed to overflow, which owns it then, and Collect returns ErrFull.
func Collect(f *FIFO, listeners []*Listener, most int, overflow func(fd int)) (moved int, err error) {
	waiting := append([]*Listener(nil), listeners...)
	for len(waiting) > 0 && moved < most {
		still := waiting[:0]
		for _, l := range waiting {
			if moved == most {
				return moved, nil
			}
			took, err := collectOne(f, l, overflow)
			if err != nil {
				return moved, err
			}
			if took {
				moved++
				still = append(still, l)
			}
		}
		waiting = still
	}
	return moved, nil
}

func collectOne(f *FIFO, l *Listener, overflow func(fd int)) (took bool, err error) {
	if err := f.reserve(); err != nil {
		return false, err
	}
	fd, err := l.Accept()
	if errors.Is(err, ErrEmpty) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	err = f.Put(fd, Entry{Listener: l.ID()})
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, ErrFull):
		overflow(fd)
	default:
		unix.Close(fd)
	}
	return false, fmt.Errorf("collect from %s: %w", l.Name(), err)
}
