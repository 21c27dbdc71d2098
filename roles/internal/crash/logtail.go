package crash

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

// tailBytes is how far back the log is searched.
const tailBytes = 512 << 10

// lastLines are the last lines that a process wrote to the log file at path, not before since (zero: ever). If the log
// is no file there are none; a supervisor's own standard error is looked at as well, as it may be a file without a name
// that the instance knows.
func lastLines(path string, pid int, since time.Time) []string {
	for _, name := range []string{path, "/proc/self/fd/2"} {
		if b, err := readTail(name, tailBytes); err == nil {
			return linesOf(b, pid, since)
		}
	}
	return nil
}

func readTail(path string, limit int64) ([]byte, error) {
	// A FIFO or a terminal is not to be read, nor waited for, so it is not even opened.
	st, err := os.Stat(path)
	if err != nil || !st.Mode().IsRegular() {
		return nil, errors.Join(err, os.ErrInvalid)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	from := max(0, st.Size()-limit)
	b := make([]byte, min(st.Size(), limit))
	n, err := f.ReadAt(b, from)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("read log %s: %w", path, err)
	}
	b = b[:n]
	if from > 0 {
		_, b, _ = bytes.Cut(b, []byte("\n"))
	}
	return b, nil
}

// throwPrefix begins what the Go runtime prints of a throw. It has no PID, and is not in the stacks.
const throwPrefix = "fatal error: "

// linesOf picks a process's lines out of a log in either of its forms, and what was thrown since the first of them.
func linesOf(log []byte, pid int, since time.Time) []string {
	number := strconv.Itoa(pid)
	var lines []string
	for line := range bytes.Lines(log) {
		// Almost all lines are others'; this runs while a successor takes over, so they must cost nothing.
		if !bytes.Contains(line, []byte(number)) && !bytes.HasPrefix(line, []byte(throwPrefix)) {
			continue
		}
		text := strings.TrimRight(strings.ToValidUTF8(string(line), "\uFFFD"), "\r\n")
		thrown := len(lines) > 0 && strings.HasPrefix(text, throwPrefix)
		if !thrown && !wroteJSON(text, number, since) && !strings.Contains(text+" ", " pid="+number+" ") {
			continue
		}
		if len(text) > MaxLine {
			text = strings.ToValidUTF8(text[:MaxLine], "") + "…"
		}
		if lines = append(lines, text); len(lines) > MaxLines {
			lines = lines[1:]
		}
	}
	return lines
}

// wroteJSON reports whether line is a JSON line of the process. PIDs come again, in a container soon, so its time counts.
func wroteJSON(line, pid string, since time.Time) bool {
	if !strings.Contains(line, `"pid":`+pid+",") && !strings.Contains(line, `"pid":`+pid+"}") {
		return false
	}
	var at struct {
		PID  json.Number `json:"pid"`
		Time time.Time   `json:"time"`
	}
	return json.Unmarshal([]byte(line), &at) == nil && at.PID.String() == pid && !at.Time.Before(since)
}
