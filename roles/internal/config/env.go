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

// Misnamed lists, a line each, the variables that nobody looks at and that are named nearly like a setting's. Others may
// be somebody else's: Kubernetes, for one, gives every container variables named after its services (TRAFFICD_PORT_80_TCP).
func Misnamed(env []string) []string {
	var names []string
	known := map[string]bool{}
	for i := range table {
		known[table[i].EnvName()] = true
		names = append(names, strings.ReplaceAll(table[i].Name, ".", "_"))
	}
	var list []string
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		if len(name) < len(envPrefix) || value == "" || known[name] || !strings.EqualFold(name[:len(envPrefix)], envPrefix) {
			continue
		}
		if near := nearest(name[len(envPrefix):], names); near != "" {
			list = append(list, fmt.Sprintf("%s: no setting has this variable (did you mean %s%s?)", name, envPrefix, strings.ToUpper(near)))
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
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
