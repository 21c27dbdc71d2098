package server

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"trafficd/roles/internal/config"
	"trafficd/roles/internal/logging"
	"trafficd/roles/internal/runroot"
)

func diskConfig(path string, size int64) *config.Config {
	c := config.Default()
	c.Cache.DiskPath, c.Cache.DiskSize = path, size
	return c
}

func TestDiskDir(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", "/home/x/.cache")
	usual := "/home/x/.cache/trafficd"
	if os.Geteuid() == 0 {
		usual = "/var/cache/trafficd"
	}
	none := diskConfig("", 1<<30)
	none.Cache.Size = 0
	for _, c := range []struct {
		root     string
		config   *config.Config
		want     string
		explicit bool
	}{
		{"/tmp/x", diskConfig("", 1<<30), "/tmp/x/cache", false},
		{runroot.Default(), diskConfig("", 1<<30), usual, false},
		{"/tmp/x", diskConfig("/data/c", 1<<30), "/data/c", true},
		{"/tmp/x", diskConfig(config.Off, 1<<30), "", false},
		{"/tmp/x", diskConfig("/data/c", 0), "", false},
		{"/tmp/x", none, "", false},
	} {
		root, err := runroot.Open(c.root)
		if err != nil {
			t.Fatal(err)
		}
		if dir, explicit := diskDir(c.config, root); dir != c.want || explicit != c.explicit {
			t.Errorf("root %s, path %q: %q %v, want %q %v", c.root, c.config.Cache.DiskPath, dir, explicit, c.want, c.explicit)
		}
	}
}

// TestDiskSize: a file system is not filled up unless that was asked for.
func TestDiskSize(t *testing.T) {
	log, err := logging.New(logging.Options{Role: "server", Level: "error"})
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(1)
	s.log = log
	dir := filepath.Join(t.TempDir(), "not", "yet")
	var st unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(filepath.Dir(dir)), &st); err != nil {
		t.Fatal(err)
	}
	if st.Type == tmpfsMagic {
		if size, _ := s.diskSize(diskConfig("", 64<<20), dir, false); size != 0 {
			t.Errorf("%d bytes in memory", size)
		}
		return
	}
	free := int64(st.Bavail) * st.Bsize
	if size, keep := s.diskSize(diskConfig("", 8<<20), dir, false); size != 8<<20 || keep {
		t.Errorf("%d %v, want what is configured", size, keep)
	}
	if size, _ := s.diskSize(diskConfig("", 2*free), dir, false); size > free*3/4 || size < free/4 {
		t.Errorf("%d, want half of %d", size, free)
	}
	if size, _ := s.diskSize(diskConfig(dir, 2*free), dir, true); size != 2*free {
		t.Errorf("%d, want what was asked for", size)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "store"), make([]byte, 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, keep := s.diskSize(diskConfig("", 2*free), dir, false); !keep {
		t.Error("what is there is not kept")
	}
}
