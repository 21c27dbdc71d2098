package control

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"trafficd/roles/internal/exitcode"
	"trafficd/roles/internal/runroot"
)

// serve answers on a socket of its own with h.
func serve(t *testing.T, h http.Handler) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "control.sock")
	l, err := runroot.ListenUnix(path, runroot.Stream)
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: h}}
	s.Start()
	t.Cleanup(s.Close)
	return Dial(path)
}

func TestNobodyAtTheSocketIsNotRunning(t *testing.T) {
	_, err := Dial(filepath.Join(t.TempDir(), "control.sock")).Status(context.Background())
	if !errors.Is(err, ErrNotRunning) || exitcode.Of(err) != exitcode.NotRunning {
		t.Errorf("error %v with exit code %v, want ErrNotRunning and %v", err, exitcode.Of(err), exitcode.NotRunning)
	}
}

func TestAnswerIsDecoded(t *testing.T) {
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.Path != PathStatus {
			t.Errorf("got %s %s", r.Method, r.URL.Path)
		}
		w.Write([]byte(`{"phase":"running","server":{"pid":7},"added_later":1}`))
	}))
	s, err := c.Status(context.Background())
	if err != nil || s.Phase != "running" || s.Server.PID != 7 {
		t.Errorf("got %+v, %v", s, err)
	}
}

func TestRequestReachesTheOtherSide(t *testing.T) {
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var got Restart
		if err := Read(w, r, &got); err != nil || got != (Restart{Role: "server", Now: true}) {
			t.Errorf("got %+v, %v", got, err)
		}
		Write(w, Restarted{PID: 8, Generation: 2})
	}))
	a, err := c.Restart(context.Background(), Restart{Role: "server", Now: true})
	if err != nil || a.PID != 8 || a.Generation != 2 {
		t.Errorf("got %+v, %v", a, err)
	}
}

func TestRefusalCarriesItsExitCode(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want Error
	}{
		{"an Error", &Error{Text: "refused", Exit: exitcode.Config, Problems: []string{"a.yaml:1:2: bad"}, Status: 422},
			Error{Text: "refused", Exit: exitcode.Config, Problems: []string{"a.yaml:1:2: bad"}, Status: 422}},
		{"another error", errors.New("broken"), Error{Text: "broken", Exit: exitcode.Failed, Status: 500}},
		{"one with a code", exitcode.Errorf(exitcode.Permission, "no"), Error{Text: "no", Exit: exitcode.Permission, Status: 500}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { Refuse(w, tt.err) }))
			_, err := c.Reload(context.Background())
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("got %v, want an *Error", err)
			}
			if e.Error() != tt.want.Error() || e.Exit != tt.want.Exit || e.Status != tt.want.Status {
				t.Errorf("got %+v, want %+v", e, tt.want)
			}
		})
	}
}

func TestGarbageForAnAnswer(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		body   string
	}{
		{"success", 200, "nonsense"},
		{"failure", 500, "nonsense"},
		{"failure without an error", 500, "{}"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tt.status)
				w.Write([]byte(tt.body))
			}))
			if _, err := c.Status(context.Background()); err == nil || exitcode.Of(err) != exitcode.Failed {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestRequestBodies(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		status     int // 0: accepted
	}{
		{"empty", "", 0},
		{"blank", " \n", 0},
		{"complete", `{"now":true}`, 0},
		{"unknown field", `{"nwo":true}`, 400},
		{"wrong type", `{"now":1}`, 400},
		{"two values", `{"now":true}{}`, 400},
		{"no JSON", "now", 400},
		{"too long", `{"now":true` + strings.Repeat(" ", MaxBody) + "}", 413},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got Stop
			err := Read(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, PathStop, strings.NewReader(tt.body)), &got)
			var e *Error
			switch {
			case tt.status == 0 && err != nil:
				t.Errorf("refused: %v", err)
			case tt.status != 0 && (!errors.As(err, &e) || e.Status != tt.status):
				t.Errorf("got %v, want status %d", err, tt.status)
			}
		})
	}
}

// Whatever is sent: it is refused, or it means the same when it is written down again.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{"", "{}", `{"role":"server","now":true}`, `{"role":"manager"}`, `{"role":1}`, `{"x":`, "null", "[]", "\x00\xff", `{"role":"\ud800"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var first, second Restart
		if err := Decode(b, &first); err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Status != 400 || e.Exit != exitcode.Usage {
				t.Fatalf("refused with %v", err)
			}
			return
		}
		again, err := json.Marshal(first)
		if err != nil {
			t.Fatal(err)
		}
		if err := Decode(again, &second); err != nil || second != first {
			t.Fatalf("%q became %q: %+v, %v", b, again, second, err)
		}
	})
}
