package config

import (
	"errors"
	"fmt"
	"os"
)

// Check reports every value of c that is outside its limits, and every two that contradict each other. Load has done
// it; it is for a Config that came another way.
func (c *Config) Check() error {
	l := &loader{cfg: c, placed: map[string][]place{}}
	scratch := &Config{}
	for i := range table {
		s := &table[i]
		for _, p := range s.assign(scratch, s.elements(c)) {
			p.place = place{name: s.Name}
			l.problems = append(l.problems, p)
		}
	}
	l.crossValues()
	return newError(l.problems)
}

// cross checks what one value alone cannot show, and what depends on the machine. A setting that is already reported is
// left out.
func (l *loader) cross() {
	l.crossValues()
	l.crossMemory()
	if p := l.cfg.Autoconf.PACFile; p != "" {
		if err := checkPAC(p); err != nil {
			l.report(l.where("autoconf.pac_file", 0), "autoconf.pac_file: %v", err)
		}
	}
}

func (l *loader) crossValues() {
	l.crossListen()
	l.crossMap()
	l.crossGroups()
	c := l.cfg
	if c.Cache.Size > 0 && c.Cache.MaxObjectSize > c.Cache.Size {
		l.disagree("cache.max_object_size", "cache.size", "is larger than")
	}
	if c.Limits.RequestLine > c.Limits.HeaderSize {
		l.disagree("limits.request_line", "limits.header_size", "is larger than")
	}
	if c.Resolver.MinTTL > c.Resolver.MaxTTL {
		l.disagree("resolver.min_ttl", "resolver.max_ttl", "is longer than")
	}
}

// disagree reports two settings at the place of the one that somebody set; the first if both.
func (l *loader) disagree(a, b, how string) {
	if l.broken[a] || l.broken[b] {
		return
	}
	at := l.where(a, 0)
	if _, set := l.cfg.Sources[a]; !set {
		at = l.where(b, 0)
	}
	l.report(at, "%s (%s) %s %s (%s)", a, l.cfg.Value(a), how, b, l.cfg.Value(b))
}

func (l *loader) crossListen() {
	if l.broken["listen"] {
		return
	}
	list := l.cfg.Listen
	for j := range list {
		for i := range list[:j] {
			switch {
			case list[i] == list[j]:
				l.report(l.where("listen", j), "listen has %s twice", list[j])
			case overlap(list[i], list[j]):
				l.report(l.where("listen", j), "listen has both %s and %s, which overlap", list[i], list[j])
			}
		}
	}
	auto := l.cfg.Autoconf.Listen
	if auto == Off || auto == "" || l.broken["autoconf.listen"] {
		return
	}
	for i := range list {
		// Two ports that the kernel chooses are two ports, although they are written alike.
		if _, port, _ := splitHostPort(auto); port == 0 || !overlap(list[i], auto) {
			continue
		}
		at := l.where("autoconf.listen", 0)
		if _, set := l.cfg.Sources["autoconf.listen"]; !set {
			at = l.where("listen", i)
		}
		l.report(at, "autoconf.listen (%s) overlaps listen (%s)", auto, list[i])
	}
}

func (l *loader) crossMap() {
	first := map[string]int{}
	for i, m := range l.cfg.Map {
		id := m.identity()
		if j, dup := first[id]; dup {
			l.report(l.where("map", i), "map has the prefix %s twice (entries %d and %d)", clip(m.Prefix), j+1, i+1)
			continue
		}
		first[id] = i
	}
}

// where is the place of an element of a value; for one without a place, the setting's name.
func (l *loader) where(setting string, i int) place {
	if ps := l.placed[setting]; i < len(ps) {
		return ps[i]
	}
	return place{name: setting, from: l.cfg.SourceOf(setting).From}
}

// maxPAC is the largest proxy autoconfiguration file, in bytes.
const maxPAC = 1 << 20

func checkPAC(path string) error {
	st, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case !st.Mode().IsRegular():
		return errors.New("not a regular file: " + path)
	case st.Size() > maxPAC:
		return fmt.Errorf("larger than %d bytes: %s", maxPAC, path)
	}
	return nil
}
