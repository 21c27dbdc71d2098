package stats

import (
	"sync/atomic"
	"time"
)

// RoleID names one of the three processes.
type RoleID int

// The roles.
const (
	RoleCop RoleID = iota
	RoleManager
	RoleServer
	numRoles
)

var roleNames = [...]string{"cop", "manager", "server"}

func (i RoleID) String() string { return roleNames[i] }

// State is where a process is in its life (design §2.2).
type State uint64

// The states. The zero value is what unused memory says.
const (
	Stopped State = iota
	Starting
	Ready
	Draining
	Standby // ready to take over from another process of its role; never in that one's record
	numStates
)

var stateNames = [...]string{"stopped", "starting", "ready", "draining", "standby"}

// String is the state's name; memory is shared, so any number may be found there.
func (s State) String() string {
	if s < numStates {
		return stateNames[s]
	}
	return "unknown"
}

// A Role is what is known of one role over all its processes. The present process writes the first group when it starts
// and its State as it moves on (whoever finds it dead writes Stopped); the counters belong to whoever
// watches it, and two watchers may, so they are added to and never set.
type Role struct {
	PID        atomic.Uint64 // of the present process; 0: none
	StartTime  atomic.Uint64 // field 22 of /proc/PID/stat, clock ticks since boot
	Started    atomic.Uint64 // unix ns
	Generation atomic.Uint64 // counts the processes of this role, from 1
	State      atomic.Uint64 // a State
	Progress   atomic.Uint64 // moved by the main loop of the process; a server's loops have cells of their own

	Restarts       atomic.Uint64 // processes started after the first
	Deaths         atomic.Uint64 // processes found dead that nobody had asked to stop
	KillsDecided   atomic.Uint64 // kills that the gate let through
	KillsForbidden atomic.Uint64 // kills that the policy forbade
	ProbeFailures  atomic.Uint64 // failed heartbeats
	Probes         atomic.Uint64 // heartbeats in all

	Condemned atomic.Uint64 // pid that a gate has killed last for its health

	_ [roleWords - 13]uint64
}

// Role is the record of one role.
func (r *Region) Role(id RoleID) *Role { return (*Role)(r.at(rolesAt + int(id)*roleWords*8)) }

// Enter is called by a process that begins: it describes itself as Starting. The pid is written last, so that a
// reader which finds the new pid finds the rest of it too.
func (o *Role) Enter(pid int, startTime, generation uint64) {
	o.PID.Store(0)
	o.StartTime.Store(startTime)
	o.Generation.Store(generation)
	o.Started.Store(uint64(time.Now().UnixNano()))
	o.State.Store(uint64(Starting))
	o.PID.Store(uint64(pid))
}

// Leave is called when the process pid is gone; a record that already describes its successor is left alone.
func (o *Role) Leave(pid int) {
	if o.PID.CompareAndSwap(uint64(pid), 0) {
		o.State.Store(uint64(Stopped))
	}
}
