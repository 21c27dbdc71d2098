package crash

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The bounds of the directory.
const (
	MaxRecords = 200
	MaxTotal   = 32 << 20 // bytes; a run root often lies in memory
)

// maxPart is the longest part that is read, in bytes. What may be in one, every byte of it escaped, is shorter.
const maxPart = 8 << 20

// Store is the directory of the records. Its methods may be called by any goroutine and any process of the instance;
// they do file I/O and belong on no loop.
type Store struct {
	Dir string // made by the first who writes
	Log string // the instance's log file, for the last lines of the dead; "": none
}

// The kinds of parts.
const (
	kindDeath      = "death"
	kindAdoption   = "adoption"
	kindSuccession = "succession"
)

// part is one file.
type part struct {
	Version  int       `json:"version"`
	Kind     string    `json:"kind"`
	Death    *Death    `json:"death,omitempty"`
	Adoption *Adoption `json:"adoption,omitempty"` // also of a succession
}

const (
	suffix    = ".json"
	newPrefix = ".new-"
)

// Bury completes a Death with what the dead has left, stacks and log lines, and with its cause, writes it, removes the
// stacks' file and sees to the directory's bounds.
func (s Store) Bury(d Death) error {
	err := s.complete(&d)
	if werr := s.WriteDeath(d); werr != nil {
		return errors.Join(err, werr)
	}
	if rerr := os.Remove(filepath.Join(s.Dir, stacksPrefix+d.Dead.ID())); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	s.sweep(time.Now(), d.Witness)
	return errors.Join(err, s.Prune())
}

// complete fills in what is to be found on disk, and the cause.
func (s Store) complete(d *Death) (err error) {
	if d.Stacks == "" {
		d.Stacks, d.StacksCut, err = readStacks(s.Dir, d.Dead)
	}
	if d.Log == nil {
		var since time.Time
		if d.UptimeSeconds > 0 {
			since = d.When.Add(-time.Duration(d.UptimeSeconds*float64(time.Second)) - time.Minute) // the clock may have been set
		}
		d.Log = lastLines(s.Log, d.Dead.PID, since)
	}
	if d.Cause == "" {
		d.Cause = d.cause()
	}
	if d.Reason == "" && d.Stacks != "" {
		d.Reason = lastWord(d.Stacks, d.Log)
	}
	return err
}

// WriteDeath writes a supervisor's part as it is.
func (s Store) WriteDeath(d Death) error {
	d.Asked, d.Gate, d.Reason = clip(d.Asked), clip(d.Gate), clip(d.Reason)
	if len(d.Stacks) > MaxStacks {
		d.Stacks, d.StacksCut = strings.ToValidUTF8(d.Stacks[:MaxStacks], ""), true
	}
	d.When = d.When.Round(0)
	return s.write(d.Dead, kindDeath+"."+d.Witness.Role, part{Kind: kindDeath, Death: &d}, os.Rename)
}

// WriteAdoption writes the part of the successor that has the connections. It may list any number of connections; what
// is written keeps to the bounds. The directory is pruned by who buries the dead.
func (s Store) WriteAdoption(a Adoption) error {
	bounded := a
	bounded.Connections = nil
	bounded.Rest = slices.Clone(a.Rest)
	for _, c := range a.Connections {
		bounded.Add(c)
	}
	slices.SortStableFunc(bounded.Connections, func(x, y Connection) int { return cmp.Compare(y.weight(), x.weight()) })
	bounded.When = a.When.Round(0)
	name := kindAdoption + "." + strconv.FormatUint(a.Successor.Generation, 10)
	return s.write(a.Dead, name, part{Kind: kindAdoption, Adoption: &bounded}, os.Rename)
}

// WriteSuccession writes a supervisor's word on who came after the dead, and when. The first word stays.
func (s Store) WriteSuccession(a Adoption) error {
	a.When = a.When.Round(0)
	return s.write(a.Dead, kindSuccession, part{Kind: kindSuccession, Adoption: &a}, func(from, to string) error {
		err := os.Link(from, to)
		if errors.Is(err, fs.ErrExist) {
			err = nil
		}
		return errors.Join(err, os.Remove(from))
	})
}

// write makes a part appear whole: into a temporary file, and then to its name by place.
func (s Store) write(dead Process, name string, p part, place func(from, to string) error) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write crash record %s: %w", dead.ID(), err)
		}
	}()
	if _, ok := parseID(dead.ID()); !ok {
		return errors.New("it names no process")
	}
	p.Version = Version
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	if err := makeDir(s.Dir); err != nil {
		return err
	}
	f, err := os.CreateTemp(s.Dir, newPrefix+"*")
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	err = errors.Join(err, f.Chmod(fileMode), f.Close())
	if err == nil {
		err = place(f.Name(), filepath.Join(s.Dir, dead.ID()+"."+name+suffix))
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// files are the parts of one record, by their names.
type files struct {
	id    string
	names []string
	size  int64
	last  time.Time // the newest part
}

// scan groups the directory's files by record, newest first. A directory that is not there is empty.
func (s Store) scan() ([]files, error) {
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list crash records: %w", err)
	}
	byID := map[string]*files{}
	for _, e := range entries {
		id, _, ok := strings.Cut(e.Name(), ".")
		if _, valid := parseID(id); !ok || !valid || !strings.HasSuffix(e.Name(), suffix) {
			continue
		}
		info, err := e.Info()
		if err != nil {
			continue // pruned meanwhile
		}
		r := byID[id]
		if r == nil {
			r = &files{id: id}
			byID[id] = r
		}
		r.names = append(r.names, e.Name())
		r.size += info.Size()
		if info.ModTime().After(r.last) {
			r.last = info.ModTime()
		}
	}
	all := make([]files, 0, len(byID))
	for _, r := range byID {
		all = append(all, *r)
	}
	slices.SortFunc(all, func(a, b files) int { return cmp.Or(b.last.Compare(a.last), cmp.Compare(a.id, b.id)) })
	return all, nil
}

// Prune removes what is beyond the bounds, the oldest first, and what writers that were killed left behind. The newest
// record always stays.
func (s Store) Prune() error {
	all, err := s.scan()
	if err != nil {
		return err
	}
	var total int64
	var errs []error
	for i, r := range all {
		total += r.size
		if i == 0 || i < MaxRecords && total <= MaxTotal {
			continue
		}
		for _, name := range r.names {
			errs = append(errs, removed(filepath.Join(s.Dir, name)))
		}
	}
	left, err := filepath.Glob(filepath.Join(s.Dir, newPrefix+"*"))
	for _, path := range left {
		if st, serr := os.Stat(path); serr == nil && time.Since(st.ModTime()) > unclaimed {
			errs = append(errs, removed(path))
		}
	}
	return errors.Join(append(errs, err)...)
}

// removed removes a file that another process may be removing as well.
func removed(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
