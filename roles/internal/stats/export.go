package stats

import (
	"bufio"
	"io"
	"strconv"
	"strings"
	"time"

	"trafficd/eventloop"
)

// A Snapshot is one reading of everything. The words are read one after the other while others write: sums are right
// to within what happened during the reading.
type Snapshot struct {
	Since   time.Time         `json:"since"`
	Metrics map[string]uint64 `json:"metrics"` // by JSONName; times in ns. A gauge below zero reads 0
	Roles   map[string]RoleAt `json:"roles"`
	Loops   []LoopAt          `json:"loops"`
}

// RoleAt is a Role as it was read.
type RoleAt struct {
	PID            int       `json:"pid"`
	StartTime      uint64    `json:"start_time"`
	Started        time.Time `json:"started"`
	Generation     uint64    `json:"generation"`
	State          string    `json:"state"`
	Progress       uint64    `json:"progress"`
	Restarts       uint64    `json:"restarts"`
	Deaths         uint64    `json:"deaths"`
	KillsDecided   uint64    `json:"kills_decided"`
	KillsForbidden uint64    `json:"kills_forbidden"`
	Probes         uint64    `json:"probes"`
	ProbeFailures  uint64    `json:"probe_failures"`
}

// LoopAt is one loop of a server that is alive, as it was read. Times in ns.
type LoopAt struct {
	Generation uint64 `json:"generation"` // of its server
	Loop       int    `json:"loop"`
	State      string `json:"state"`
	Iterations uint64 `json:"iterations"`
	Events     uint64 `json:"events"`
	Posts      uint64 `json:"posts"`
	Sleeps     uint64 `json:"sleeps"`
	Busy       uint64 `json:"busy_ns"`
	Lag        uint64 `json:"lag_ns"`
	MaxLag     uint64 `json:"max_lag_ns"`
	MaxHandler uint64 `json:"max_handler_ns"`
	Handlers   uint64 `json:"handlers"`
	P50        uint64 `json:"handler_p50_ns"`
	P99        uint64 `json:"handler_p99_ns"`
	P999       uint64 `json:"handler_p999_ns"`

	took     eventloop.Histogram
	Requests uint64 `json:"requests"` // by this loop of any server that used the bank
}

// Sum is the value of m over all loops of all servers, dead ones too, and the supervisors.
func (r *Region) Sum(m Metric) uint64 {
	n := r.Manager().Load(m) + r.Cop().Load(m)
	for b := range uint64(Banks) {
		bank := r.Bank(b)
		for i := range MaxLoops {
			n += bank.Row(i).Load(m)
		}
	}
	// Rows are read one after the other, and a connection may be counted out on one before it is seen in on
	// another.
	if table[m].Kind == Gauge && int64(n) < 0 {
		return 0
	}
	return n
}

// Snapshot reads everything.
func (r *Region) Snapshot() *Snapshot {
	s := &Snapshot{Since: r.Created(), Metrics: map[string]uint64{}, Roles: map[string]RoleAt{}, Loops: []LoopAt{}}
	for m := range numMetrics {
		s.Metrics[table[m].JSONName()] = r.Sum(m)
	}
	for id := range numRoles {
		s.Roles[id.String()] = r.Role(id).read()
	}
	for b := range uint64(Banks) {
		bank := r.Bank(b)
		for i := range bank.Loops() {
			s.Loops = append(s.Loops, bank.loop(i))
		}
	}
	var took eventloop.Histogram
	for _, l := range s.Loops {
		took.Add(l.took)
	}
	s.Metrics["loop_handler_p999_ns"] = uint64(took.Quantile(0.999))
	return s
}

func (o *Role) read() RoleAt {
	at := RoleAt{
		PID: int(o.PID.Load()), StartTime: o.StartTime.Load(), Generation: o.Generation.Load(),
		State: State(o.State.Load()).String(), Progress: o.Progress.Load(),
		Restarts: o.Restarts.Load(), Deaths: o.Deaths.Load(),
		KillsDecided: o.KillsDecided.Load(), KillsForbidden: o.KillsForbidden.Load(),
		Probes: o.Probes.Load(), ProbeFailures: o.ProbeFailures.Load(),
	}
	if ns := o.Started.Load(); ns != 0 {
		at.Started = time.Unix(0, int64(ns))
	}
	return at
}

func (b Bank) loop(i int) LoopAt {
	c := b.Cell(i)
	took := c.Handlers()
	return LoopAt{
		took: took, Handlers: took.Count(),
		P50: uint64(took.Quantile(0.5)), P99: uint64(took.Quantile(0.99)), P999: uint64(took.Quantile(0.999)),
		Generation: b.Generation(), Loop: i, State: eventloop.State(c.State.Load()).String(),
		Iterations: c.Iterations.Load(), Events: c.Events.Load(), Posts: c.Posts.Load(), Sleeps: c.Sleeps.Load(),
		Busy: c.Busy.Load(), Lag: c.Lag.Load(), MaxLag: c.MaxLag.Load(), MaxHandler: c.MaxHandler.Load(),
		Requests: b.Row(i).Load(Requests),
	}
}

const prefix = "trafficd_"

// ContentType is that of WritePrometheus.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// A promWriter writes the text exposition format, version 0.0.4: HELP and TYPE once per family, its samples together.
type promWriter struct {
	*bufio.Writer
}

func (p promWriter) family(name, help string, kind MetricKind) {
	p.WriteString("# HELP " + prefix + name + " " + escapeHelp(help) + "\n# TYPE " + prefix + name + " " + kind.String() + "\n")
}

// sample writes one line. labels are name, value pairs.
func (p promWriter) sample(name, value string, labels ...string) {
	p.WriteString(prefix + name)
	for i := 0; i < len(labels); i += 2 {
		sep := ","
		if i == 0 {
			sep = "{"
		}
		p.WriteString(sep + labels[i] + `="` + escapeLabel(labels[i+1]) + `"`)
	}
	if len(labels) > 0 {
		p.WriteByte('}')
	}
	p.WriteString(" " + value + "\n")
}

var (
	helpEscaper  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	labelEscaper = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

func escapeHelp(s string) string  { return helpEscaper.Replace(s) }
func escapeLabel(s string) string { return labelEscaper.Replace(s) }

// number writes n in its base unit: seconds for ns.
func number(n uint64, unit string) string {
	if unit == "ns" {
		return strconv.FormatFloat(float64(n)/1e9, 'g', -1, 64)
	}
	return strconv.FormatUint(n, 10)
}

// WritePrometheus writes everything in the Prometheus text format, summed over the loops, and the loops' lag one by one.
func (r *Region) WritePrometheus(w io.Writer) error {
	p := promWriter{bufio.NewWriter(w)}
	for m, d := range table {
		if d.Help == "" {
			continue // written with the first of its family
		}
		p.family(d.Family, d.Help, d.Kind)
		for k := Metric(m); k < numMetrics; k++ {
			e := table[k]
			switch {
			case e.Family != d.Family:
			case e.Label == "":
				p.sample(e.Family, number(r.Sum(k), e.Unit))
			default:
				p.sample(e.Family, number(r.Sum(k), e.Unit), e.Label, e.Value)
			}
		}
	}
	snap := r.Snapshot()
	p.roles(snap)
	p.loops(snap)
	return p.Flush()
}

func (p promWriter) roles(s *Snapshot) {
	for _, f := range []struct {
		name, help string
		kind       MetricKind
		of         func(RoleAt) uint64
	}{
		{"process_up", "1 if the process is ready.", Gauge, func(r RoleAt) uint64 { return bit(r.State == Ready.String()) }},
		{"process_generation", "Number of the present process of the role, from 1.", Gauge, func(r RoleAt) uint64 { return r.Generation }},
		{"process_restarts_total", "Processes started after the first.", Counter, func(r RoleAt) uint64 { return r.Restarts }},
		{"process_deaths_total", "Processes that died without being asked to.", Counter, func(r RoleAt) uint64 { return r.Deaths }},
		{"process_kills_total", "Kills that the kill gate let through.", Counter, func(r RoleAt) uint64 { return r.KillsDecided }},
		{"process_kills_forbidden_total", "Kills that the policy forbade.", Counter, func(r RoleAt) uint64 { return r.KillsForbidden }},
		{"process_probes_total", "Heartbeats asked for.", Counter, func(r RoleAt) uint64 { return r.Probes }},
		{"process_probe_failures_total", "Heartbeats that failed.", Counter, func(r RoleAt) uint64 { return r.ProbeFailures }},
	} {
		p.family(f.name, f.help, f.kind)
		for _, name := range roleNames {
			p.sample(f.name, number(f.of(s.Roles[name]), ""), "role", name)
		}
	}
}

func bit(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

func (p promWriter) loops(s *Snapshot) {
	for _, f := range []struct {
		name, help, unit string
		kind             MetricKind
		of               func(LoopAt) uint64
	}{
		{"loop_lag_seconds", "Time the loop's last turn with work took.", "ns", Gauge, func(l LoopAt) uint64 { return l.Lag }},
		{"loop_lag_max_seconds", "Longest such time so far.", "ns", Gauge, func(l LoopAt) uint64 { return l.MaxLag }},
		{"loop_handler_max_seconds", "Longest single handler so far.", "ns", Gauge, func(l LoopAt) uint64 { return l.MaxHandler }},
		{"loop_handler_p999_seconds", "Time that 999 of 1000 handlers did not exceed so far.", "ns", Gauge, func(l LoopAt) uint64 { return l.P999 }},
		{"loop_busy_seconds_total", "Time the loop spent in handlers.", "ns", Counter, func(l LoopAt) uint64 { return l.Busy }},
		{"loop_iterations_total", "Turns of the loop.", "", Counter, func(l LoopAt) uint64 { return l.Iterations }},
		{"loop_events_total", "Events handled by the loop.", "", Counter, func(l LoopAt) uint64 { return l.Events }},
	} {
		p.family(f.name, f.help, f.kind)
		for _, l := range s.Loops {
			p.sample(f.name, number(f.of(l), f.unit), "generation", strconv.FormatUint(l.Generation, 10), "loop", strconv.Itoa(l.Loop))
		}
	}
	p.handlers(s)
}

// handlers writes how long handlers took, as a histogram for each loop.
func (p promWriter) handlers(s *Snapshot) {
	const name = "loop_handler_seconds"
	p.WriteString("# HELP " + prefix + name + " How long handlers took.\n# TYPE " + prefix + name + " histogram\n")
	for _, l := range s.Loops {
		labels := []string{"generation", strconv.FormatUint(l.Generation, 10), "loop", strconv.Itoa(l.Loop)}
		n := uint64(0)
		for i, bound := range eventloop.Bounds {
			n += l.took[i]
			p.sample(name+"_bucket", number(n, ""), append(labels, "le", number(bound, "ns"))...)
		}
		p.sample(name+"_bucket", number(l.Handlers, ""), append(labels, "le", "+Inf")...)
		p.sample(name+"_sum", number(l.Busy, "ns"), labels...)
		p.sample(name+"_count", number(l.Handlers, ""), labels...)
	}
}
