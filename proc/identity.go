package proc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

var (
	// ErrNoProcess: there is no such process (any more).
	ErrNoProcess = errors.New("no such process")
	// ErrStranger: the process is another one than expected: the PID was recycled.
	ErrStranger = errors.New("process is another one")
	// ErrNoProc: /proc is not mounted, so the question cannot be answered.
	ErrNoProc = errors.New("/proc is not mounted")
)

// Identity names one process of this boot and PID namespace for ever: a PID is used again, but not with
// the same start time.
type Identity struct {
	PID       int
	StartTime uint64 // clock ticks since boot, field 22 of proc_pid_stat(5); 0: not known (no /proc)
}

func (id Identity) String() string {
	if id.StartTime == 0 {
		return strconv.Itoa(id.PID)
	}
	return fmt.Sprintf("%d (started at tick %d)", id.PID, id.StartTime)
}

// Self returns this process's identity. StartTime is 0 where /proc is not mounted.
func Self() Identity {
	id, err := Identify(os.Getpid())
	if err != nil {
		return Identity{PID: os.Getpid()}
	}
	return id
}

// Identify returns the identity of the process that has this PID now. The error matches ErrNoProcess or ErrNoProc, or is
// what the system said. A zombie still has its PID and is found.
func Identify(pid int) (Identity, error) {
	st, err := ReadStat(pid)
	if err != nil {
		return Identity{}, err
	}
	return Identity{PID: pid, StartTime: st.StartTime}, nil
}

// Stat is the part of /proc/PID/stat that identifies a process and places it.
type Stat struct {
	PID       int
	Comm      string // at most 15 bytes, any bytes
	State     byte   // R running, S sleeping, D uninterruptible, T stopped, t traced, Z zombie, X dead
	PPID      int
	PGRP      int
	Session   int
	StartTime uint64 // clock ticks since boot
}

// ReadStat reads /proc/PID/stat. Errors as for Identify.
func ReadStat(pid int) (Stat, error) {
	b, err := readProc(pid, "stat", 4096)
	if err != nil {
		return Stat{}, err
	}
	st, err := parseStat(b)
	if err != nil {
		return Stat{}, fmt.Errorf("read /proc/%d/stat: %w", pid, err)
	}
	return st, nil
}

// parseStat parses proc_pid_stat(5). The command name in field 2 is chosen by the process: it may hold spaces, newlines and
// parentheses, but no field after it can hold a closing parenthesis. So it ends at the last one.
func parseStat(b []byte) (Stat, error) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return Stat{}, errors.New("malformed: no command name")
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b[:open])))
	if err != nil {
		return Stat{}, fmt.Errorf("malformed process id: %w", err)
	}
	f := strings.Fields(string(b[end+1:])) // f[0] is field 3
	if len(f) < 20 || len(f[0]) != 1 {
		return Stat{}, errors.New("malformed: too few fields")
	}
	st := Stat{PID: pid, Comm: string(b[open+1 : end]), State: f[0][0]}
	for i, to := range []*int{&st.PPID, &st.PGRP, &st.Session} {
		if *to, err = strconv.Atoi(f[1+i]); err != nil {
			return Stat{}, fmt.Errorf("malformed field %d: %w", 4+i, err)
		}
	}
	if st.StartTime, err = strconv.ParseUint(f[19], 10, 64); err != nil {
		return Stat{}, fmt.Errorf("malformed start time: %w", err)
	}
	return st, nil
}

// readProc reads at most limit bytes of /proc/PID/name.
func readProc(pid int, name string, limit int64) ([]byte, error) {
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/" + name)
	if err != nil {
		return nil, procError(pid, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit))
	if err != nil {
		return nil, procError(pid, err)
	}
	return b, nil
}

// procError tells "no such process" from "no /proc".
func procError(pid int, err error) error {
	if errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("process %d: %w", pid, ErrNoProcess)
	}
	if errors.Is(err, fs.ErrNotExist) {
		if !procMounted() {
			return ErrNoProc
		}
		return fmt.Errorf("process %d: %w", pid, ErrNoProcess)
	}
	return err
}

// procMounted reports whether /proc is there. Asked each time: it can be mounted later.
func procMounted() bool {
	var st unix.Stat_t
	return unix.Stat("/proc/self/stat", &st) == nil
}

// FileID identifies an executable file as long as it exists or is in use.
type FileID struct {
	Dev uint64 // device number
	Ino uint64 // inode number
}

func fileID(st *unix.Stat_t) FileID { return FileID{uint64(st.Dev), st.Ino} }

// ExeOf returns the executable the process with this PID runs now. It needs the right to ptrace(2) the process in read mode,
// which a process of the same user has. A kernel thread and a zombie have none: the error matches ErrNoProcess.
func ExeOf(pid int) (FileID, error) {
	var st unix.Stat_t
	path := "/proc/" + strconv.Itoa(pid) + "/exe"
	if err := unix.Stat(path, &st); err != nil {
		return FileID{}, procError(pid, &fs.PathError{Op: "stat", Path: path, Err: err})
	}
	return fileID(&st), nil
}
