package harness

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"
)

// Line is one line of an instance's log.
type Line struct {
	Raw     string
	Level   string
	Message string         // "" when the line is not a structured one
	Fields  map[string]any // every field, level and message included
}

// Int is the number in field name, 0 when there is none.
func (l Line) Int(name string) int {
	n, _ := l.Fields[name].(float64)
	return int(n)
}

// String is the text in field name, "" when there is none.
func (l Line) String(name string) string {
	s, _ := l.Fields[name].(string)
	return s
}

// Log collects what an instance writes to its standard error, by all three processes.
type Log struct {
	mu    sync.Mutex // guards all below
	lines []Line
	said  map[saying]bool // what there is in lines
	more  chan struct{}   // closed and replaced when a line arrives
	done  bool            // the last process has closed the pipe
}

// saying is that a process has written a message.
type saying struct {
	role, message string
	pid           int
}

func newLog(r io.ReadCloser) *Log {
	l := &Log{more: make(chan struct{}), said: map[saying]bool{}}
	go l.read(r)
	return l
}

// read ends when every process of the instance has ended, since all of them hold the pipe.
func (l *Log) read(r io.ReadCloser) {
	defer r.Close()
	in := bufio.NewReader(r)
	for {
		text, err := in.ReadString('\n')
		if text != "" {
			l.add(parseLine(strings.TrimSuffix(text, "\n")))
		}
		if err != nil {
			l.mu.Lock()
			l.done = true
			close(l.more)
			l.mu.Unlock()
			return
		}
	}
}

func parseLine(text string) Line {
	line := Line{Raw: text}
	if json.Unmarshal([]byte(text), &line.Fields) == nil {
		line.Level = line.String("level")
		line.Message = line.String("message")
	}
	return line
}

func (l *Log) add(line Line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	l.said[saying{line.String("role"), line.Message, line.Int("pid")}] = true
	close(l.more)
	l.more = make(chan struct{})
}

// Mark is the place in the log where the next line will be; later calls look only from
// there on.
func (l *Log) Mark() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.lines)
}

// Since returns a copy of the lines from mark on.
func (l *Log) Since(mark int) []Line {
	lines, _, _ := l.since(mark)
	return lines
}

func (l *Log) since(mark int) ([]Line, <-chan struct{}, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]Line(nil), l.lines[mark:]...), l.more, l.done
}

// Match decides whether a log line is the one that is waited for.
type Match func(Line) bool

// Message matches a line by its constant message.
func Message(text string) Match { return func(l Line) bool { return l.Message == text } }

// About matches a line by message and role.
func About(text string, role Role) Match {
	return func(l Line) bool { return l.Message == text && l.String("role") == string(role) }
}

// Wait returns the first line from mark on that matches.
func (l *Log) Wait(t testing.TB, mark int, what string, match Match) Line {
	t.Helper()
	return l.Sequence(t, mark, []string{what}, match)[0]
}

// Sequence waits until the log has, from mark on, one line for each match, in that order;
// other lines may stand between them. It returns those lines.
func (l *Log) Sequence(t testing.TB, mark int, names []string, matches ...Match) []Line {
	t.Helper()
	timeout := time.After(Patience)
	for {
		lines, more, done := l.since(mark)
		found := sequence(lines, matches)
		if len(found) == len(matches) {
			return found
		}
		if done {
			t.Fatalf("log ended without %q\n%s", names[len(found)], l.Tail(mark, 60))
		}
		select {
		case <-more:
		case <-timeout:
			t.Fatalf("log has no %q (line %d of the sequence %q)\n%s", names[len(found)], len(found)+1, names, l.Tail(mark, 60))
		}
	}
}

// Messages is Sequence for lines known by their message alone.
func (l *Log) Messages(t testing.TB, mark int, messages ...string) []Line {
	t.Helper()
	matches := make([]Match, len(messages))
	for i, m := range messages {
		matches[i] = Message(m)
	}
	return l.Sequence(t, mark, messages, matches...)
}

func sequence(lines []Line, matches []Match) []Line {
	var found []Line
	for _, line := range lines {
		if len(found) < len(matches) && matches[len(found)](line) {
			found = append(found, line)
		}
	}
	return found
}

// Said reports whether this process has written that message.
func (l *Log) Said(role Role, message string, pid int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.said[saying{string(role), message, pid}]
}

// Count is the number of lines from mark on that match.
func (l *Log) Count(mark int, match Match) int {
	n := 0
	for _, line := range l.Since(mark) {
		if match(line) {
			n++
		}
	}
	return n
}

// Says reports whether any line has the text, as it is or quoted for JSON.
func (l *Log) Says(text string) bool {
	quoted := strings.ReplaceAll(text, `"`, `\"`)
	for _, line := range l.Since(0) {
		if strings.Contains(line.Raw, text) || strings.Contains(line.Raw, quoted) {
			return true
		}
	}
	return false
}

// Tail is the end of the log for a failure's text.
func (l *Log) Tail(mark, n int) string {
	lines := l.Since(mark)
	var b strings.Builder
	if skip := len(lines) - n; skip > 0 {
		fmt.Fprintf(&b, "  … %d lines\n", skip)
		lines = lines[skip:]
	}
	for _, line := range lines {
		b.WriteString("  " + line.Raw + "\n")
	}
	return b.String()
}

// faults are the lines that no process may ever write.
func faults(lines []Line) []string {
	var bad []string
	for _, line := range lines {
		for _, sign := range []string{"WARNING: DATA RACE", "panic: ", "fatal error: ", "runtime: "} {
			if strings.HasPrefix(line.Raw, sign) {
				bad = append(bad, line.Raw)
			}
		}
	}
	return bad
}
