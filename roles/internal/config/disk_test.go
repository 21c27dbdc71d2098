package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"trafficd/roles/internal/exitcode"
)

// TestCheckDisk: a path that cannot be made is refused where it was written, and one that can be made is not made by that.
func TestCheckDisk(t *testing.T) {
	base := t.TempDir()
	file := filepath.Join(base, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ path, want string }{
		{base, ""},
		{filepath.Join(base, "a", "b", "c"), ""},
		{Off, ""},
		{file, "not a directory"},
		{filepath.Join(file, "below"), "not a directory"},
		{"/proc/foo", "no such file or directory"},
	} {
		cfg, err := Load(Sources{
			Flags: Overrides{Config: "trafficd.yaml"}, Data: []byte("cache:\n  disk_path: " + c.path + "\n"),
		})
		if err != nil {
			t.Fatal(err)
		}
		err = cfg.CheckDisk()
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.path, err)
		case c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), "trafficd.yaml:2:14: cache.disk_path: cannot make ") ||
			!strings.Contains(err.Error(), c.want) || exitcode.Of(err) != exitcode.Config):
			t.Errorf("%s: %v", c.path, err)
		}
	}
	if left, _ := os.ReadDir(base); len(left) != 1 {
		t.Errorf("the check has left %v", left)
	}
	none := Default()
	none.Cache.DiskPath, none.Cache.DiskSize = "/proc/foo", 0
	if err := none.CheckDisk(); err != nil {
		t.Errorf("a path that nobody uses is refused: %v", err)
	}
}
