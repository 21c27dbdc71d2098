package supervise

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"trafficd/roles/internal/config"
)

// GenerationEnv is the environment variable by which a parent tells a child which
// process of its role it is, counted from 1.
const GenerationEnv = "TRAFFICD_GENERATION"

// TakeGeneration reads and removes [GenerationEnv]; 1 if there is none or garbage.
func TakeGeneration() uint64 {
	text := os.Getenv(GenerationEnv)
	os.Unsetenv(GenerationEnv)
	g, err := strconv.ParseUint(text, 10, 64)
	if err != nil || g == 0 {
		return 1
	}
	return g
}

// Command is how a role is started with the flags of this instance: what ps shows as
// its name, and its arguments. Paths are made absolute, since a daemon's working
// directory is another one.
func Command(role string, flags config.Overrides) (argv0 string, args []string) {
	args = []string{role}
	if role == "cop" {
		// Whoever starts a cop by this has a place in a process tree for it already.
		args = append(args, "--foreground")
	}
	add := func(flag string, values ...string) {
		for _, v := range values {
			if v != "" {
				args = append(args, flag+"="+v)
			}
		}
	}
	add("--config", absolute(flags.Config))
	add("--run-root", absolute(flags.RunRoot))
	add("--listen", flags.Listen...)
	add("--map", flags.Map...)
	add("--autoconf", flags.Autoconf)
	add("--threads", flags.Threads)
	add("--custody", flags.Custody)
	return "trafficd-" + role, args
}

func absolute(path string) string {
	if path == "" {
		return ""
	}
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path // without a working directory the child will say what is wrong
}

// Environ is this process's environment as a child of the same instance wants it:
// without what an init system meant for this process alone (sd_notify(3),
// sd_watchdog_enabled(3)), and with the child's generation.
func Environ(generation uint64) []string {
	var env []string
	for _, kv := range os.Environ() {
		switch name, _, _ := strings.Cut(kv, "="); name {
		case "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", GenerationEnv:
		default:
			env = append(env, kv)
		}
	}
	return append(env, GenerationEnv+"="+strconv.FormatUint(generation, 10))
}
