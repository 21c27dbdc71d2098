package lockfile

import (
	"bytes"
	"os"
	"strconv"
	"strings"
)

// maxText bounds what is read of a lock file. Ours is under 70 bytes; more than this is not ours.
const maxText = 256

// text is what a lock file says about its holder: a claim by whoever wrote it last, possibly long dead.
type text struct {
	pid       int    // in the PID namespace of the writer; 0 unknown
	startTime uint64 // clock ticks since boot; 0 unknown
	bootID    string // empty unknown
}

// ownText describes this process.
func ownText() text {
	return text{pid: os.Getpid(), startTime: readStartTime(), bootID: readBootID()}
}

func (t text) bytes() []byte {
	boot := t.bootID
	if boot == "" {
		boot = "-"
	}
	b := strconv.AppendInt(nil, int64(t.pid), 10)
	b = append(b, '\n')
	b = strconv.AppendUint(b, t.startTime, 10)
	b = append(b, ' ')
	b = append(b, boot...)
	return append(b, '\n')
}

// parseText reads a lock file's text. It is lenient about what is missing and strict about what is there: a
// first line that is no PID yields nothing at all, and a second line that is not exactly as we write it yields no
// start time. The file may be empty, half-written, another program's or an attack.
func parseText(b []byte) text {
	if len(b) > maxText {
		return text{}
	}
	first, rest, _ := bytes.Cut(b, []byte{'\n'})
	pid, ok := parsePID(string(first))
	if !ok {
		return text{}
	}
	t := text{pid: pid}
	second, _, complete := bytes.Cut(rest, []byte{'\n'})
	if !complete {
		return t // torn: the digits of the start time may be cut off
	}
	start, boot, ok := strings.Cut(string(second), " ")
	if !ok || !allDigits(start) || !validBootID(boot) {
		return t
	}
	n, err := strconv.ParseUint(start, 10, 64)
	if err != nil {
		return t
	}
	t.startTime = n
	if boot != "-" {
		t.bootID = boot
	}
	return t
}

// parsePID accepts what a PID file may hold: decimal digits with surrounding blanks, from 1 to the kernel's
// largest (PID_MAX_LIMIT, 2^22). 0 and negative numbers would address groups when handed to kill(2).
func parsePID(s string) (int, bool) {
	s = strings.Trim(s, " \t\r")
	if len(s) > 7 || !allDigits(s) {
		return 0, false
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > 1<<22 {
		return 0, false
	}
	return n, true
}

func allDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// validBootID accepts "-" and the form of /proc/sys/kernel/random/boot_id (random(4)): hexadecimal and hyphens.
func validBootID(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') && c != '-' {
			return false
		}
	}
	return true
}

// readStartTime returns this process's start time, 0 where /proc does not tell.
func readStartTime() uint64 {
	b, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return 0
	}
	return parseStartTime(b)
}

// parseStartTime finds field 22 of proc_pid_stat(5). Field 2, the command name, may hold anything, spaces and
// parentheses included, so fields are counted from the last closing parenthesis.
func parseStartTime(stat []byte) uint64 {
	i := bytes.LastIndexByte(stat, ')')
	if i < 0 {
		return 0
	}
	fields := strings.Fields(string(stat[i+1:])) // the first of these is field 3
	if len(fields) < 20 {
		return 0
	}
	n, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// readBootID returns the id of this boot, empty where /proc does not tell.
func readBootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	id := strings.TrimSpace(string(b))
	if !validBootID(id) || id == "-" {
		return ""
	}
	return id
}
