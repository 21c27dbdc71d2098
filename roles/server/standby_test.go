package server

import (
	"errors"
	"testing"

	"trafficd/roles/internal/runroot"
)

// Whether a standby is told to go or takes over first, it does only the one: a server that has the lock has the connections,
// and one that is about to end takes no lock.
func TestStandbyEndsOrTakesOver(t *testing.T) {
	standby := func(t *testing.T) *Server {
		root, err := runroot.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		s := newServer(1)
		s.root = root
		return s
	}
	t.Run("told first", func(t *testing.T) {
		s := standby(t)
		if err := s.discard(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.takeLock(); !errors.Is(err, errEnding) || !free(s.root.ServerLock()) {
			t.Errorf("it takes the lock: %v", err)
		}
		<-s.stop
	})
	t.Run("a signal first", func(t *testing.T) {
		s := standby(t)
		if s.hello().Leaves {
			t.Error("it says that it leaves")
		}
		s.shutdown(false)
		if !s.hello().Leaves {
			t.Error("it does not say that it leaves")
		}
		if _, err := s.takeLock(); !errors.Is(err, errEnding) {
			t.Errorf("it takes the lock: %v", err)
		}
	})
	t.Run("taken over first", func(t *testing.T) {
		s := standby(t)
		lock, err := s.takeLock()
		if err != nil {
			t.Fatal(err)
		}
		defer lock.Release()
		if err := s.discard(); err == nil {
			t.Error("it goes, with all connections")
		}
		select {
		case <-s.stop:
			t.Error("it ends")
		default:
		}
	})
}
