package harness

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// Metrics are the samples of one Prometheus text page, by name with labels as printed.
type Metrics map[string]float64

var (
	sampleLine  = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{[^}]*\})? ([-+0-9.eE]+|[-+]?Inf|NaN)$`)
	commentLine = regexp.MustCompile(`^# (HELP [a-zA-Z_:][a-zA-Z0-9_:]* .+|TYPE [a-zA-Z_:][a-zA-Z0-9_:]* (counter|gauge|histogram|summary|untyped))$`)
)

// ParseMetrics is strict about the text format: a comment is HELP or TYPE, every other line
// is a sample, a sample's family has a TYPE before it, and no sample comes twice.
func ParseMetrics(text string) (Metrics, error) {
	m, typed := Metrics{}, map[string]bool{}
	if !strings.HasSuffix(text, "\n") {
		return nil, fmt.Errorf("metrics do not end in a line feed")
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case line == "":
		case strings.HasPrefix(line, "#"):
			if !commentLine.MatchString(line) {
				return nil, fmt.Errorf("bad comment %q", line)
			}
			if f := strings.Fields(line); f[1] == "TYPE" {
				typed[f[2]] = true
			}
		default:
			if err := m.addSample(line, typed); err != nil {
				return nil, err
			}
		}
	}
	return m, nil
}

func (m Metrics) addSample(line string, typed map[string]bool) error {
	f := sampleLine.FindStringSubmatch(line)
	if f == nil {
		return fmt.Errorf("bad sample %q", line)
	}
	if !typed[f[1]] && !typed[family(f[1])] {
		return fmt.Errorf("sample %q has no TYPE before it", line)
	}
	if _, twice := m[f[1]+f[2]]; twice {
		return fmt.Errorf("sample %q comes twice", line)
	}
	v, err := strconv.ParseFloat(f[3], 64)
	if err != nil {
		return fmt.Errorf("sample %q: %w", line, err)
	}
	m[f[1]+f[2]] = v
	return nil
}

// family is the metric that a sample of a histogram or summary belongs to.
func family(name string) string {
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if f, ok := strings.CutSuffix(name, suffix); ok {
			return f
		}
	}
	return name
}

// Metrics fetches /metrics from the autoconfiguration port.
func (p *Trafficd) Metrics() Metrics {
	p.t.Helper()
	r := NewClient(p.t, p.Autoconf).Get("/metrics")
	if r.Status != 200 {
		p.t.Fatalf("/metrics answered %d", r.Status)
	}
	m, err := ParseMetrics(string(r.Body))
	if err != nil {
		p.t.Fatal(err)
	}
	return m
}

// Expect waits until the counter has the value: counters of a request are final a moment
// after its answer was sent.
func (p *Trafficd) Expect(name string, want float64) {
	p.t.Helper()
	p.ExpectMetric(name, fmt.Sprint(want), func(v float64) bool { return v == want })
}

// ExpectMetric waits until the metric is as cond wants it.
func (p *Trafficd) ExpectMetric(name, want string, cond func(float64) bool) {
	p.t.Helper()
	var got float64
	var there bool
	if !poll(Patience, func() bool {
		got, there = p.Metrics()[name]
		return there && cond(got)
	}) {
		p.t.Fatalf("metric %s: got %v (present: %v), want %s", name, got, there, want)
	}
}

// ExpectPresent fails unless each named metric is there.
func (m Metrics) ExpectPresent(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, ok := m[name]; !ok {
			t.Errorf("metric %s is missing", name)
		}
	}
}
