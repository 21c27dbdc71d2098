// Package custodytest makes journals for the tests of those who note something in them.
package custodytest

import (
	"testing"

	"golang.org/x/sys/unix"

	"trafficd/queue"
	"trafficd/roles/server/buffer"
)

// Journal makes a journal of one loop, with so many slots and a pool for these pages. It is closed behind the test, after
// what is cleaned up by those who were given it.
func Journal(t testing.TB, slots int, pages buffer.Shape) *queue.Journal {
	t.Helper()
	fd, err := queue.NewJournal(queue.Geometry{Loops: 1, Slots: slots, Pool: (pages.Size() + 4095) &^ 4095})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	j, err := queue.OpenJournal(fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}
