package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"trafficd/roles/internal/exitcode"
)

// place is where something was written. Either a position in the file, or the name of a variable or flag.
type place struct {
	file      string // as the operator gave it
	line, col int    // from 1; col counts characters; 0: not known
	name      string // TRAFFICD_X, or a flag with its value
	from      From
}

// String is what stands before the colon of a message.
func (p place) String() string {
	switch {
	case p.from != FromFile:
		return p.name
	case p.line == 0:
		return p.file
	case p.col == 0:
		return fmt.Sprintf("%s:%d", p.file, p.line)
	}
	return fmt.Sprintf("%s:%d:%d", p.file, p.line, p.col)
}

// A Problem is one thing that is wrong, and where.
type Problem struct {
	place
	Msg string
}

// Where is the place: "trafficd.yaml:12:5", "TRAFFICD_THREADS", `--map "/=x"`, or a setting's name.
func (p Problem) Where() string { return p.place.String() }

func (p Problem) String() string {
	if w := p.Where(); w != "" {
		return w + ": " + p.Msg
	}
	return p.Msg
}

// maxProblems bounds what is printed: a file of a million wrong keys is told so, not repeated.
const maxProblems = 50

// Error is every problem of a configuration, one a line, in the order of the file, then the environment, then the
// flags. It is an exitcode.Coder.
type Error struct {
	Problems []Problem     // never empty
	Omitted  int           // further problems that were counted only
	code     exitcode.Code // 0: by the problems
}

func (e *Error) Error() string {
	var b strings.Builder
	for i, p := range e.Problems {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(p.String())
	}
	if e.Omitted > 0 {
		fmt.Fprintf(&b, "\nand %d more", e.Omitted)
	}
	return b.String()
}

// ExitCode is Usage if only the command line is wrong, Permission if the file could not be read for lack of rights,
// otherwise Config.
func (e *Error) ExitCode() exitcode.Code {
	if e.code != 0 {
		return e.code
	}
	for _, p := range e.Problems {
		if p.from != FromFlag {
			return exitcode.Config
		}
	}
	return exitcode.Usage
}

var layers = []From{FromDefault, FromFile, FromEnv, FromFlag}

// newError sorts and bounds ps; nil for none.
func newError(ps []Problem) error {
	if len(ps) == 0 {
		return nil
	}
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(slices.Index(layers, a.from), slices.Index(layers, b.from)),
			cmp.Compare(a.line, b.line), cmp.Compare(a.col, b.col))
	})
	e := &Error{Problems: ps}
	if len(ps) > maxProblems {
		e.Problems, e.Omitted = ps[:maxProblems], len(ps)-maxProblems
	}
	return e
}

// clip shortens foreign text for a message.
func clip(s string) string { return clipTo(s, 64) }

func clipTo(s string, most int) string {
	r := []rune(s)
	if len(s) <= most || len(r) <= most {
		return s
	}
	return string(r[:most]) + "…"
}
