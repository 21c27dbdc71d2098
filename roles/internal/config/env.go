package config

import (
	"fmt"
	"slices"
	"strings"
)

const envPrefix = "TRAFFICD_"

// EnvName is the variable that overrides a setting: TRAFFICD_QUEUE_MAX_WAIT for queue.max_wait.
func (s *Setting) EnvName() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(s.Name, ".", "_"))
}

// environment applies TRAFFICD_… variables. Elements of a list are separated by commas or blanks. An empty variable is
// as good as none, since that is how wrappers unset one.
func (l *loader) environment(env []string) {
	for i := range table {
		s := &table[i]
		value := envValue(env, s.EnvName())
		if value == "" {
			continue
		}
		at := place{name: s.EnvName(), from: FromEnv}
		es := []element{{text: value, at: at}}
		if s.Kind.list() || s.Kind == Mappings {
			es = nil
			for _, t := range strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' }) {
				es = append(es, element{text: t, at: at})
			}
		}
		l.set(s, es, at)
	}
}

// envValue is the last value of name, as exec gives it precedence.
func envValue(env []string, name string) string {
	for _, kv := range slices.Backward(env) {
		if k, v, ok := strings.Cut(kv, "="); ok && k == name {
			return v
		}
	}
	return ""
}

// UnknownEnv describes the variables that look like a misspelt setting, for the role to log as a warning. They are no
// error: an orchestrator puts variables of its own beside ours (a Kubernetes service named trafficd makes
// TRAFFICD_PORT), and an instance must not fail to start for that.
func UnknownEnv(env []string) []string {
	var names, out []string
	for i := range table {
		names = append(names, table[i].EnvName())
	}
	for _, kv := range env {
		k, _, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(k, envPrefix) || slices.Contains(names, k) {
			continue
		}
		// Compared without the prefix, which would make everything look alike.
		if near := nearest(k[len(envPrefix):], trimAll(names)); near != "" {
			out = append(out, fmt.Sprintf("unknown variable %q (did you mean %q?)", clip(k), envPrefix+strings.ToUpper(near)))
		}
	}
	slices.Sort(out)
	return out
}

// trimAll gives the names as nearest compares: without prefix, in lower case.
func trimAll(names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = strings.ToLower(strings.TrimPrefix(n, envPrefix))
	}
	return out
}
