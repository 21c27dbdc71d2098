package crash

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"trafficd/roles/internal/supervise"
)

// Version of the form of a part. A reader refuses every other.
const Version = 1

// The bounds of one record.
const (
	MaxConnections = 500       // listed one by one; the others are counted
	MaxStacks      = 256 << 10 // bytes
	MaxLines       = 64        // of the log
	MaxLine        = 2 << 10   // bytes of one log line
	maxText        = 256       // bytes of every other text, such as a request's method and target
)

// Process names one process of the instance, living or dead.
type Process struct {
	Role       string `json:"role"` // cop, manager, server
	PID        int    `json:"pid"`
	StartTime  uint64 `json:"start_time"`           // clock ticks after boot, proc(5); 0: not known
	Generation uint64 `json:"generation,omitempty"` // 0: not known
}

// ID names the process in the records: role, PID and start time. The generation is no part of it, as not every witness
// knows it, and as it begins at 1 again when the whole instance does.
func (p Process) ID() string {
	return p.Role + "-" + strconv.Itoa(p.PID) + "-" + strconv.FormatUint(p.StartTime, 10)
}

// parseID is the inverse of Process.ID. It accepts nothing that could be a path.
func parseID(id string) (Process, bool) {
	role, rest, _ := strings.Cut(id, "-")
	pid, start, _ := strings.Cut(rest, "-")
	p := Process{Role: role}
	var err1, err2 error
	p.PID, err1 = strconv.Atoi(pid)
	p.StartTime, err2 = strconv.ParseUint(start, 10, 64)
	return p, err1 == nil && err2 == nil && validRole(role) && p.PID > 0 && p.ID() == id
}

func validRole(role string) bool { return role == "cop" || role == "manager" || role == "server" }

// Status is how a process ended, as far as anybody could learn.
type Status struct {
	Known  bool `json:"known"`            // false: whoever noticed was not its parent
	Signal int  `json:"signal,omitempty"` // 0: it exited by itself
	Code   int  `json:"code"`             // exit code, if Known and Signal is 0
}

// StatusOf is a supervisor's status.
func StatusOf(s supervise.Status) Status {
	return Status{Known: s.Known, Signal: int(s.Signal), Code: s.Code}
}

// String is supervise.Status's: "signal 9 (killed)", "exit 2", "unknown".
func (s Status) String() string {
	return supervise.Status{Known: s.Known, Signal: syscall.Signal(s.Signal), Code: s.Code}.String()
}

// DeathOf is what a supervisor knows of a death. What it was asked for, and that a gate did it, the supervisor knows; of
// every other end, what the dead has left behind tells more than the status (Store.Bury).
func DeathOf(d supervise.Death) Death {
	r := Death{
		When:   d.Time,
		Dead:   Process{Role: d.Role, PID: d.PID, StartTime: d.StartTime, Generation: d.Generation},
		Status: StatusOf(d.Status), Standby: d.Standby, Reason: d.Refusal, UptimeSeconds: d.Uptime.Seconds(),
	}
	switch d.Fault {
	case supervise.FaultAsked:
		r.Asked = cmp.Or(d.Reason, "restart")
	case supervise.FaultHang:
		r.Cause = Gate // whose of the two it was, that one's Ledger knows
	}
	return r
}

// Cause is why a process ended.
type Cause string

// The causes. A reader may meet others, of a later version.
const (
	Gate    Cause = "killed by the gate"  // it hung, or was not ready in time; the reason is the gate's
	Asked   Cause = "asked for"           // a restart, an upgrade
	Fault   Cause = "own fault"           // a panic, a throw, a bad access
	Outside Cause = "killed from outside" // a signal that nobody of the instance sent; also the OOM killer's
	Exit    Cause = "exited by itself"    // with an exit code, and a reason of its own
	Unknown Cause = "unknown"
)

// Death is a supervisor's part of a record. Store.Bury completes it.
type Death struct {
	When    time.Time `json:"when"` // it was noticed
	Dead    Process   `json:"dead"`
	Witness Process   `json:"witness"` // who writes this
	Status  Status    `json:"status"`
	Standby bool      `json:"standby,omitempty"` // it stood by, or was to: another one served
	Cause   Cause     `json:"cause"`             // "": Bury finds it out
	Asked   string    `json:"asked,omitempty"`   // by whom or for what its end was asked; "": it was not
	Gate    string    `json:"gate,omitempty"`    // why the gate killed it; "": it did not
	Reason  string    `json:"reason,omitempty"`  // what it said itself before it went; "": Bury looks for it

	UptimeSeconds float64 `json:"uptime_seconds,omitempty"` // 0: not known

	Stacks    string   `json:"stacks,omitempty"` // as the Go runtime wrote them
	StacksCut bool     `json:"stacks_cut,omitempty"`
	Log       []string `json:"log,omitempty"` // its last lines, if the log is a file that can be read
}

// Adoption is a successor's part of a record.
type Adoption struct {
	When      time.Time `json:"when"` // the death was noticed
	Dead      Process   `json:"dead"`
	Successor Process   `json:"successor"`
	TookMS    float64   `json:"took_ms,omitempty"` // from When until the successor served; 0: not known

	// At most MaxConnections, the lost before the resumed. Add keeps to that.
	Connections []Connection `json:"connections,omitempty"`
	// Rest counts the connections that are not in Connections.
	Rest []Count `json:"rest,omitempty"`
}

// Count is how many connections were found in a state and had an outcome.
type Count struct {
	State   State   `json:"state"`
	Outcome Outcome `json:"outcome"`
	N       int     `json:"n"`
}

// Kind is what a connection was for.
type Kind string

// The kinds.
const (
	Client Kind = "client"
	Origin Kind = "origin"
	Tunnel Kind = "tunnel"
)

// State is what a connection was found doing.
type State string

// The states.
const (
	Idle           State = "idle"
	AcceptGap      State = "accept gap" // accepted, and in no list yet
	PartialHead    State = "head partly received"
	Upload         State = "upload"
	Waiting        State = "waiting for the origin"
	PartlyAnswered State = "partly answered"
	Answered       State = "answered"
	Tunnelling     State = "tunnel"
	Closing        State = "closing"
	Nowhere        State = "lost" // the journal knew it, and its descriptor did not come
)

// Outcome is what became of a connection.
type Outcome string

// The outcomes.
const (
	Resumed Outcome = "resumed"
	Ended   Outcome = "ended"   // its end had begun already, or its peer was gone
	Refused Outcome = "refused" // its request has killed servers before, and was answered 502
	Lost    Outcome = "lost"
)

// Connection is what became of one.
type Connection struct {
	Kind    Kind    `json:"kind"`
	Peer    string  `json:"peer"`
	Local   string  `json:"local"`
	Request string  `json:"request,omitempty"` // method and target of what was in flight; cut if long
	State   State   `json:"state"`
	Outcome Outcome `json:"outcome"`
	// Where it went on: bytes of the response that the peer had been sent, and of the request that it had sent.
	ResponseByte int64  `json:"response_byte,omitempty"`
	RequestByte  int64  `json:"request_byte,omitempty"`
	Why          string `json:"why,omitempty"` // not resumed
}

// Add takes a connection in: it is listed if there is room, in the place of a resumed one if it matters more, else
// counted. So an Adoption of any number of connections stays small.
func (a *Adoption) Add(c Connection) {
	c.Peer, c.Local, c.Request, c.Why = clip(c.Peer), clip(c.Local), clip(c.Request), clip(c.Why)
	if len(a.Connections) < MaxConnections {
		a.Connections = append(a.Connections, c)
		return
	}
	if c.weight() > 0 {
		least := 0
		for i, listed := range a.Connections {
			if listed.weight() < a.Connections[least].weight() {
				least = i
			}
		}
		if a.Connections[least].weight() < c.weight() {
			a.Connections[least], c = c, a.Connections[least]
		}
	}
	a.count(Count{c.State, c.Outcome, 1})
}

// weight orders connections by how much an operator wants to see them one by one.
func (c Connection) weight() int {
	switch {
	case c.Outcome != Resumed && c.Outcome != Ended:
		return 2
	case c.State != Idle:
		return 1
	}
	return 0
}

func (a *Adoption) count(c Count) {
	for i := range a.Rest {
		if a.Rest[i].State == c.State && a.Rest[i].Outcome == c.Outcome {
			a.Rest[i].N += c.N
			return
		}
	}
	a.Rest = append(a.Rest, c)
}

// Total counts the connections, listed or not, that had an outcome; "" is all.
func (a *Adoption) Total(o Outcome) int {
	n := 0
	for _, c := range a.Connections {
		if o == "" || c.Outcome == o {
			n++
		}
	}
	for _, c := range a.Rest {
		if o == "" || c.Outcome == o {
			n += c.N
		}
	}
	return n
}

// Milliseconds is d as an Adoption has it.
func Milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// clip cuts a text to what a record may hold.
func clip(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText-len("…")], "") + "…"
}

// Record is all that is known of one death.
type Record struct {
	Summary
	Log       []string   `json:"log,omitempty"`
	Stacks    string     `json:"stacks,omitempty"`
	StacksCut bool       `json:"stacks_cut,omitempty"`
	Adoptions []Adoption `json:"adoptions,omitempty"` // more than one if a successor died at it
}

// Summary is what a list shows of a record.
type Summary struct {
	ID            string    `json:"id"`
	When          time.Time `json:"when"`
	Dead          Process   `json:"dead"`
	Standby       bool      `json:"standby,omitempty"` // a server that did not serve
	Status        Status    `json:"status"`
	Cause         Cause     `json:"cause"`
	Reason        string    `json:"reason,omitempty"` // the gate's, the operator's or its own
	UptimeSeconds float64   `json:"uptime_seconds,omitempty"`

	Successor *Process `json:"successor,omitempty"` // nil: nobody has taken over, or not said so yet
	TookMS    float64  `json:"took_ms,omitempty"`   // from the notice of the death until the successor served

	Connections int `json:"connections"`
	Resumed     int `json:"resumed"`
	Lost        int `json:"lost"` // and refused

	Problems []string `json:"problems,omitempty"` // parts that could not be read
}

// String is for a line of the log.
func (s Summary) String() string { return fmt.Sprintf("%s: %s, %s", s.ID, s.Status, s.Cause) }
