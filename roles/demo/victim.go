package demo

import (
	"fmt"
	"slices"
	"strings"
)

// Whom one can kill.
const (
	cop     = "cop"
	manager = "manager"
	server  = "server"
	standby = "standby" // a server that does not serve yet
	keeper  = "keeper"  // of a server
)

var targets = []string{cop, manager, server, standby, keeper}

// defaultRoles are each role alone, and the pairs of roles that watch each other.
const defaultRoles = "server,manager,cop,standby,keeper,manager+server,cop+manager"

// victim is who is killed at one instant: one target, or several.
type victim []string

func (v victim) String() string { return strings.Join(v, "+") }

// parseVictims reads --roles.
func parseVictims(text string) ([]victim, error) {
	if text == "none" {
		return nil, nil
	}
	var all []victim
	for part := range strings.SplitSeq(text, ",") {
		var v victim
		for name := range strings.SplitSeq(part, "+") {
			name = strings.TrimSpace(name)
			if !slices.Contains(targets, name) {
				return nil, fmt.Errorf("--roles: there is no %q; there are %s, and none", name, strings.Join(targets, ", "))
			}
			if slices.Contains(v, name) {
				return nil, fmt.Errorf("--roles: %q names %s twice", part, name)
			}
			v = append(v, name)
		}
		all = append(all, v)
	}
	return all, nil
}
