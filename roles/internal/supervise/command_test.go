package supervise

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"trafficd/roles/internal/config"
)

func TestCommandRepeatsTheFlags(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	argv0, args := Command("manager", config.Overrides{
		Config: "a.yaml", RunRoot: "/run/x", Listen: []string{":80", ":81"},
		Map: []string{"/=http://h"}, Autoconf: "off", Threads: "2", Custody: "false",
	})
	want := []string{
		"manager", "--config=" + filepath.Join(dir, "a.yaml"), "--run-root=/run/x", "--listen=:80", "--listen=:81",
		"--map=/=http://h", "--autoconf=off", "--threads=2", "--custody=false",
	}
	if argv0 != "trafficd-manager" || !slices.Equal(args, want) {
		t.Errorf("got %q %q\nwant %q", argv0, args, want)
	}
	if _, args := Command("cop", config.Overrides{}); !slices.Equal(args, []string{"cop", "--foreground"}) {
		t.Errorf("cop without flags: %q", args)
	}
}

func TestEnvironKeepsWhatInitMeantForUsAlone(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "/x")
	t.Setenv("WATCHDOG_USEC", "1")
	t.Setenv("WATCHDOG_PID", "1")
	t.Setenv("TRAFFICD_THREADS", "3")
	t.Setenv(GenerationEnv, "4")
	env := Environ(7)
	for _, kv := range []string{"NOTIFY_SOCKET=/x", "WATCHDOG_USEC=1", "WATCHDOG_PID=1", GenerationEnv + "=4"} {
		if slices.Contains(env, kv) {
			t.Errorf("child gets %s", kv)
		}
	}
	for _, kv := range []string{"TRAFFICD_THREADS=3", GenerationEnv + "=7"} {
		if !slices.Contains(env, kv) {
			t.Errorf("child does not get %s", kv)
		}
	}
}

func TestTakeGeneration(t *testing.T) {
	for text, want := range map[string]uint64{"": 1, "7": 7, "0": 1, "-1": 1, "x": 1} {
		t.Setenv(GenerationEnv, text)
		if got := TakeGeneration(); got != want {
			t.Errorf("%q: got %d, want %d", text, got, want)
		}
		if _, ok := os.LookupEnv(GenerationEnv); ok {
			t.Errorf("%q: still in the environment", text)
		}
	}
}
