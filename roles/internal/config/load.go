package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"trafficd/roles/internal/exitcode"
)

// MaxFile is the largest configuration file that is read, in bytes.
const MaxFile = 8 << 20

// Overrides is what the command line says. Zero values say nothing.
type Overrides struct {
	Config   string   // --config FILE, as typed
	RunRoot  string   // --run-root DIR; not a setting: kept here so that all flags are in one place
	Listen   []string // --listen ADDR, repeated
	Map      []string // --map PREFIX=ORIGIN, repeated
	Autoconf string   // --autoconf ADDR or off
	Threads  string   // --threads N, as typed
	Custody  string   // --custody=false, as typed
}

// Sources is all that Load looks at.
type Sources struct {
	Flags Overrides
	Env   []string // as os.Environ gives it; only TRAFFICD_… is looked at

	// Path is opened instead of Flags.Config, which then is only the name in messages. It lets a daemon that has
	// changed its working directory name the file as the operator did. "": Flags.Config.
	Path string
	// Data is used instead of reading the file, if not nil.
	Data []byte
	// System is where /proc and /sys tell how much memory there is; nil: this machine's.
	System fs.FS
}

// Load reads, checks and joins all sources. The error is an *Error with every problem of every source.
func Load(s Sources) (*Config, error) {
	l := &loader{cfg: Default(), placed: map[string][]place{}, system: s.System}
	if l.system == nil {
		l.system = os.DirFS("/")
	}
	l.cfg.File = s.Flags.Config
	if l.cfg.File != "" {
		data := s.Data
		if data == nil {
			var err error
			if data, err = readFile(s.Flags.Config, s.Path); err != nil {
				return nil, err
			}
		}
		l.file(l.cfg.File, data)
	}
	l.environment(s.Env)
	l.flags(s.Flags)
	l.cross()
	if err := newError(l.problems); err != nil {
		return nil, err
	}
	return l.cfg, nil
}

// A loader fills one Config, layer upon layer.
type loader struct {
	cfg      *Config
	placed   map[string][]place // where the elements of each value stand, for the checks between values
	problems []Problem
	system   fs.FS           // of Sources
	broken   map[string]bool // settings whose value is not what somebody wrote; not worth a further check
}

func (l *loader) report(at place, format string, args ...any) {
	l.problems = append(l.problems, Problem{place: at, Msg: fmt.Sprintf(format, args...)})
}

// set gives a setting its value from one layer. at is the place of the whole value.
func (l *loader) set(s *Setting, es []element, at place) {
	ps := s.assign(l.cfg, es)
	if len(ps) == 0 {
		l.cfg.Sources[s.Name] = Source{From: at.from, Where: at.source()}
		l.placed[s.Name] = nil
		for _, e := range es {
			l.placed[s.Name] = append(l.placed[s.Name], e.at)
		}
		delete(l.broken, s.Name)
		return
	}
	if l.broken == nil {
		l.broken = map[string]bool{}
	}
	l.broken[s.Name] = true
	for _, p := range ps {
		if p.place == (place{}) {
			p.place = at
		}
		if p.from == FromFile {
			p.Msg = s.Name + ": " + p.Msg
		}
		l.problems = append(l.problems, p)
	}
}

// source is the place without the value that a flag's place carries.
func (p place) source() string {
	if p.from == FromFlag {
		name, _, _ := strings.Cut(p.name, " ")
		return name
	}
	return p.String()
}

func (l *loader) flags(o Overrides) {
	one := func(setting, flag, value string) {
		if value != "" {
			at := flagPlace(flag, value)
			l.set(lookup(setting), []element{{text: value, at: at}}, at)
		}
	}
	many := func(setting, flag string, values []string) {
		var es []element
		for _, v := range values {
			es = append(es, element{text: v, at: flagPlace(flag, v)})
		}
		if es != nil {
			l.set(lookup(setting), es, place{name: flag, from: FromFlag})
		}
	}
	many("listen", "--listen", o.Listen)
	many("map", "--map", o.Map)
	one("autoconf.listen", "--autoconf", o.Autoconf)
	one("threads", "--threads", o.Threads)
	one("custody.enabled", "--custody", o.Custody)
}

func flagPlace(flag, value string) place {
	return place{name: fmt.Sprintf("%s %q", flag, clip(value)), from: FromFlag}
}

// readFile reads a regular file of at most MaxFile bytes. It does not wait for a FIFO's writer, and a device is not
// read at all.
func readFile(name, path string) ([]byte, error) {
	if path == "" {
		path = name
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, fileError(name, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fileError(name, err)
	}
	if !st.Mode().IsRegular() {
		return nil, fileError(name, errors.New("not a regular file"))
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return nil, fileError(name, err)
	}
	return data, nil // file() says if it is too long
}

func fileError(name string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = fmt.Errorf("%s: %w", pe.Op, pe.Err)
	}
	e := &Error{Problems: []Problem{{place: place{file: name, from: FromFile}, Msg: err.Error()}}, code: exitcode.Config}
	if errors.Is(err, fs.ErrPermission) {
		e.code = exitcode.Permission
	}
	return e
}
