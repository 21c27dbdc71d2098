package exitcode

import (
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"testing"
)

func TestOf(t *testing.T) {
	plain := errors.New("no")
	tests := []struct {
		name string
		err  error
		want Code
	}{
		{"nil", nil, OK},
		{"plain", plain, Failed},
		{"coded", With(Config, plain), Config},
		{"coded and wrapped", fmt.Errorf("start: %w", With(TryAgain, plain)), TryAgain},
		{"outermost wins", With(Usage, With(Config, plain)), Usage},
		{"kernel said no", fmt.Errorf("open x: %w", syscall.EACCES), Permission},
		{"somebody else's exit status", &exec.ExitError{}, Failed},
	}
	for _, tt := range tests {
		if got := Of(tt.err); got != tt.want {
			t.Errorf("%s: Of = %d, want %d", tt.name, got, tt.want)
		}
	}
	if With(Config, nil) != nil {
		t.Error("With(Config, nil) is not nil")
	}
	if err := Errorf(Bug, "x: %w", plain); !errors.Is(err, plain) || err.Error() != "x: no" {
		t.Errorf("Errorf = %v", err)
	}
}

func TestRetryAndString(t *testing.T) {
	want := map[Code]bool{OK: false, Failed: true, Usage: false, NotRunning: true, Bug: true, TryAgain: true,
		Permission: false, Config: false, 2: true, 137: true}
	for c, retry := range want {
		if c.Retry() != retry {
			t.Errorf("%v.Retry() = %t, want %t", c, c.Retry(), retry)
		}
	}
	if Code(2).String() != "exit 2" || Config.String() != "configuration" {
		t.Errorf("String: %v, %v", Code(2), Config)
	}
}
