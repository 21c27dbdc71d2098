// Package runroot is every path on disk that an instance owns, in one place, and the sockets among them.
//
// A run root is a directory. Two instances are two run roots and never touch: what a process may signal, connect to or
// replace is found through its own run root only. The directory belongs to the user that runs the instance, and nobody
// else may write to it, since whoever can write there can put a socket in the manager's place.
//
//	cop.lock manager.lock server.lock   who is alive (package lockfile)
//	control.sock                        the manager: HTTP for ctl and for cop's heartbeat
//	manager.sock                        the manager: the link, where cop and server report
//	server.sock                         the active server: heartbeat
//	trafficd.log                        when the instance is daemonised
//	last-good.yaml                      the configuration that was last published
//	crashes/                            how processes died (package crash, which makes it)
//
// Its life is longer than any process's: nothing here removes it.
//
//	root, err := runroot.New(flags.RunRoot) // made if missing; exit code 77 if it cannot be ours
//	l, err := runroot.ListenUnix(root.ControlSocket(), runroot.Stream)
//
// It does not take locks and does not read or write any of the files.
package runroot

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"trafficd/roles/internal/exitcode"
)

// Root is an absolute path to a run root. The zero Root is none.
type Root struct{ dir string }

// Default is the run root of a user who named none: /run/trafficd for root, else trafficd below XDG_RUNTIME_DIR, else
// /tmp/trafficd-UID. The choice depends on nothing that differs between two shells of one user's session, so that ctl
// finds what cop made.
func Default() string {
	uid := os.Geteuid()
	if uid == 0 {
		return "/run/trafficd"
	}
	if x := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(x) {
		return filepath.Join(x, "trafficd")
	}
	return "/tmp/trafficd-" + strconv.Itoa(uid)
}

// New makes the run root dir if it is missing (0755; 0700 for the default in /tmp, where strangers look around) and
// checks that it is a directory that this user owns, can write to, and that not everybody can write to. "" is Default.
// The error carries exit code Permission where the reason is one of rights.
func New(dir string) (Root, error) {
	r, err := Open(dir)
	if err != nil {
		return Root{}, err
	}
	mode := fs.FileMode(0o755)
	private := filepath.Dir(r.dir) == "/tmp" && r.dir == Default()
	if private {
		mode = 0o700
	}
	if err := makeDir(r.dir, mode); err != nil {
		return Root{}, r.fail("make", err)
	}
	return r, r.check(private)
}

// Open names an existing run root, as ctl does; it looks at nothing. "" is Default.
func Open(dir string) (Root, error) {
	if dir == "" {
		dir = Default()
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return Root{}, exitcode.Errorf(exitcode.Failed, "run root %s: %w", dir, err)
	}
	return Root{abs}, nil
}

// makeDir makes dir and its parents. Mkdir subtracts the umask from the mode, so a directory we made is ours to set:
// under a umask of 0 it stays closed to others, under 077 it stays as closed as the operator wanted.
func makeDir(dir string, mode fs.FileMode) error {
	err := os.Mkdir(dir, mode)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(filepath.Dir(dir), 0o755); err == nil {
			err = os.Mkdir(dir, mode)
		}
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// check says whether the directory can be trusted and used. A symbolic link is followed except in /tmp, where anybody
// could have made it.
func (r Root) check(private bool) error {
	stat := os.Stat
	if private {
		stat = os.Lstat
	}
	st, err := stat(r.dir)
	if err != nil {
		return r.fail("look at", err)
	}
	if !st.IsDir() {
		return exitcode.Errorf(exitcode.Config, "run root %s: not a directory", r.dir)
	}
	owner := st.Sys().(*syscall.Stat_t).Uid
	if int(owner) != os.Geteuid() {
		return exitcode.Errorf(exitcode.Permission, "run root %s: belongs to user %d, this is user %d", r.dir, owner, os.Geteuid())
	}
	if st.Mode().Perm()&0o002 != 0 {
		return exitcode.Errorf(exitcode.Permission, "run root %s: everybody can write to it; chmod o-w it, or name another with --run-root", r.dir)
	}
	if private && st.Mode().Perm()&0o077 != 0 {
		return exitcode.Errorf(exitcode.Permission, "run root %s: mode is %#o, must be 0700", r.dir, st.Mode().Perm())
	}
	if err := unix.Access(r.dir, unix.W_OK|unix.X_OK); err != nil {
		return r.fail("write to", err)
	}
	return nil
}

// fail wraps err with the code for it. A read-only file system is a matter of rights too: no retry will help.
func (r Root) fail(act string, err error) error {
	code := exitcode.Failed
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS):
		code = exitcode.Permission
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ENAMETOOLONG), errors.Is(err, unix.ELOOP):
		code = exitcode.Config
	}
	var pe *fs.PathError
	if errors.As(err, &pe) && pe.Path == r.dir {
		err = pe.Err
	}
	return exitcode.Errorf(code, "run root %s: %s it: %w", r.dir, act, err)
}

// Dir is the directory itself, absolute.
func (r Root) Dir() string { return r.dir }

// String is Dir.
func (r Root) String() string { return r.dir }

// CopLock is held by the one cop of this run root.
func (r Root) CopLock() string { return r.file("cop.lock") }

// ManagerLock is held by the one manager of this run root.
func (r Root) ManagerLock() string { return r.file("manager.lock") }

// ServerLock is held by the active server of this run root.
func (r Root) ServerLock() string { return r.file("server.lock") }

// ControlSocket is the manager's: HTTP and JSON for ctl, and cop's heartbeat. Stream.
func (r Root) ControlSocket() string { return r.file("control.sock") }

// ManagerSocket is the manager's: the link to cop and server. Packet.
func (r Root) ManagerSocket() string { return r.file("manager.sock") }

// ServerSocket is the active server's: heartbeat. Stream.
func (r Root) ServerSocket() string { return r.file("server.sock") }

// LogFile is where a daemonised instance logs.
func (r Root) LogFile() string { return r.file("trafficd.log") }

// LastGood is the configuration that was last published (config.SaveLastGood).
func (r Root) LastGood() string { return r.file("last-good.yaml") }

// Crashes is the directory of the crash records.
func (r Root) Crashes() string { return r.file("crashes") }

func (r Root) file(name string) string { return filepath.Join(r.dir, name) }
