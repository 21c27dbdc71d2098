package manager

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"trafficd/roles/internal/control"
	"trafficd/roles/internal/exitcode"
)

// askLimit is the time a server has to answer what the control socket passes on to it.
const askLimit = 5 * time.Second

// asked is what a server answered.
type asked struct {
	body json.RawMessage
	err  error
}

// ask passes a question on to the server that serves. answer gets one value.
func (m *manager) ask(op string, body any, answer chan<- asked) {
	if m.active == nil || m.active.line == nil {
		answer <- asked{err: control.Errorf(http.StatusServiceUnavailable, exitcode.TryAgain, "no server serves")}
		return
	}
	l := m.active.line
	m.wg.Go(func() {
		ctx, cancel := context.WithTimeout(m.work, askLimit)
		defer cancel()
		reply, err := l.Call(ctx, op, body)
		if err != nil {
			answer <- asked{err: fmt.Errorf("ask the server for %s: %w", op, err)}
			return
		}
		answer <- asked{body: append(json.RawMessage(nil), reply.Body...)}
		reply.Close()
	})
}

// metricsLimit is the time a server has to tell of origins for the metrics, which can do without.
const metricsLimit = 500 * time.Millisecond

// maxOriginMetrics bounds the servers of which there are metrics: clients of a forward proxy name as many as they like.
const maxOriginMetrics = 1000

// writeOrigins writes what the server knows of the servers of origins in the Prometheus text format; nothing, if it does
// not say in time. The numbers begin anew with each server process, as counters of Prometheus may.
func (m *manager) writeOrigins(w io.Writer) error {
	ctx, cancel := context.WithTimeout(m.work, metricsLimit)
	defer cancel()
	answer := make(chan asked, 1)
	if !m.do(ctx, func() { m.ask(opOrigins, nil, answer) }) {
		return nil
	}
	var o control.Origins
	select {
	case a := <-answer:
		if a.err != nil || json.Unmarshal(a.body, &o) != nil {
			return nil
		}
	case <-ctx.Done():
		return nil
	}
	return writeOriginMetrics(w, o.Servers[:min(len(o.Servers), maxOriginMetrics)])
}

func writeOriginMetrics(w io.Writer, servers []control.OriginServer) error {
	b := bufio.NewWriter(w)
	for _, f := range []struct {
		name, kind, help string
		of               func(*control.OriginServer) int64
	}{
		{"origin_server_up", "gauge", "1 if the origin server gets requests.", func(s *control.OriginServer) int64 {
			if s.State == "up" {
				return 1
			}
			return 0
		}},
		{"origin_server_requests_total", "counter", "Requests sent to the origin server, each attempt counted.", func(s *control.OriginServer) int64 { return int64(s.Requests) }},
		{"origin_server_failures_total", "counter", "Of them, those that got no response.", func(s *control.OriginServer) int64 { return int64(s.Failures) }},
		{"origin_server_connections", "gauge", "Connections to the origin server's address.", func(s *control.OriginServer) int64 { return s.Connections }},
		{"origin_server_waiting", "gauge", "Requests that wait for one.", func(s *control.OriginServer) int64 { return s.Waiting }},
	} {
		if len(servers) == 0 {
			break
		}
		fmt.Fprintf(b, "# HELP trafficd_%s %s\n# TYPE trafficd_%s %s\n", f.name, f.help, f.name, f.kind)
		for i := range servers {
			s := &servers[i]
			fmt.Fprintf(b, "trafficd_%s{group=%q,server=%q} %d\n", f.name, s.Group, s.Server, f.of(s))
		}
	}
	return b.Flush()
}

// origins tells what the server knows of the servers of origins.
func (c *controller) origins(w http.ResponseWriter, r *http.Request) error {
	a, err := await(c, r, func(answer chan<- asked) { c.m.ask(opOrigins, nil, answer) })
	if err == nil {
		err = a.err
	}
	if err != nil {
		return err
	}
	control.Write(w, a.body)
	return nil
}
