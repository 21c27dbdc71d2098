package demo

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"trafficd/roles/demo/witness"
)

// scene is what there is to show at one instant.
type scene struct {
	at, of    time.Duration // into the killing, and how long that takes
	finishing bool          // no more kills: clients finish
	seed      uint64
	kills     map[string]int // by victim
	total     int            // processes killed
	last      []kill
	report    witness.Report
	probe     time.Duration // the worst request of a probe
	probeAt   time.Time     // when that began
	masked    string        // as the instance says; "–": it does not say
	resumed   string
	lost      string
}

func (r *run) scene() scene {
	s := scene{of: r.opts.duration, seed: r.opts.seed, report: r.crew.Report(), finishing: !r.ended.IsZero()}
	s.at = min(time.Since(r.begun), s.of)
	if s.finishing {
		s.at = min(r.ended.Sub(r.begun), s.of)
	}
	for _, row := range s.report.Rows {
		if (row.Kind == witness.ProbeNew || row.Kind == witness.ProbeKept) && row.Worst > s.probe {
			s.probe, s.probeAt = row.Worst, row.WorstAt
		}
	}
	r.killer.mu.Lock()
	s.kills, s.total, s.last = maps.Clone(r.killer.kills), r.killer.total, slices.Clone(r.killer.last)
	r.killer.mu.Unlock()
	s.masked, s.resumed, s.lost = r.said("crashes_masked_total"), r.said("requests_resumed_total"), r.said("requests_lost_total")
	return s
}

// said is a counter of the instance for people.
func (r *run) said(name string) string {
	if v, ok := r.stats.get(name); ok {
		return strconv.FormatUint(v, 10)
	}
	return "–"
}

// view shows scenes: on a terminal in place, elsewhere one line each.
type view struct {
	out   *os.File
	term  bool
	every time.Duration

	drawn    int     // lines on the terminal now
	requests int64   // at the last scene
	history  []int64 // requests of each of the last scenes
}

// historyLength is how many scenes the sparkline goes back.
const historyLength = 50

func newView(out *os.File) *view {
	v := &view{out: out, every: time.Second}
	if _, err := unix.IoctlGetTermios(int(out.Fd()), unix.TCGETS); err == nil && os.Getenv("TERM") != "dumb" {
		v.term, v.every = true, 200*time.Millisecond
		io.WriteString(out, "\x1b[?25l") // the cursor would flicker
	}
	return v
}

// end gives the terminal back.
func (v *view) end() {
	if v.term {
		io.WriteString(v.out, "\x1b[?25h\n")
	}
}

// draw shows a scene. An error is that of the output.
func (v *view) draw(s scene) error {
	if !v.term {
		_, err := fmt.Fprintln(v.out, s.line())
		return err
	}
	n := s.report.Total.Requests
	v.history = append(v.history, n-v.requests)
	v.history = v.history[max(0, len(v.history)-historyLength):]
	v.requests = n
	lines := s.lines(sparkline(v.history))
	width := 80
	if ws, err := unix.IoctlGetWinsize(int(v.out.Fd()), unix.TIOCGWINSZ); err == nil && ws.Col > 0 {
		width = int(ws.Col)
	}
	var b strings.Builder
	if v.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", v.drawn)
	}
	for _, l := range lines {
		// A line that wraps would be two, and the next scene would be drawn in the wrong place.
		b.WriteString("\x1b[2K" + clip(l, width-1) + "\n")
	}
	v.drawn = len(lines)
	_, err := io.WriteString(v.out, b.String())
	return err
}

// clip cuts a line to so many characters.
func clip(s string, width int) string {
	r := []rune(s)
	return string(r[:min(len(r), max(width, 0))])
}

// sparkline draws numbers as bars, the largest of them as a full one.
func sparkline(values []int64) string {
	const bars = " ▁▂▃▄▅▆▇█"
	all := []rune(bars)
	high := max(slices.Max(append(values, 1)), 1)
	var b strings.Builder
	for _, v := range values {
		b.WriteRune(all[max(v, 0)*int64(len(all)-1)/high])
	}
	return b.String()
}

// byRole is "server 4, cop 2".
func (s scene) byRole() string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(s.kills)) {
		parts = append(parts, fmt.Sprintf("%s %d", name, s.kills[name]))
	}
	return strings.Join(parts, ", ")
}

func (s scene) line() string {
	t := s.report.Total
	kills := strconv.Itoa(s.total)
	if s.total > 0 {
		kills += " (" + s.byRole() + ")"
	}
	return fmt.Sprintf("%5.1fs  kills %s  requests %d  %s  resumed %s  failures %d  worst probe %s",
		s.at.Seconds(), kills, t.Requests, witness.Bytes(t.Bytes), s.resumed, t.Failed, witness.Short(s.probe))
}

// lines are what a terminal shows; always as many.
func (s scene) lines(spark string) []string {
	t := s.report.Total
	phase := ""
	if s.finishing {
		phase = "   the clients finish"
	}
	lines := []string{
		fmt.Sprintf("trafficd demo crash   %.1f s of %.0f s   seed %d%s", s.at.Seconds(), s.of.Seconds(), s.seed, phase),
		"",
		fmt.Sprintf("processes killed  %-8d %s", s.total, s.byRole()),
		fmt.Sprintf("the instance says %s crashes masked, %s requests resumed, %s lost", s.masked, s.resumed, s.lost),
		"",
		fmt.Sprintf("clients           %-8d %d connections", t.Clients, t.Conns),
		fmt.Sprintf("requests          %-8d %s, every byte compared", t.Requests, witness.Bytes(t.Bytes)),
		fmt.Sprintf("failures          %d", t.Failed),
		fmt.Sprintf("worst probe       %-8s worst wait of any client %s", witness.Short(s.probe), witness.Short(t.Worst)),
		"requests          " + spark,
		"",
		"last kills",
	}
	for i := range lastKills {
		text := ""
		if n := len(s.last) - 1 - i; n >= 0 {
			text = fmt.Sprintf("  %s  %s %v", s.last[n].at.Format("15:04:05.000"), s.last[n].victim, s.last[n].pids)
		}
		lines = append(lines, text)
	}
	failure := ""
	if n := len(s.report.Failures); n > 0 {
		failure = "last failure: " + s.report.Failures[n-1].String()
	}
	return append(lines, "", failure)
}

// writeTable is the end of the show.
func (r *run) writeTable(report witness.Report) {
	fmt.Fprintln(r.out)
	report.Write(r.out, shownFailures)
	s := r.scene()
	t := tabwriter.NewWriter(r.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "\nprocesses killed\t%d", s.total)
	if s.total > 0 {
		fmt.Fprintf(t, " (%s)", s.byRole())
	}
	fmt.Fprintf(t, "\nin\t%.1f s, seed %d\n", s.at.Seconds(), s.seed)
	for _, c := range shownCounters {
		if v, ok := r.stats.get(c.name); ok {
			fmt.Fprintf(t, "%s\t%d\n", c.label, v)
		}
	}
	fmt.Fprintf(t, "worst probe\t%s", witness.Short(s.probe))
	if s.probe > 0 {
		fmt.Fprintf(t, ", at %s", s.probeAt.Format("15:04:05.000"))
	}
	fmt.Fprintln(t)
	fmt.Fprintf(t, "failures\t%d\n", report.Failed())
	t.Flush()
}
