package program

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"trafficd/proc"
	"trafficd/roles/internal/exitcode"
	"trafficd/roles/internal/link"
	"trafficd/roles/internal/supervise"
)

// Program is an opened executable. Immutable.
type Program struct {
	Exe  *proc.Executable // nil in a test
	Path string           // where it was when it was opened
	ID   string           // as supervise.Identity says it; "": not known
	// Version is what it says of itself; "" for the one that runs, which is not asked.
	Version string
}

// Of is the program of an executable that is open.
func Of(exe *proc.Executable) *Program {
	return &Program{Exe: exe, Path: exe.Path(), ID: supervise.ExeText(exe.ID())}
}

// Open opens the executable at path. want, if not "", is the ID it must have.
func Open(path, want string) (*Program, error) {
	exe, err := proc.OpenExecutable(path)
	if err != nil {
		return nil, err
	}
	p := Of(exe)
	if want != "" && p.ID != want {
		exe.Close()
		return nil, fmt.Errorf("%s is not the file that was tried", path)
	}
	return p, nil
}

// tryLimit is how long a program may take to say which version it is.
const tryLimit = 5 * time.Second

// maxAnswer bounds what it may say.
const maxAnswer = 4 << 10

// Try opens the executable at path and asks which version it is. An error says why it
// cannot be used, and that nothing has happened.
func Try(ctx context.Context, path string) (*Program, error) {
	p, err := Open(path, "")
	if err != nil {
		return nil, exitcode.With(exitcode.Usage, err)
	}
	answer, err := ask(ctx, p.Exe)
	if err == nil {
		p.Version, err = Parse(answer)
	}
	if err != nil {
		p.Exe.Close()
		return nil, fmt.Errorf("%s cannot be used: %w", path, err)
	}
	return p, nil
}

// ask runs "PROGRAM version" and returns what it writes.
func ask(ctx context.Context, exe *proc.Executable) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, tryLimit)
	defer cancel()
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer r.Close()
	p, err := proc.Start(proc.Spec{Exe: exe, Argv0: "trafficd", Args: []string{"version"}, Stdout: w, Setpgid: true})
	w.Close()
	if err != nil {
		return "", err
	}
	defer p.Release()
	select {
	case <-p.Done():
	case <-ctx.Done():
		err := p.Terminate(context.WithoutCancel(ctx), proc.Escalation{})
		return "", errors.Join(fmt.Errorf("no answer to \"version\" within %v", tryLimit), err)
	}
	if e := p.Exit(); e.Known && (e.Code != 0 || e.Signal != 0) {
		return "", fmt.Errorf("\"version\" ended with %v", e)
	}
	// What a pipe holds is there when its writer is dead; a child of that one may hold it open.
	if err := r.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return "", err
	}
	text, err := io.ReadAll(io.LimitReader(r, maxAnswer))
	if err != nil && len(text) == 0 {
		return "", fmt.Errorf("read the answer to \"version\": %w", err)
	}
	return string(text), nil
}

// Text is what "trafficd version" writes.
func Text(version string) string {
	return fmt.Sprintf("trafficd %s\nprotocol %d\n", version, link.Version)
}

// Parse reads what a program says of itself and makes sure that its processes can work
// together with ours.
func Parse(answer string) (version string, err error) {
	first, rest, _ := strings.Cut(answer, "\n")
	version, ok := strings.CutPrefix(first, "trafficd ")
	if !ok || version == "" || len(version) > 256 {
		return "", fmt.Errorf("\"version\" answers %.60q, which is no trafficd", first)
	}
	for line := range strings.Lines(rest) {
		number, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "protocol ")
		if !ok {
			continue // of a later version
		}
		n, err := strconv.Atoi(number)
		if err != nil || n != link.Version {
			return "", fmt.Errorf("it speaks protocol %.20q, and this instance %d: stop the instance and start it anew", number, link.Version)
		}
		return version, nil
	}
	return "", errors.New("it does not say which protocol it speaks")
}
