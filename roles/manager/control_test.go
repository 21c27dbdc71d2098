package manager

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"trafficd/roles/internal/control"
	"trafficd/roles/internal/exitcode"
	"trafficd/roles/internal/heartbeat"
	"trafficd/roles/internal/link"
	"trafficd/roles/internal/runroot"
)

// ask sends one request to the control socket's handler.
func (w *world) ask(method, target, body string) *httptest.ResponseRecorder {
	r := httptest.NewRecorder()
	(&controller{w.m}).ServeHTTP(r, httptest.NewRequest(method, target, strings.NewReader(body)))
	return r
}

func TestControlRequests(t *testing.T) {
	story(t, "", func(w *world) {
		w.server(1).serves()
		for _, tt := range []struct {
			method, target, body string
			status               int
			contains             string
		}{
			{"GET", "/v1/status", "", 200, `"phase":"running"`},
			{"HEAD", "/v1/status", "", 200, ""},
			{"GET", "/v1/stats", "", 200, `"queue_depth"`},
			{"GET", "/v1/stats?match=queue_*", "", 200, `"queue_depth"`},
			{"GET", "/v1/stats?match=nothing", "", 200, `"metrics":{}`},
			{"GET", "/v1/stats?match=[", "", 400, "syntax error in pattern"},
			{"GET", "/v1/config", "", 200, `"effective":"`},
			{"POST", "/v1/config/check", "", 200, `"changes":[]`},
			{"POST", "/v1/config/reload", "", 200, `"generation":2`},
			{"POST", "/v1/log/reopen", "", 200, "{}"},
			{"POST", "/v1/restart", `{"role":"cop"}`, 400, "cannot be restarted"},
			{"POST", "/v1/restart", `{"role":"manager","now":true}`, 400, "nothing to drain"},
			{"POST", "/v1/restart", `{"role":"manager"}`, 503, "no cop is there"},
			{"POST", "/v1/restart", `{"rol":"server"}`, 400, "unknown field"},
			{"POST", "/v1/drain", `{"undo":1}`, 400, "cannot unmarshal"},
			{"POST", "/v1/stop", `[`, 400, "request body"},
			{"POST", "/v1/stop", `{"now":` + strings.Repeat(" ", control.MaxBody), 413, "longer"},
			{"POST", "/v1/status", "", 405, "by GET"},
			{"GET", "/v1/stop", "", 405, "by POST"},
			{"GET", "/v2/status", "", 404, "nothing is served"},
			{"GET", "/synthetic.txt", "", 200, heartbeat.Page},
		} {
			r := w.ask(tt.method, tt.target, tt.body)
			if r.Code != tt.status || !strings.Contains(r.Body.String(), tt.contains) {
				t.Errorf("%s %s %.40q: status %d, want %d; body %.300s", tt.method, tt.target, tt.body, r.Code, tt.status, r.Body)
			}
			if r.Code >= 400 {
				var e struct{ Error control.Error }
				if err := json.Unmarshal(r.Body.Bytes(), &e); err != nil || e.Error.Text == "" || e.Error.Exit == exitcode.OK {
					t.Errorf("%s %s: error %.300s", tt.method, tt.target, r.Body)
				}
			}
		}
		w.expect("ready", w.server(1))
	})
}

// The status has what the server that serves says of its troubles, and does without when it says nothing.
func TestTroubleInTheStatus(t *testing.T) {
	story(t, "", func(w *world) {
		s := w.server(1)
		s.serves()
		if r := w.ask("GET", "/v1/status", ""); r.Code != 200 || strings.Contains(r.Body.String(), "trouble") {
			t.Errorf("status %d, %s", r.Code, r.Body)
		}
		s.answersWith(opTrouble, `[{"what":"access log","state":"not written","since":"2026-11-23T01:02:03Z","reason":"no space"}]`)
		var st control.Status
		r := w.ask("GET", "/v1/status", "")
		if err := json.Unmarshal(r.Body.Bytes(), &st); err != nil || len(st.Trouble) != 1 || st.Trouble[0].Reason != "no space" {
			t.Errorf("%v, %s", err, r.Body)
		}
		s.refuses(opTrouble, &link.RemoteError{Code: link.CodeFailed, Text: "what?"}) // a server of an earlier version
		if r := w.ask("GET", "/v1/status", ""); r.Code != 200 || strings.Contains(r.Body.String(), "no space") {
			t.Errorf("status %d, %s", r.Code, r.Body)
		}
	})
}

// Whoever has the logs reopened is told when that is done, or why not.
func TestReopenOverControl(t *testing.T) {
	story(t, "", func(w *world) {
		s := w.server(1)
		s.serves()
		if r := w.ask("POST", "/v1/log/reopen", ""); r.Code != 200 || s.wasAsked(opReopen) != 1 {
			t.Errorf("status %d, and the server was asked %d times", r.Code, s.wasAsked(opReopen))
		}
		s.refuses(opReopen, &link.RemoteError{Code: link.CodeFailed, Text: "is a directory"})
		if r := w.ask("POST", "/v1/log/reopen", ""); r.Code != http.StatusConflict || !strings.Contains(r.Body.String(), "is a directory") {
			t.Errorf("status %d, %s", r.Code, r.Body)
		}
		s.refuses(opReopen, errNo) // it is gone, say
		if r := w.ask("POST", "/v1/log/reopen", ""); r.Code != 200 {
			t.Errorf("status %d, %s", r.Code, r.Body)
		}
	})
}

// The answer to a bad file carries the positions and the exit code.
func TestReloadOverControl(t *testing.T) {
	story(t, "", func(w *world) {
		w.server(1).serves()
		w.write("thread: 1\n")
		r := w.ask("POST", "/v1/config/reload", "")
		if r.Code != http.StatusUnprocessableEntity || !strings.Contains(r.Body.String(), `trafficd.yaml:3:1: unknown key \"thread\"`) || !strings.Contains(r.Body.String(), `"exit":78`) {
			t.Errorf("status %d, %s", r.Code, r.Body)
		}
	})
}

func TestRestartOverControl(t *testing.T) {
	story(t, "", func(w *world) {
		first := w.server(1)
		first.serves()
		answer := make(chan *httptest.ResponseRecorder)
		go func() { answer <- w.ask("POST", "/v1/restart", "") }()
		second := w.server(2)
		second.dials("starting")
		<-second.asksTurn()
		second.says("ready")
		var a control.Restarted
		r := <-answer
		if err := json.Unmarshal(r.Body.Bytes(), &a); err != nil || r.Code != 200 || a.PID != second.pid || a.Generation != 2 {
			t.Errorf("status %d, %s", r.Code, r.Body)
		}
	})
}

// Who waits for something when the manager ends is told so.
func TestControlWhenTheManagerEnds(t *testing.T) {
	story(t, "", func(w *world) {
		w.server(1)
		answer := make(chan *httptest.ResponseRecorder)
		go func() { answer <- w.ask("POST", "/v1/restart", "") }()
		w.server(1)
		w.on(func() { w.m.stop(stopping) })
		if r := <-answer; r.Code < 500 {
			t.Errorf("status %d, %s", r.Code, r.Body)
		}
		<-w.over
		if r := w.ask("GET", "/v1/status", ""); r.Code != http.StatusServiceUnavailable {
			t.Errorf("status %d, %s", r.Code, r.Body)
		}
	})
}

// The heartbeat as cop asks for it, over a real socket: it passes while the loop turns, and
// not when it hangs.
func TestHeartbeatNeedsTheLoop(t *testing.T) {
	m := &manager{events: make(chan func()), over: make(chan struct{})}
	path := filepath.Join(t.TempDir(), "control.sock")
	l, err := runroot.ListenUnix(path, runroot.Stream)
	if err != nil {
		t.Fatal(err)
	}
	stop := m.serveHTTP(newControlServer(&controller{m}), trusting{l})
	defer stop()
	turns := make(chan struct{})
	go func() {
		defer close(turns)
		(<-m.events)()
	}()
	if err := heartbeat.Probe(t.Context(), heartbeat.Unix(path), heartbeat.Path); err != nil {
		t.Errorf("while the loop turns: %v", err)
	}
	<-turns
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var f *heartbeat.Failure
	if err := heartbeat.Probe(ctx, heartbeat.Unix(path), heartbeat.Path); !errors.As(err, &f) || f.Kind != heartbeat.Timeout {
		t.Errorf("when it hangs: %v", err)
	}
}

// Whatever stands in a request: an answer that is JSON or the heartbeat page, and the loop
// goes on.
func FuzzControl(f *testing.F) {
	for _, s := range []struct{ method, path, body string }{
		{"GET", "/v1/status", ""}, {"POST", "/v1/restart", `{"role":"x"}`}, {"POST", "/v1/drain", `{"undo":true}`},
		{"PUT", "/v1/config", "{}"}, {"GET", "/v1/stats?match=[a-", ""}, {"GET", "/%00", "\xff"}, {"POST", "/v1/stop", "null1"},
	} {
		f.Add(s.method, s.path, s.body)
	}
	m := &manager{events: make(chan func()), over: make(chan struct{})}
	close(m.over) // what is not refused before it gets to the loop finds nobody there
	c := &controller{m}
	f.Fuzz(func(t *testing.T, method, target, body string) {
		r, err := http.NewRequest(method, "http://x"+target, strings.NewReader(body))
		if err != nil || r.URL.Host != "x" {
			return
		}
		w := httptest.NewRecorder()
		c.ServeHTTP(w, r)
		if !json.Valid(w.Body.Bytes()) {
			t.Fatalf("%s %q %q: %d %q", method, target, body, w.Code, w.Body)
		}
	})
}
