package crash

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
)

// ErrNone is matched by Load's error for "last" when there is no record at all.
var ErrNone = errors.New("no crash is recorded")

// UnknownError is Load's error for an ID that no record has.
type UnknownError struct {
	ID   string
	Near []string // IDs that may have been meant, newest first
}

// Error implements error.
func (e *UnknownError) Error() string {
	switch len(e.Near) {
	case 0:
		return fmt.Sprintf("no crash record %.60q", e.ID)
	case 1:
		return fmt.Sprintf("no crash record %.60q (did you mean %q?)", e.ID, e.Near[0])
	}
	return fmt.Sprintf("no crash record %.60q (did you mean one of %s?)", e.ID, strings.Join(e.Near, ", "))
}

// List returns all records, the newest first. What cannot be read is in the list nevertheless, with its Problems.
func (s Store) List() ([]Summary, error) {
	all, err := s.scan()
	list := make([]Summary, 0, len(all))
	for _, f := range all {
		if r, ok := s.join(f); ok {
			list = append(list, r.Summary)
		}
	}
	slices.SortStableFunc(list, func(a, b Summary) int { return b.When.Compare(a.When) })
	return list, err
}

// Load returns the record with an ID, the only one whose ID begins so, or for "last" the newest. The error is an
// UnknownError or matches ErrNone if there is none.
func (s Store) Load(id string) (Record, error) {
	if id == "last" {
		list, err := s.List()
		if err != nil {
			return Record{}, err
		}
		if len(list) == 0 {
			return Record{}, ErrNone
		}
		id = list[0].ID
	}
	all, err := s.scan()
	if err != nil {
		return Record{}, err
	}
	f, err := find(all, id)
	if err != nil {
		return Record{}, err
	}
	r, ok := s.join(f)
	if !ok {
		return Record{}, &UnknownError{ID: id}
	}
	return r, nil
}

// maxNear is how many suggestions an UnknownError makes.
const maxNear = 5

// find picks the record that is meant by an ID or its beginning.
func find(all []files, id string) (files, error) {
	var found []files
	for _, f := range all {
		if f.id == id {
			return f, nil
		}
		if id != "" && strings.HasPrefix(f.id, id) {
			found = append(found, f)
		}
	}
	if len(found) == 1 {
		return found[0], nil
	}
	e := &UnknownError{ID: id}
	if len(found) == 0 {
		found = near(all, id)
	}
	for _, f := range found[:min(len(found), maxNear)] {
		e.Near = append(e.Near, f.id)
	}
	return files{}, e
}

// near are records of the same PID or, failing that, of the same role, else the newest.
func near(all []files, id string) []files {
	words := strings.FieldsFunc(id, func(r rune) bool { return r == '-' || r == '.' })
	for _, want := range []func(Process) bool{
		func(p Process) bool { return slices.Contains(words, fmt.Sprint(p.PID)) },
		func(p Process) bool { return slices.Contains(words, p.Role) },
	} {
		if found := slices.DeleteFunc(slices.Clone(all), func(f files) bool {
			p, _ := parseID(f.id)
			return !want(p)
		}); len(found) > 0 {
			return found
		}
	}
	return all[:min(len(all), 1)]
}

// join makes a record of its parts. ok is false if they are all gone meanwhile.
func (s Store) join(f files) (r Record, ok bool) {
	r.ID = f.id
	r.Dead, _ = parseID(f.id)
	r.Cause = Unknown
	var problems []string
	for _, name := range f.names {
		b, err := readFile(filepath.Join(s.Dir, name), maxPart+1)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		ok = true
		var p part
		if err == nil {
			p, err = decode(name, b)
		}
		if err != nil {
			problems = append(problems, fmt.Sprintf("%s: %v", name, err))
			continue
		}
		r.add(p)
	}
	if r.When.IsZero() {
		r.When = f.last
	}
	if len(r.Adoptions) > 0 {
		r.Standby = false // it had what only a server has, and died before its supervisor knew
	}
	r.Problems = problems
	return r, ok
}

// decode reads a part, which anybody may have written, and checks it.
func decode(name string, b []byte) (part, error) {
	if len(b) > maxPart {
		return part{}, fmt.Errorf("longer than %d bytes", maxPart)
	}
	var v struct {
		Version *int `json:"version"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return part{}, fmt.Errorf("not a crash record, or half of one: %w", err)
	}
	if v.Version == nil || *v.Version != Version {
		return part{}, fmt.Errorf("of another version than %d", Version)
	}
	var p part
	if err := json.Unmarshal(b, &p); err != nil {
		return part{}, fmt.Errorf("not a crash record: %w", err)
	}
	return p, p.check(name)
}

// check says why a part does not belong under its name or cannot be true.
func (p *part) check(name string) error {
	id, rest, _ := strings.Cut(name, ".")
	if !strings.HasPrefix(rest, p.Kind+".") {
		return fmt.Errorf("its name does not say that it is of kind %.20q", p.Kind)
	}
	switch {
	case p.Kind == kindDeath && p.Death != nil && p.Adoption == nil:
		return about(id, p.Death.Dead, p.Death.When.IsZero())
	case (p.Kind == kindAdoption || p.Kind == kindSuccession) && p.Adoption != nil && p.Death == nil:
		if len(p.Adoption.Connections) > MaxConnections {
			return fmt.Errorf("more than %d connections", MaxConnections)
		}
		for _, c := range p.Adoption.Rest {
			if c.N < 0 {
				return errors.New("a negative number of connections")
			}
		}
		return about(id, p.Adoption.Dead, p.Adoption.When.IsZero())
	}
	return fmt.Errorf("of no known kind: %.20q", p.Kind)
}

func about(id string, dead Process, timeless bool) error {
	if dead.ID() != id {
		return fmt.Errorf("about another process: %.60q", dead.ID())
	}
	if timeless {
		return errors.New("without a time")
	}
	return nil
}

// add joins one part to what is known. The order does not matter but among equals.
func (r *Record) add(p part) {
	switch p.Kind {
	case kindDeath:
		r.addDeath(p.Death)
	case kindAdoption:
		r.addAdoption(p.Adoption)
	case kindSuccession:
		r.meet(p.Adoption)
		// Who has the connections knows better since when.
		if len(r.Adoptions) == 0 {
			r.Successor, r.TookMS = &p.Adoption.Successor, p.Adoption.TookMS
		}
	}
}

func (r *Record) addDeath(d *Death) {
	if r.When.IsZero() || d.When.Before(r.When) {
		r.When = d.When
	}
	r.generation(d.Dead.Generation)
	r.Standby = d.Standby || r.Standby
	if !r.Status.Known {
		r.Status = d.Status
	}
	if better(d.Cause, r.Cause) {
		r.Cause, r.Reason = d.Cause, ""
	}
	// Of two who know that a gate did it, the one whose gate it was knows why.
	if d.Cause == r.Cause && (r.Reason == "" || d.Gate != "") {
		r.Reason = first(d.Gate, d.Asked, d.Reason)
	}
	r.UptimeSeconds = max(r.UptimeSeconds, d.UptimeSeconds)
	if r.Stacks == "" {
		r.Stacks, r.StacksCut = d.Stacks, d.StacksCut
	}
	if len(r.Log) == 0 {
		r.Log = d.Log
	}
}

func (r *Record) addAdoption(a *Adoption) {
	r.meet(a)
	r.Adoptions = append(r.Adoptions, *a)
	slices.SortStableFunc(r.Adoptions, func(x, y Adoption) int { return x.When.Compare(y.When) })
	last := r.Adoptions[len(r.Adoptions)-1]
	r.Successor, r.TookMS = &last.Successor, last.TookMS
	r.Connections += a.Total("")
	r.Resumed += a.Total(Resumed)
	r.Lost += a.Total(Lost) + a.Total(Refused)
}

// meet takes what a successor's part says of the dead, if no witness has said it.
func (r *Record) meet(a *Adoption) {
	r.generation(a.Dead.Generation)
	if r.When.IsZero() {
		r.When = a.When
	}
}

func (r *Record) generation(n uint64) {
	if r.Dead.Generation == 0 {
		r.Dead.Generation = n
	}
}

func first(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}
