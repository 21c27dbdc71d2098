package server

import (
	"path/filepath"
	"testing"
	"time"

	"trafficd/roles/server/accesslog"
	"trafficd/roles/server/cache"
	"trafficd/roles/server/disk"
)

// TestTroubles: what the status is told of the disk and of the access log.
func TestTroubles(t *testing.T) {
	s := newServer(1)
	if all := s.troubles(); len(all) != 0 {
		t.Errorf("of a server that stands by: %+v", all)
	}
	s.noDisk.Store(&disk.Trouble{Off: true, Reason: "no space"})
	if all := s.troubles(); len(all) != 0 {
		t.Errorf("before the cache is opened: %+v", all)
	}
	s.opened.Store(new(cache.Store))
	mem, err := accesslog.NewMemory(1)
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan struct{}, 100)
	out, err := accesslog.New(accesslog.Options{
		Loops: 1, Memory: mem, Self: func() (int, uint64) { return 1, 1 },
		Report: func(error) {}, Written: func(int) {}, Failed: func() { failed <- struct{}{} }, Dropped: func(int) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := out.Claim(); err != nil {
		t.Fatal(err)
	}
	s.accessLog.Store(out)
	path := filepath.Join(t.TempDir(), "missing", "log")
	out.Use(path)
	gone := make(chan struct{})
	close(gone)
	out.Start(gone)
	defer out.Close(t.Context())
	<-failed
	all := s.troubles()
	if len(all) != 2 || all[0].What != "cache on disk" || all[0].State != "off" || all[0].Reason != "no space" ||
		all[1].What != "access log" || all[1].State != "not written" || time.Since(all[1].Since) > time.Minute {
		t.Errorf("%+v", all)
	}
}
