package witness

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Row is what all clients of one kind have done.
type Row struct {
	Kind     Kind
	Clients  int
	Requests int64
	Bytes    int64
	Conns    int64
	Failed   int64
	Worst    time.Duration // see Tally.Worst
	WorstAt  time.Time
}

// Report is what a crew has done and seen so far.
type Report struct {
	Rows     []Row     // of the kinds that there are, in their order
	Total    Row       // Worst is the worst of all
	Failures []Failure // the first ones of each client, and what the origin knows, by time
	Broken   int       // exchanges that the origin saw broken off; no failures by themselves
}

// Report may be asked for at any time. After Run it is final.
func (c *Crew) Report() Report {
	var r Report
	for _, k := range c.clients {
		if len(r.Rows) == 0 || r.Rows[len(r.Rows)-1].Kind != k.kind {
			r.Rows = append(r.Rows, Row{Kind: k.kind})
		}
		r.Rows[len(r.Rows)-1].add(&k.tally)
		r.Total.add(&k.tally)
		r.Failures = append(r.Failures, k.tally.Failures()...)
	}
	if found := Audit(c.opts.Origin); len(found) > 0 {
		r.Rows = append(r.Rows, Row{Kind: OriginSide, Failed: int64(len(found))})
		r.Total.Failed += int64(len(found))
		r.Failures = append(r.Failures, found...)
	}
	r.Broken = c.opts.Origin.Broken()
	slices.SortStableFunc(r.Failures, func(a, b Failure) int { return a.At.Compare(b.At) })
	return r
}

func (r *Row) add(t *Tally) {
	r.Clients++
	r.Requests += t.Requests()
	r.Bytes += t.Bytes()
	r.Conns += t.Connections()
	r.Failed += t.Failed()
	if d, at := t.Worst(); d > r.Worst {
		r.Worst, r.WorstAt = d, at
	}
}

// Failed is the number of failures of all kinds, also those without words.
func (r Report) Failed() int64 { return r.Total.Failed }

// Audit asks the origin for what no client can see: an upload that came twice, an
// object of the cache that was fetched twice, bytes that were wrong on the way
// in.
func Audit(o *Origin) []Failure {
	var found []Failure
	add := func(at time.Time, line, format string, args ...any) {
		found = append(found, Failure{At: at, Kind: OriginSide, Line: line, Offset: -1, Seen: fmt.Sprintf(format, args...)})
	}
	again := o.Repeated()
	for _, line := range slices.Sorted(maps.Keys(again)) {
		add(o.lastOf(line), line, "came %d times, and should once", again[line])
	}
	for _, text := range o.Faults() {
		add(time.Now(), "what came", "%s", text)
	}
	return found
}

// Write writes the report as a table, and up to max of the failures below it.
func (r Report) Write(w io.Writer, max int) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "clients\t\trequests\tbytes\tconnections\tfailures\tworst wait\t")
	for i, row := range append(slices.Clone(r.Rows), r.Total) {
		name := "total"
		if i < len(r.Rows) {
			name = row.Kind.String()
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%s\t%d\t%d\t%s\t\n", name, row.Clients, row.Requests, Bytes(row.Bytes), row.Conns, row.Failed, Short(row.Worst))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	return r.writeFailures(w, max)
}

func (r Report) writeFailures(w io.Writer, max int) error {
	shown := r.Failures[:min(max, len(r.Failures))]
	var b strings.Builder
	for _, f := range shown {
		fmt.Fprintf(&b, "  %s\n", f)
	}
	if more := r.Total.Failed - int64(len(shown)); more > 0 && max > 0 {
		fmt.Fprintf(&b, "  … and %d more\n", more)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Bytes writes a number of bytes for people.
func Bytes(n int64) string {
	f, unit := float64(n), 0
	for f >= 1000 && unit < 4 {
		f /= 1000
		unit++
	}
	if unit == 0 {
		return strconv.FormatInt(n, 10) + " B"
	}
	return fmt.Sprintf("%.1f %cB", f, " kMGT"[unit])
}

// Short writes a duration with as many digits as people read.
func Short(d time.Duration) string {
	return d.Round(cmp.Or(d/1000, 1)).Round(time.Microsecond * 10).String()
}
