// Package exitcode is what a trafficd process says to whoever started it.
//
// The numbers are those of sysexits(3), and they carry an instruction: a supervisor that reads 64, 77 or 78 must not
// start the same thing again, since it would fail the same way (design §2.2.6). An error that knows its number carries
// it up through any number of wrappings, so that only main decides when to exit:
//
//	err := exitcode.Errorf(exitcode.Permission, "run root %s: %w", dir, err)
//	os.Exit(int(exitcode.Of(err)))
//
// It is not a classification of errors for use inside a process: for that, match the error itself.
package exitcode

import (
	"errors"
	"fmt"
	"io/fs"
)

// A Code is a process exit status as sysexits(3) numbers them.
type Code int

// The codes in use. Anything else that a process ends with (a signal, a Go panic's 2) means "retry".
const (
	OK         Code = 0  // done, or stopped because it was asked to
	Failed     Code = 1  // the act failed; trying again may help
	Usage      Code = 64 // EX_USAGE: the command line is wrong
	NotRunning Code = 69 // EX_UNAVAILABLE: there is no instance to talk to
	Bug        Code = 70 // EX_SOFTWARE: a broken invariant
	TryAgain   Code = 75 // EX_TEMPFAIL: another process holds the lock
	Permission Code = 77 // EX_NOPERM: the kernel refused for lack of rights
	Config     Code = 78 // EX_CONFIG: the configuration is wrong
)

var names = map[Code]string{
	OK: "ok", Failed: "failed", Usage: "usage", NotRunning: "not running", Bug: "bug",
	TryAgain: "try again", Permission: "permission", Config: "configuration",
}

// String gives the meaning in words, or "exit N" for a number this package does not define.
func (c Code) String() string {
	if s, ok := names[c]; ok {
		return s
	}
	return fmt.Sprintf("exit %d", int(c))
}

// Error is an error with the code its process should end with.
type Error struct {
	Code Code
	Err  error // never nil
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// ExitCode makes Error a Coder.
func (e *Error) ExitCode() Code { return e.Code }

// A Coder is an error that knows its exit code. The result is a Code and not an int on purpose: *exec.ExitError has an
// ExitCode too, and the status of some child is not the status of this process.
type Coder interface {
	error
	ExitCode() Code
}

// With attaches code to err; nil stays nil.
func With(code Code, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Code: code, Err: err}
}

// Errorf is With(code, fmt.Errorf(format, args...)).
func Errorf(code Code, format string, args ...any) error {
	return &Error{Code: code, Err: fmt.Errorf(format, args...)}
}

// Of finds the code for err: OK for nil, that of the outermost Coder in its chain, Permission if the kernel refused for
// lack of rights, otherwise Failed.
func Of(err error) Code {
	if err == nil {
		return OK
	}
	var c Coder
	if errors.As(err, &c) {
		return c.ExitCode()
	}
	if errors.Is(err, fs.ErrPermission) {
		return Permission
	}
	return Failed
}
