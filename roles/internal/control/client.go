package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"syscall"
	"time"

	"trafficd/roles/internal/crash"
	"trafficd/roles/internal/exitcode"
	"trafficd/roles/internal/runroot"
	"trafficd/roles/internal/stats"
)

// ErrNotRunning is matched by the error of a request that found nobody at the socket.
var ErrNotRunning = errors.New("no manager answers")

// A DialError is why there was no connection: the manager has not been asked anything.
type DialError struct{ Err error }

func (e *DialError) Error() string { return e.Err.Error() }
func (e *DialError) Unwrap() error { return e.Err }

// maxAnswer bounds what a client reads.
const maxAnswer = 16 << 20

// dialTime bounds how long the manager's accept queue may stay full.
const dialTime = 2 * time.Second

// Client asks an instance. It may be used by any goroutine.
type Client struct {
	path string // immutable
	http *http.Client
}

// Dial makes a client of the control socket at path. It connects with each request.
func Dial(path string) *Client {
	c := &Client{path: path}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			u, err := runroot.DialUnix(path, runroot.Stream, dialTime)
			if err != nil {
				return nil, &DialError{err}
			}
			return u, nil
		},
		// A manager can be replaced between two requests; a connection of the old one is no use.
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: 64 << 10,
	}}
	return c
}

// Status asks for the status.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	var s Status
	return &s, c.do(ctx, http.MethodGet, PathStatus, nil, &s)
}

// Stats asks for the counters whose names match the pattern (path.Match); "" is all.
func (c *Client) Stats(ctx context.Context, pattern string) (*stats.Snapshot, error) {
	var s stats.Snapshot
	p := PathStats
	if pattern != "" {
		p += "?" + url.Values{"match": {pattern}}.Encode()
	}
	return &s, c.do(ctx, http.MethodGet, p, nil, &s)
}

// Configuration asks for the configuration in force.
func (c *Client) Configuration(ctx context.Context) (*Configuration, error) {
	var a Configuration
	return &a, c.do(ctx, http.MethodGet, PathConfig, nil, &a)
}

// Check asks what a reload would do.
func (c *Client) Check(ctx context.Context) (*Verdict, error) {
	var v Verdict
	return &v, c.do(ctx, http.MethodPost, PathConfigCheck, nil, &v)
}

// Reload asks for a reload and waits for the verdict.
func (c *Client) Reload(ctx context.Context) (*Verdict, error) {
	var v Verdict
	return &v, c.do(ctx, http.MethodPost, PathConfigReload, nil, &v)
}

// Restart asks for a new process and waits for it, see Restarted.
func (c *Client) Restart(ctx context.Context, r Restart) (*Restarted, error) {
	var a Restarted
	return &a, c.do(ctx, http.MethodPost, PathRestart, r, &a)
}

// Drain asks the server to drain.
func (c *Client) Drain(ctx context.Context, d Drain) error {
	return c.do(ctx, http.MethodPost, PathDrain, d, nil)
}

// Stop asks the instance to stop. It returns when that is under way.
func (c *Client) Stop(ctx context.Context, s Stop) error {
	return c.do(ctx, http.MethodPost, PathStop, s, nil)
}

// Upgrade begins an upgrade. An error says that nothing has happened.
func (c *Client) Upgrade(ctx context.Context, u Upgrade) (*UpgradeReport, error) {
	var r UpgradeReport
	return &r, c.do(ctx, http.MethodPost, PathUpgrade, u, &r)
}

// CacheStats asks for the state of the cache.
func (c *Client) CacheStats(ctx context.Context) (*CacheStats, error) {
	var s CacheStats
	return &s, c.do(ctx, http.MethodGet, PathCache, nil, &s)
}

// CacheLookup asks what is stored for a URL.
func (c *Client) CacheLookup(ctx context.Context, of string) (*CacheStored, error) {
	var s CacheStored
	return &s, c.do(ctx, http.MethodGet, PathCacheLookup+"?"+url.Values{"url": {of}}.Encode(), nil, &s)
}

// CachePurge has something purged, and returns when it is gone.
func (c *Client) CachePurge(ctx context.Context, p CachePurge) (*CachePurged, error) {
	var a CachePurged
	return &a, c.do(ctx, http.MethodPost, PathCachePurge, p, &a)
}

// ReopenLog has every process reopen its log.
func (c *Client) ReopenLog(ctx context.Context) error {
	return c.do(ctx, http.MethodPost, PathLogReopen, nil, nil)
}

// Crashes asks for the records of deaths.
func (c *Client) Crashes(ctx context.Context) (*Crashes, error) {
	var a Crashes
	return &a, c.do(ctx, http.MethodGet, PathCrashes, nil, &a)
}

// Crash asks for one record, by its ID, the beginning of it, or "last".
func (c *Client) Crash(ctx context.Context, id string) (*crash.Record, error) {
	var r crash.Record
	return &r, c.do(ctx, http.MethodGet, PathCrashes+"/"+url.PathEscape(id), nil, &r)
}

func (c *Client) do(ctx context.Context, method, path string, body, answer any) error {
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
		in = bytes.NewReader(b)
	}
	// The host means nothing on a Unix socket, but HTTP/1.1 must name one.
	req, err := http.NewRequestWithContext(ctx, method, "http://trafficd"+path, in)
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.explain(err)
	}
	defer resp.Body.Close()
	return readAnswer(resp, answer)
}

func readAnswer(resp *http.Response, answer any) error {
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read answer of the manager: %w", err)
	}
	if resp.StatusCode >= 400 {
		var e errorBody
		if json.Unmarshal(b, &e) != nil || e.Error == nil {
			return Errorf(resp.StatusCode, exitcode.Failed, "manager answered %s", resp.Status)
		}
		e.Error.Status = resp.StatusCode
		return e.Error
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(b, answer); err != nil {
		return fmt.Errorf("answer of the manager: %w", err)
	}
	return nil
}

// explain makes what the system said an error that tells the operator what it means.
func (c *Client) explain(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return exitcode.Errorf(exitcode.NotRunning, "%w at %s", ErrNotRunning, c.path)
	case errors.Is(err, os.ErrPermission):
		return exitcode.Errorf(exitcode.Permission, "%s: %w", c.path, err)
	}
	return fmt.Errorf("ask the manager at %s: %w", c.path, err)
}
