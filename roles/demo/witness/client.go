package witness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/textproto"
	"slices"
	"strings"
	"time"
)

// Client is one client of one kind. Run may be called once.
type Client struct {
	kind  Kind
	index int     // of its kind
	opts  Options // with nothing left open; immutable
	tally Tally

	// Owned by Run's goroutine.
	rng    *rand.Rand
	w      *wire // the connection; nil: none
	asked  int   // requests on it
	serial uint64
}

// NewClient makes the index-th client of a kind. Two clients of a run must not
// have the same kind and index: the numbers of their objects and uploads would
// be the same.
func NewClient(kind Kind, index int, opts Options) *Client {
	opts = opts.withDefaults()
	return &Client{
		kind: kind, index: index, opts: opts,
		rng: rand.New(rand.NewPCG(opts.Seed, uint64(kind)<<32|uint64(index))),
	}
}

// Run is the client's life. When ctx ends it begins nothing new, but finishes
// and checks what is under way.
func (k *Client) Run(ctx context.Context) {
	defer k.drop()
	lives[k.kind](k, ctx)
}

// misstep is an error at an offset of a body.
type misstep struct {
	offset int64
	seen   string
}

func (m *misstep) Error() string { return m.seen }

func wrongAt(offset int64, format string, args ...any) error {
	return &misstep{offset, fmt.Sprintf(format, args...)}
}

// fail counts a failure and gives up the connection, on which nothing can be
// relied on any more.
func (k *Client) fail(line string, err error) {
	f := Failure{At: time.Now(), Kind: k.kind, Client: k.index, Line: line, Offset: -1, Seen: explain(err)}
	if k.w != nil {
		f.Conn, f.Request = int(k.tally.conns.Load()), k.asked
	}
	var m *misstep
	if errors.As(err, &m) {
		f.Offset = m.offset
	}
	k.tally.fail(f)
	k.drop()
}

func (k *Client) drop() {
	if k.w != nil {
		k.w.Close()
		k.w = nil
	}
}

// connect opens the connection if there is none.
func (k *Client) connect() error {
	if k.w != nil {
		return nil
	}
	began := time.Now()
	c, err := net.DialTimeout("tcp", k.opts.Addr, k.opts.Patience)
	if err != nil {
		return fmt.Errorf("connect: %s", explain(err))
	}
	k.tally.waited(began, time.Since(began))
	k.tally.conns.Add(1)
	k.w, k.asked = newWire(c, k.opts.Patience), 0
	k.w.waited = k.tally.waited
	return nil
}

// exchange is one request with all that belongs to it, on the client's
// connection. f says whether the connection can be used again.
func (k *Client) exchange(line string, f func(w *wire) (keep bool, err error)) bool {
	if err := k.connect(); err != nil {
		k.fail(line, err)
		return false
	}
	k.asked++
	keep, err := f(k.w)
	if err == nil && !keep {
		err = k.expectEnd()
	}
	if err != nil {
		k.fail(line, err)
		return false
	}
	k.tally.requests.Add(1)
	if !keep {
		k.drop()
	}
	return true
}

// expectEnd wants the connection closed in good order, and nothing before that.
func (k *Client) expectEnd() error {
	b, err := k.w.in.Peek(1)
	switch {
	case err == io.EOF:
		return nil
	case err != nil:
		return fmt.Errorf("instead of the end of the connection: %s", explain(err))
	}
	return fmt.Errorf("byte %#x after the answer that was the last", b[0])
}

// repeat calls f until ctx is over, with a pause for thought between, and one for
// breath after a failure.
func (k *Client) repeat(ctx context.Context, f func() bool) {
	for ctx.Err() == nil {
		d := k.about(k.opts.Think)
		if !f() {
			d = max(d, 50*time.Millisecond)
		}
		pause(ctx, d)
	}
}

// about is d, give or take half of it.
func (k *Client) about(d time.Duration) time.Duration {
	return d/2 + time.Duration(k.rng.Int64N(int64(d)+1))
}

// between is a number from low to high, each order of magnitude as likely as the
// other.
func (k *Client) between(low, high int64) int64 {
	if high <= low {
		return low
	}
	return min(high, int64(float64(low)*math.Pow(float64(high)/float64(low), k.rng.Float64())))
}

// number is that of an object nobody else uses.
func (k *Client) number() uint64 {
	k.serial++
	return uint64(k.kind+1)<<56 | uint64(k.index)<<32 | k.serial
}

// want is an answer that must come.
type want struct {
	method string
	obj    Object
	part   part
	rate   int // bytes a second at which the client takes it; 0: as they come
}

// closing is the field by which a client says that its request is the last one.
const closing = "Connection: close"

// head is a request head. Each field is a whole line.
func head(method, target string, lines ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: witness.test\r\n", method, target)
	for _, l := range lines {
		b.WriteString(l + "\r\n")
	}
	b.WriteString("\r\n")
	return b.String()
}

// get asks for the whole of an object.
func (k *Client) get(ctx context.Context, obj Object, rate int, lines ...string) bool {
	return k.ask(ctx, want{"GET", obj, part{200, 0, obj.Size}, rate}, lines...)
}

// ask is an exchange without a request body.
func (k *Client) ask(ctx context.Context, a want, lines ...string) bool {
	target := a.obj.Target()
	line := a.method + " " + target
	if len(lines) > 0 {
		line += " (" + strings.Join(lines, ", ") + ")"
	}
	return k.exchange(line, func(w *wire) (bool, error) {
		if _, err := io.WriteString(w, head(a.method, target, lines...)); err != nil {
			return false, err
		}
		keep, err := k.receive(ctx, w, a)
		// RFC 9112 section 9.6: who was asked to close does it, said or not.
		return keep && !slices.Contains(lines, closing), err
	})
}

// receive reads one answer and checks each part of it.
func (k *Client) receive(ctx context.Context, w *wire, a want) (keep bool, err error) {
	got, err := readAnswer(w.in, a.method)
	if err != nil {
		return false, fmt.Errorf("in place of the answer: %s", explain(err))
	}
	if err := checkInterim(got.interim, a.obj.Hints, 103); err != nil {
		return false, err
	}
	if err := checkHead(got, a); err != nil {
		return false, err
	}
	return got.keepAlive(), k.checkBody(ctx, &got.body, a)
}

// checkInterim allows one response with that status, and no other.
func checkInterim(interim []int, allowed bool, status int) error {
	if len(interim) == 0 || allowed && len(interim) == 1 && interim[0] == status {
		return nil
	}
	return fmt.Errorf("interim responses %d", interim)
}

func checkHead(got *answer, a want) error {
	if got.status != a.part.status {
		return fmt.Errorf("status %d in place of %d", got.status, a.part.status)
	}
	wanted := []struct {
		name, value string
		must        bool
	}{
		// RFC 9110 section 15.4.5: a 304 need not repeat what the client knows.
		{fieldToken, a.obj.token(), got.status != 304},
		{"ETag", a.obj.ETag(), true},
		{"Cache-Control", a.obj.cacheControl(), true},
		{"Content-Length", fmt.Sprint(a.part.to - a.part.from), a.obj.Framing == Length && got.status != 304 && a.method == "GET"},
		{"Content-Range", fmt.Sprintf("bytes %d-%d/%d", a.part.from, a.part.to-1, a.obj.Size), got.status == 206},
	}
	for _, f := range wanted {
		values := got.fields.all(f.name)
		if len(values) == 0 && !f.must || got.status == 304 && f.name == "Content-Length" {
			continue
		}
		if len(values) != 1 || values[0] != f.value {
			return fmt.Errorf("field %s is %q in place of %q", f.name, values, f.value)
		}
	}
	return checkNames(got.fields)
}

// known are the fields that the origin sends, and those that a proxy may add or
// replace.
var known = []string{
	fieldToken, "Etag", "Cache-Control", "Content-Length", "Content-Range", "Date", "Link", "Upgrade", "Connection",
	"Transfer-Encoding", "Via", "Age", "Accept-Ranges", "Cache-Status",
}

// checkNames wants no field that nobody can have sent, as it comes of a head
// that was put together from two.
func checkNames(all fields) error {
	for _, f := range all {
		if !slices.Contains(known, textproto.CanonicalMIMEHeaderKey(f.name)) {
			return fmt.Errorf("field %q: %q, that nobody sends", f.name, f.value)
		}
	}
	return nil
}

// checkBody reads the body to its end and compares each byte.
func (k *Client) checkBody(ctx context.Context, b *body, a want) error {
	if a.method == "HEAD" || a.part.status == 304 {
		return nil
	}
	content := Body{k.opts.Seed, a.obj.Number}
	buf := make([]byte, 16<<10)
	pace := newPacer(a.rate)
	for off := a.part.from; ; {
		n, err := b.Read(buf[:min(len(buf), pieceSize(a.rate))])
		if i := content.Check(buf[:n], off); i >= 0 {
			return wrongAt(off+int64(i), "byte %#x in place of %#x", buf[i], content.at(off+int64(i)))
		}
		off += int64(n)
		k.tally.bytes.Add(int64(n))
		switch {
		case off > a.part.to:
			return wrongAt(off, "%d bytes too many", off-a.part.to)
		case err == io.EOF && off < a.part.to:
			return wrongAt(off, "the body ends %d bytes early", a.part.to-off)
		case err == io.EOF:
			return nil
		case err != nil:
			return wrongAt(off, "%s, %d bytes early", explain(err), a.part.to-off)
		}
		pause(ctx, pace.owed(int64(n)))
	}
}
