// Package logging sets up the structured log of a role: one event, one line, one write(2).
//
// Each line has the role, the pid and the time (RFC 3339 with milliseconds) beside the event's own fields. On a terminal
// it is for people, elsewhere JSON. The three roles append to the same file or pipe, and O_APPEND with a single write
// per line keeps lines whole between processes without a lock (write(2), open(2) O_APPEND).
//
// A log must not be able to stop what it reports on. Errors of the write are dropped, a full pipe that does not block
// loses the line, and a reader that went away does not end the process: lines are written by the bare system call, as
// os.File would turn EPIPE on descriptor 1 or 2 into death by SIGPIPE.
//
//	log, err := logging.New(logging.Options{Role: "manager", Level: "info", Path: root.LogFile()})
//	log.Info().Int("pid", p).Msg("spawn_server")
//	err = log.Reopen() // after rotation, on SIGUSR1
//
// It does not rotate, buffer or sample, and it is not the access log.
package logging

import (
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// Field names that every line has.
const (
	FieldRole = "role"

	fieldSelf = "pid"
	fieldTime = "time"
	timeForm  = "2006-01-02T15:04:05.000Z07:00"
)

// Options says what is logged and where to. The zero value logs at info to standard error, in the form that suits it.
type Options struct {
	Role   string   // written on each line; "": no role
	Level  string   // trace, debug, info, warn, error; "": info
	Format string   // auto, json, human; "": auto
	Path   string   // file to append to, made with mode 0640 if missing; "": Out
	Out    *os.File // used when Path is empty; nil: standard error. It is not closed and must stay open
}

// A Log is a zerolog.Logger whose level and form can be changed and whose file can be reopened while in use. It is safe for use
// by any goroutine. A copy of its Logger, or a child made by With, follows both.
type Log struct {
	zerolog.Logger
	sink *sink
}

// New makes a log. It fails for a word that is no level or format, and if Path cannot be opened.
func New(o Options) (*Log, error) {
	s := &sink{fd: 2, path: o.Path}
	if o.Out != nil {
		s.fd, s.keep = int(o.Out.Fd()), o.Out
	}
	if o.Path != "" {
		fd, err := openLog(o.Path)
		if err != nil {
			return nil, err
		}
		s.fd = fd
	}
	l := &Log{sink: s}
	err := l.SetLevel(o.Level)
	if err == nil {
		err = l.SetFormat(o.Format)
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	c := zerolog.New(s).Hook(clock{}).With()
	if o.Role != "" {
		c = c.Str(FieldRole, o.Role)
	}
	l.Logger = c.Int(fieldSelf, os.Getpid()).Logger()
	return l, nil
}

// SetLevel changes the least severe level that is written; "" is info.
func (l *Log) SetLevel(level string) error {
	if level == "" {
		level = "info"
	}
	n, err := zerolog.ParseLevel(level)
	if err != nil || n < zerolog.TraceLevel || n > zerolog.ErrorLevel {
		return fmt.Errorf("log level %q: must be trace, debug, info, warn or error", level)
	}
	l.sink.level.Store(int32(n))
	return nil
}

// SetFormat changes the form of the lines that follow: auto, json or human; "" is auto.
func (l *Log) SetFormat(format string) error {
	s := l.sink
	switch format {
	case "", "auto":
		if !IsTerminal(s.fd) {
			s.human.Store(nil)
			return nil
		}
	case "json":
		s.human.Store(nil)
		return nil
	case "human":
	default:
		return fmt.Errorf("log format %q: must be auto, json or human", format)
	}
	human := newHuman(raw{s}, !IsTerminal(s.fd) || os.Getenv("NO_COLOR") != "")
	s.human.Store(&human)
	return nil
}

// Reopen opens Path again, after a rotation moved the file away. Lines written at the same time go to the old or the
// new file whole: the descriptor is exchanged in place by dup3. On error the old file stays in use. A log without Path
// has nothing to reopen.
func (l *Log) Reopen() error {
	s := l.sink
	if s.path == "" {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("reopen log %s: %w", s.path, os.ErrClosed)
	}
	fd, err := openLog(s.path)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Dup3(fd, s.fd, unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("reopen log %s: %w", s.path, err)
	}
	return nil
}

// FD is the descriptor that lines go to, for a child that is to write to the same place. It stays the same over Reopen.
func (l *Log) FD() int { return l.sink.fd }

// Close closes the file of a log with Path. No line may be written after it.
func (l *Log) Close() error {
	s := l.sink
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.path == "" || s.closed {
		return nil
	}
	s.closed = true
	return unix.Close(s.fd)
}

func openLog(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOCTTY, 0o640)
	if err != nil {
		return -1, fmt.Errorf("open log %s: %w", path, err)
	}
	return fd, nil
}

// IsTerminal reports whether fd is a terminal.
func IsTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}

// clock adds the time. zerolog's own way is formatted by a global variable.
type clock struct{}

func (clock) Run(e *zerolog.Event, _ zerolog.Level, _ string) {
	e.Str(fieldTime, time.Now().Format(timeForm))
}

// A sink is the place lines go to.
type sink struct {
	fd    int                                   // immutable: Reopen changes what it refers to, not its number
	path  string                                // immutable; "": fd is not ours
	keep  *os.File                              // immutable: keeps the owner of fd from being collected
	level atomic.Int32                          // a zerolog.Level
	human atomic.Pointer[zerolog.ConsoleWriter] // nil: JSON

	mu     sync.Mutex // guards closed
	closed bool
}

// newHuman renders events for people. Every value is quoted by zerolog if it holds a control character, so a foreign
// string cannot forge a line.
func newHuman(out io.Writer, plain bool) zerolog.ConsoleWriter {
	return zerolog.ConsoleWriter{
		Out: out, NoColor: plain,
		PartsOrder:      []string{fieldTime, zerolog.LevelFieldName, FieldRole, zerolog.MessageFieldName},
		FieldsExclude:   []string{FieldRole},
		FormatTimestamp: func(i any) string { return clockTime(i) },
		FormatPartValueByName: func(i any, name string) string {
			if i == nil {
				return "-"
			}
			return fmt.Sprintf("%-7s", i)
		},
	}
}

// clockTime shows the time of day: whoever watches a terminal knows the date.
func clockTime(i any) string {
	text, _ := i.(string)
	if t, err := time.Parse(timeForm, text); err == nil {
		return t.Format("15:04:05.000")
	}
	return text
}

// Write is for an event without a level.
func (s *sink) Write(p []byte) (int, error) { return s.WriteLevel(zerolog.NoLevel, p) }

// WriteLevel writes one line if its level is wanted.
func (s *sink) WriteLevel(level zerolog.Level, p []byte) (int, error) {
	if level != zerolog.NoLevel && int32(level) < s.level.Load() {
		return len(p), nil
	}
	if human := s.human.Load(); human != nil {
		if _, err := human.Write(p); err == nil {
			return len(p), nil
		}
	}
	return raw{s}.Write(p)
}

// raw is the bare write(2). It never reports an error: there is nobody to tell.
type raw struct{ s *sink }

func (r raw) Write(p []byte) (int, error) {
	for {
		// A short write is not continued: another process may have written behind it, and a half line is
		// better than one whose halves lie apart.
		if _, err := unix.Write(r.s.fd, p); err != unix.EINTR {
			return len(p), nil
		}
	}
}
