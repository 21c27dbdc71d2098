package proc

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Limits on what is read of a process that may be anybody's.
const (
	maxCmdline = 128 << 10
	maxEnviron = 1 << 20
)

// Candidate is a process that runs a given executable, shown to the match function of FindStrays.
type Candidate struct {
	Identity
	Comm string   // a process chooses it freely; never a reason to signal one
	PPID int      //
	Args []string // with argv[0]; also chosen freely, but by whoever started it
	Env  []string // as at exec
}

// Getenv looks up a variable in the environment the process was started with.
func (c *Candidate) Getenv(name string) (string, bool) {
	for _, kv := range c.Env {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v, true
		}
	}
	return "", false
}

// FindStrays finds processes that belong to us but that nobody watches: left over from an earlier life. It looks at every
// process in /proc that runs the executable exe and lets match, which must not be nil, decide by command line and environment: whether it
// names our run root, say. A process is never found by its name alone, this one and zombies are not found, and those
// we may not examine are passed over.
//
// Those found are adopted: verified with the pidfd open to be the process that was matched. The caller ends or releases
// them. On an error, nothing is left adopted.
func FindStrays(exe FileID, match func(*Candidate) bool) ([]*Process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil || !procMounted() {
		return nil, fmt.Errorf("find strays: %w", errors.Join(ErrNoProc, err))
	}
	var found []*Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if p := adoptStray(pid, exe, match); p != nil {
			found = append(found, p)
		}
	}
	return found, nil
}

// adoptStray returns nil if the process is not one of ours or ends while it is looked at.
func adoptStray(pid int, exe FileID, match func(*Candidate) bool) *Process {
	if id, err := ExeOf(pid); err != nil || id != exe {
		return nil
	}
	c, err := readCandidate(pid)
	if err != nil || !match(c) {
		return nil
	}
	p, err := Adopt(pid, c.StartTime)
	if err != nil {
		return nil
	}
	// It may have executed another program since we looked. Ask again, now that it cannot become another process.
	if id, err := p.Exe(); err != nil || id != exe {
		p.Release()
		return nil
	}
	return p
}

func readCandidate(pid int) (*Candidate, error) {
	st, err := ReadStat(pid)
	if err != nil {
		return nil, err
	}
	args, err := readProc(pid, "cmdline", maxCmdline)
	if err != nil {
		return nil, err
	}
	env, err := readProc(pid, "environ", maxEnviron)
	if err != nil {
		return nil, err
	}
	return &Candidate{
		Identity: Identity{pid, st.StartTime}, Comm: st.Comm, PPID: st.PPID,
		Args: splitNUL(args), Env: splitNUL(env),
	}, nil
}

// splitNUL splits what proc_pid_cmdline(5) and proc_pid_environ(5) give: strings, each ended by NUL. A process can write over both, so
// the last NUL may be missing.
func splitNUL(b []byte) []string {
	s := strings.TrimSuffix(string(b), "\x00")
	if s == "" {
		return nil
	}
	return strings.Split(s, "\x00")
}
