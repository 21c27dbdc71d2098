package config

import (
	"math"
	"strings"
	"testing"
	"testing/fstest"
)

// system is a machine of 24 GiB that has these files, too, name after text.
func system(files ...string) fstest.MapFS {
	m := fstest.MapFS{"proc/meminfo": {Data: []byte("MemTotal:       25165824 kB\nMemFree:        18289156 kB\n")}}
	for i := 0; i < len(files); i += 2 {
		m[files[i]] = &fstest.MapFile{Data: []byte(files[i+1])}
	}
	return m
}

const (
	mountedV2 = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n"
	mountedV1 = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n"
)

func TestMemoryThereIs(t *testing.T) {
	for _, c := range []struct {
		what  string
		files fstest.MapFS
		want  memory
	}{
		{"nothing can be read", fstest.MapFS{}, memory{math.MaxInt64, ""}},
		{"nonsense", fstest.MapFS{"proc/meminfo": {Data: []byte("MemTotal: much kB\nMemTotal: 9223372036854775807 kB\nMemTotal:\n")},
			"proc/self/cgroup": {Data: []byte("0\n::\nx\n0::/../../a\n")}, "proc/self/mounts": {Data: []byte("cgroup2\n" + mountedV2)}}, memory{math.MaxInt64, ""}},
		{"no control groups", system(), memory{24 << 30, "this machine"}},
		{"version 2", system("proc/self/cgroup", "0::/a.slice/b\n", "proc/self/mounts", mountedV2,
			"sys/fs/cgroup/a.slice/b/memory.max", "1073741824\n", "sys/fs/cgroup/a.slice/memory.max", "max\n"), memory{1 << 30, "the control group /a.slice/b"}},
		{"the one above has less", system("proc/self/cgroup", "0::/a.slice/b\n", "proc/self/mounts", mountedV2,
			"sys/fs/cgroup/a.slice/b/memory.max", "max\n", "sys/fs/cgroup/a.slice/memory.max", "536870912\n"), memory{512 << 20, "the control group /a.slice"}},
		{"in a container, its own name space", system("proc/self/cgroup", "0::/\n", "proc/self/mounts", mountedV2,
			"sys/fs/cgroup/memory.max", "1073741824\n"), memory{1 << 30, "the control group /"}},
		{"in a container, the name from outside", system("proc/self/cgroup", "0::/docker/4711\n", "proc/self/mounts", mountedV2,
			"sys/fs/cgroup/memory.max", "1073741824\n"), memory{1 << 30, "the control group /"}},
		{"more than the machine has", system("proc/self/cgroup", "0::/a\n", "proc/self/mounts", mountedV2,
			"sys/fs/cgroup/a/memory.max", "1099511627776\n"), memory{24 << 30, "this machine"}},
		{"version 1", system("proc/self/cgroup", "4:memory:/a\n1:cpu:/b\n0::/\n", "proc/self/mounts", mountedV1,
			"sys/fs/cgroup/memory/a/memory.limit_in_bytes", "1073741824\n", "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n",
			"sys/fs/cgroup/cpu/b/memory.limit_in_bytes", "1\n"), memory{1 << 30, "the control group /a"}},
	} {
		if got := memoryOf(c.files); got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.what, got, c.want)
		}
	}
}

// A cache that cannot be is refused with both sizes, wherever it was written; what was not asked for is not.
func TestCacheLargerThanMemory(t *testing.T) {
	machine := system("proc/self/cgroup", "0::/web\n", "proc/self/mounts", mountedV2, "sys/fs/cgroup/web/memory.max", "134217728\n")
	for _, c := range []struct {
		file, env string
		machine   fstest.MapFS
		want      string // "": accepted
	}{
		{file: "cache:\n  size: 8TiB\n", machine: system(), want: "trafficd.yaml:2:9: cache.size (8TiB) is larger than the memory of this machine (24.00GiB)"},
		{file: "cache: {size: 24GiB}\n", machine: system()},
		{file: "cache: {size: 25165825KiB}\n", machine: system(), want: "trafficd.yaml:1:15: cache.size (25165825KiB) is larger than the memory of this machine (24.00GiB)"},
		{file: "cache: {size: 256MiB}\n", machine: machine, want: "trafficd.yaml:1:15: cache.size (256MiB) is larger than the memory of the control group /web (128MiB)"},
		{file: "cache: {size: 8TiB}\n", machine: fstest.MapFS{}},
		{env: "TRAFFICD_CACHE_SIZE=129MiB", machine: machine, want: "TRAFFICD_CACHE_SIZE: cache.size (129MiB) is larger than the memory of the control group /web (128MiB)"},
		{env: "TRAFFICD_CACHE_SIZE=129KiB", machine: machine, want: "TRAFFICD_CACHE_SIZE: must be 0 (no cache) or at least 2MiB"},
		{file: "cache: {size: 0}\n", machine: machine},
		{machine: machine},
	} {
		cfg, err := Load(Sources{Flags: Overrides{Config: "trafficd.yaml"}, Data: []byte(c.file), Env: []string{c.env}, System: c.machine})
		switch {
		case c.want == "" && err != nil, c.want != "" && (err == nil || err.Error() != c.want):
			t.Errorf("%q %s: got %v, want %q", c.file, c.env, err, c.want)
		case err == nil && strings.Contains(c.file, "8TiB") && cfg.Check() != nil:
			t.Errorf("%q: %v", c.file, cfg.Check())
		}
	}
}
