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

func TestString(t *testing.T) {
	if Code(2).String() != "exit 2" || Config.String() != "configuration" {
		t.Errorf("String: %v, %v", Code(2), Config)
	}
}
