package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"trafficd/roles/internal/exitcode"
)

// TestCheckPaths: a path that cannot be made is refused where it was written, and one that can be made is not made by that.
func TestCheckPaths(t *testing.T) {
	base := t.TempDir()
	file := filepath.Join(base, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const disk, log = "cache:\n  disk_path: ", "access_log:\n  path: "
	const cannotMake, cannotWrite = "trafficd.yaml:2:14: cache.disk_path: cannot make ", "trafficd.yaml:2:9: access_log.path: cannot write "
	for _, c := range []struct{ setting, path, says, want string }{
		{disk, base, "", ""},
		{disk, filepath.Join(base, "a", "b", "c"), "", ""},
		{disk, Off, "", ""},
		{disk, file, cannotMake, "not a directory"},
		{disk, filepath.Join(file, "below"), cannotMake, "not a directory"},
		{disk, "/proc/foo", cannotMake, "no such file or directory"},
		{log, file, "", ""},
		{log, filepath.Join(base, "access.log"), "", ""},
		{log, "/dev/null", "", ""},
		{log, base, cannotWrite, "is a directory"},
		{log, filepath.Join(base, "a", "access.log"), cannotWrite, "no such file or directory"},
		{log, filepath.Join(file, "access.log"), cannotWrite, "not a directory"},
	} {
		cfg, err := Load(Sources{Flags: Overrides{Config: "trafficd.yaml"}, Data: []byte(c.setting + c.path + "\n")})
		if err != nil {
			t.Fatal(err)
		}
		err = cfg.CheckPaths(nil)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.path, err)
		case c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.says+c.path) ||
			!strings.Contains(err.Error(), c.want) || exitcode.Of(err) != exitcode.Config):
			t.Errorf("%s: %v", c.path, err)
		}
		if err := cfg.CheckPaths(cfg); err != nil {
			t.Errorf("a path that is in force is refused: %v", err)
		}
	}
	if left, _ := os.ReadDir(base); len(left) != 1 {
		t.Errorf("the check has left %v", left)
	}
	none := Default()
	none.Cache.DiskPath, none.Cache.DiskSize = "/proc/foo", 0
	if err := none.CheckPaths(nil); err != nil {
		t.Errorf("a path that nobody uses is refused: %v", err)
	}
}
