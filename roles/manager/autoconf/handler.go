package autoconf

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"trafficd/roles/internal/heartbeat"
	"trafficd/roles/internal/stats"
)

// ContentType is that of a proxy autoconfiguration file.
const ContentType = "application/x-ns-proxy-autoconfig"

// Options is what a Handler is made of.
type Options struct {
	Pulse   func(context.Context) bool // passes through the manager's loop; false: it does not turn
	Metrics func(io.Writer) error      // writes the Prometheus text
	Failed  func(path string, err error)
}

// Settings is what the configuration says.
type Settings struct {
	Proxies []netip.AddrPort // where the listeners listen
	Forward bool             // there are clients that may use them as forward proxies
	PACFile string           // "": generated
}

// Handler serves the port. Safe for concurrent use.
type Handler struct {
	o        Options // immutable
	settings atomic.Pointer[Settings]
	file     file
}

// New makes a Handler with no proxies. Every field of o is required.
func New(o Options) *Handler {
	h := &Handler{o: o}
	h.Set(Settings{})
	return h
}

// Set takes over new settings; answers under way keep the old ones.
func (h *Handler) Set(s Settings) { h.settings.Store(&s) }

const index = `trafficd
/proxy.pac      proxy autoconfiguration
/wpad.dat       the same, where browsers look for it by themselves
/synthetic.txt  heartbeat
/metrics        counters for Prometheus
`

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !plain(r) {
		w.Header().Set("Connection", "close")
	}
	serve := map[string]func(http.ResponseWriter, *http.Request){
		"/":            h.index,
		"/proxy.pac":   h.pac,
		"/wpad.dat":    h.pac,
		heartbeat.Path: h.heartbeat,
		"/metrics":     h.metrics,
	}[r.URL.Path]
	switch {
	case serve == nil:
		http.NotFound(w, r)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
	default:
		serve(w, r)
	}
}

// plain reports whether a request is of the kind that belongs here, so that there is no doubt where the next one begins. Others are the
// last of their connection: what one with both Transfer-Encoding and Content-Length has behind it may be meant for
// somebody else (RFC 9112 §6.1), and net/http shows no more than that it was chunked, and of HTTP/1.0 not even that.
func plain(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) && r.ContentLength == 0 && len(r.TransferEncoding) == 0 && r.ProtoAtLeast(1, 1)
}

func (h *Handler) index(w http.ResponseWriter, r *http.Request) {
	answer(w, r, "text/plain; charset=utf-8", []byte(index))
}

func (h *Handler) pac(w http.ResponseWriter, r *http.Request) {
	s := h.settings.Load()
	if s.PACFile == "" {
		local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		answer(w, r, ContentType, []byte(generate(s, reachedAs(r.Host, local))))
		return
	}
	text, err := h.file.read(s.PACFile)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	answer(w, r, ContentType, text)
}

func (h *Handler) heartbeat(w http.ResponseWriter, r *http.Request) {
	if !h.o.Pulse(r.Context()) {
		http.Error(w, "the manager is ending", http.StatusServiceUnavailable)
		return
	}
	answer(w, r, "text/plain", []byte(heartbeat.Page))
}

func (h *Handler) metrics(w http.ResponseWriter, r *http.Request) {
	var b bytes.Buffer
	if err := h.o.Metrics(&b); err != nil {
		h.fail(w, r, err)
		return
	}
	answer(w, r, stats.ContentType, b.Bytes())
}

// fail says that something is wrong here, and only to the log, what.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	h.o.Failed(r.URL.Path, err)
	http.Error(w, "not available", http.StatusInternalServerError)
}

// answer writes a complete response. Nothing here may be kept by a cache: all of it is about
// this moment.
func answer(w http.ResponseWriter, r *http.Request, contentType string, body []byte) {
	hd := w.Header()
	hd.Set("Content-Type", contentType)
	hd.Set("Content-Length", strconv.Itoa(len(body)))
	hd.Set("Cache-Control", "no-store")
	hd.Set("X-Content-Type-Options", "nosniff")
	if r.Method != http.MethodHead {
		// The client may be gone; then nobody is left to be told.
		_, _ = w.Write(body)
	}
}

// The limits of a connection. Nobody has a reason to be slow here.
const (
	headTime  = 5 * time.Second
	readTime  = 10 * time.Second
	writeTime = 30 * time.Second
	idleTime  = 60 * time.Second
	maxHead   = 16 << 10
)

// NewServer is an HTTP server with the port's limits.
func NewServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: headTime, ReadTimeout: readTime, WriteTimeout: writeTime,
		IdleTimeout: idleTime, MaxHeaderBytes: maxHead, ErrorLog: nil,
	}
}
