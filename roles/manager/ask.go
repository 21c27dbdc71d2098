package manager

import (
	"context"
	"encoding/json"
	"fmt"
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
