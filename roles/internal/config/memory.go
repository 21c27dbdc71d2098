package config

import (
	"fmt"
	"io/fs"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
)

// crossMemory refuses a cache for which there cannot be room: the server would touch page after page until the kernel
// kills it, and be started again. Only a size that somebody chose: the default is filled when there is something to
// fill it with, and a small machine does without. What the rest of the instance needs is not known, so nothing is said
// of what would just fit.
func (l *loader) crossMemory() {
	if _, chosen := l.cfg.Sources["cache.size"]; !chosen || l.broken["cache.size"] {
		return
	}
	if m := memoryOf(l.system); l.cfg.Cache.Size > m.bytes {
		l.report(l.where("cache.size", 0), "cache.size (%s) is larger than the memory of %s (%s)", l.cfg.Value("cache.size"), m.of, roughly(m.bytes))
	}
}

// memory is how many bytes there can be at most, and who says so.
type memory struct {
	bytes int64
	of    string
}

// memoryOf asks the machine and the control groups that this process is in; the least of them is what there is. What
// cannot be read limits nothing.
func memoryOf(system fs.FS) memory {
	m := memory{bytes: math.MaxInt64}
	lower := func(bytes int64, of string) {
		if bytes < m.bytes {
			m = memory{bytes, of}
		}
	}
	for line := range strings.Lines(text(system, "proc/meminfo")) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "MemTotal:" && f[2] == "kB" {
			if n, err := strconv.ParseInt(f[1], 10, 64); err == nil && n < math.MaxInt64>>10 {
				lower(n<<10, "this machine")
			}
		}
	}
	for _, g := range memoryGroups(system) {
		// Each limits all below it, and in a container the name may be one that is seen from outside only.
		for name := path.Clean("/" + g.name); ; name = path.Dir(name) {
			value := strings.TrimSpace(text(system, path.Join(g.mount, name, g.limit)))
			if n, err := strconv.ParseInt(value, 10, 64); err == nil { // "max" is none
				lower(n, "the control group "+name)
			}
			if name == "/" {
				break
			}
		}
	}
	return m
}

// A memoryGroup is the control group of this process in a hierarchy that may limit memory.
type memoryGroup struct {
	mount string // without the slash before it
	name  string // below mount
	limit string // the file with the limit
}

// memoryGroups finds those of both versions (cgroups(7)); there may be none.
func memoryGroups(system fs.FS) (groups []memoryGroup) {
	mounts := text(system, "proc/self/mounts")
	for line := range strings.Lines(text(system, "proc/self/cgroup")) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3) // id:controllers:name
		if len(f) != 3 {
			continue
		}
		kind, option, limit := "cgroup2", "", "memory.max"
		if f[0] != "0" {
			kind, option, limit = "cgroup", "memory", "memory.limit_in_bytes"
			if !slices.Contains(strings.Split(f[1], ","), option) {
				continue
			}
		}
		for mount := range strings.Lines(mounts) {
			m := strings.Fields(mount) // device, mount point, type, options
			if len(m) >= 4 && m[2] == kind && (option == "" || slices.Contains(strings.Split(m[3], ","), option)) {
				groups = append(groups, memoryGroup{strings.TrimPrefix(m[1], "/"), f[2], limit})
			}
		}
	}
	return groups
}

// text is what stands in a file, "" if it cannot be read.
func text(system fs.FS, name string) string {
	b, err := fs.ReadFile(system, name)
	if err != nil {
		return ""
	}
	return string(b)
}

// roughly is a size for people, rounded down.
func roughly(n int64) string {
	if n < 1<<30 {
		return fmt.Sprintf("%dMiB", n>>20)
	}
	return fmt.Sprintf("%.2fGiB", math.Floor(float64(n)/(1<<30)*100)/100)
}
