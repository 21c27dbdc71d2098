package e2e

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"trafficd/e2e/harness"
)

// The corpus of ambiguous and malformed messages: RFC 9112 §11.1 (response splitting) and §11.2
// (request smuggling) as tables. Each row is sent to the real binary on a connection of its own,
// with an ordinary request, the sentinel, right behind it. A row is refused, and then nothing of
// what follows is taken for a request; or it passes, and then the origin gets it in the one form
// that RawOrigin knows, and the sentinel behind it as a request of its own.

// strictRow is a request as it goes on the wire.
type strictRow struct {
	name, rfc string
	raw       string

	// want is how it may end: statuses of a refusal, "cut" for a connection that ends without one,
	// "pass" for it and the sentinel; "200" for it alone.
	want string
	// sees is what the request has in the form that the origin gets: "name: value" of a field,
	// "!name" for a field that it must not have, "=body", or the beginning of the request line.
	sees []string
}

const sentinel = "GET /sentinel HTTP/1.1\r\nHost: h.test\r\nConnection: close\r\n\r\n"

// number makes the targets of a row its own: /r is /r7 in the seventh. What a proxy has begun to
// send for a row that it refuses may reach the origin when the next one is being played.
func (row strictRow) number(i int) strictRow {
	of := strings.NewReplacer("/r", fmt.Sprintf("/r%d", i))
	row.raw = of.Replace(row.raw)
	row.sees = slices.Clone(row.sees)
	for k := range row.sees {
		row.sees[k] = of.Replace(row.sees[k])
	}
	return row
}

var numberedTarget = regexp.MustCompile(`/r(\d+)`)

// own leaves the requests out that are another row's.
func own(seen []harness.RawRequest, i int) []harness.RawRequest {
	return slices.DeleteFunc(seen, func(r harness.RawRequest) bool {
		m := numberedTarget.FindStringSubmatch(r.Target)
		return m != nil && m[1] != strconv.Itoa(i)
	})
}

// strictOrigin answers every request with its own method, target and body.
func strictOrigin(r *harness.RawRequest) harness.RawAnswer {
	body := r.Method + " " + r.Target + " " + r.Body
	text := fmt.Sprintf("HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: %d\r\n\r\n", len(body))
	if r.Method != "HEAD" {
		text += body
	}
	return harness.RawAnswer{Text: text}
}

func TestStrictRequests(t *testing.T) {
	t.Parallel()
	o := harness.NewRawOrigin(t, strictOrigin)
	p := harness.Start(t, harness.MapRaw("/", o), harness.Args("--threads", "1"))
	server := p.PID(harness.Server)
	rows := strictRequests()
	if len(rows) < 300 {
		t.Errorf("%d rows, want 300", len(rows))
	}
	names := map[string]bool{}
	for i, row := range rows {
		if names[row.name] {
			t.Errorf("two rows are called %q", row.name)
		}
		names[row.name] = true
		t.Run(row.name, func(t *testing.T) { row := row.number(i); row.play(t, p, o, i) })
	}
	p.ExpectSame(harness.Server, server)
}

// play sends a row and judges what came of it.
func (row *strictRow) play(t *testing.T, p *harness.Trafficd, o *harness.RawOrigin, i int) {
	mark := o.Mark()
	c := harness.NewClient(t, p.Addr).Dial()
	defer c.Close()
	method, _, _ := strings.Cut(row.raw, " ")
	statuses, reading := row.converse(c, strings.TrimLeft(method, "\r\n"))
	seen := own(o.Since(mark), i)
	for _, f := range o.Faults() {
		t.Errorf("the origin was sent %s", f)
	}
	passed := len(statuses) == 2 && statuses[0] < 400 && statuses[1] == 200
	switch {
	case row.want == "200" && len(statuses) > 0 && statuses[0] == 200:
		row.judgeFirst(t, seen)
	case passed && strings.Contains(row.want, "pass"):
		row.judge(t, seen)
	case (len(statuses) == 1 || len(statuses) == 2 && statuses[1] == 200) && slices.Contains(strings.FieldsFunc(row.want, func(c rune) bool { return c == ' ' || c == '|' }), strconv.Itoa(statuses[0])):
		row.judgeRefused(t, seen, len(statuses) == 2)
	case len(statuses) == 0 && strings.Contains(row.want, "cut"):
		row.judgeRefused(t, seen, false)
	default:
		t.Errorf("RFC %s: answered %v (%v), want %s; the origin saw %v", row.rfc, statuses, reading, row.want, heads(seen))
	}
}

// converse sends the row and the sentinel and reads what comes until the connection ends.
func (row *strictRow) converse(c *harness.Conn, method string) (statuses []int, err error) {
	if strings.HasSuffix(row.raw, unfinished) {
		c.Offer(strings.TrimSuffix(row.raw, unfinished))
		c.CloseWriteIfOpen()
	} else {
		c.Offer(row.raw + sentinel)
	}
	for _, method := range []string{method, "GET", "GET"} {
		r, err := c.Try(method)
		if err != nil {
			return statuses, err
		}
		statuses = append(statuses, r.Status)
		if r.Get("Connection") == "close" {
			c.ExpectClosed()
			return statuses, nil
		}
	}
	return statuses, fmt.Errorf("too many answers")
}

// unfinished at the end of a row: the client ends its side there, and no sentinel follows.
const unfinished = "\x00unfinished"

func heads(seen []harness.RawRequest) (h []string) {
	for _, r := range seen {
		h = append(h, r.Head+r.Body)
	}
	return h
}

// judgeRefused: no complete request may have reached the origin, least of all what came behind,
// unless the refusal has left no doubt where that begins.
func (row *strictRow) judgeRefused(t *testing.T, seen []harness.RawRequest, goesOn bool) {
	for _, r := range seen {
		if r.Whole && !(goesOn && r.Target == "/sentinel") {
			t.Errorf("RFC %s: refused, but the origin saw all of %q", row.rfc, r.Head+r.Body)
		}
	}
}

// judgeFirst: it passes, and what follows is no sentinel: the connection ends, or garbage is in between.
func (row *strictRow) judgeFirst(t *testing.T, seen []harness.RawRequest) {
	for _, r := range seen {
		if strings.Contains(r.Target, "smuggled") {
			t.Errorf("RFC %s: the origin saw %q", row.rfc, r.Head)
		}
	}
}

// judge: exactly the request and the sentinel, the request as it should be.
func (row *strictRow) judge(t *testing.T, seen []harness.RawRequest) {
	if n := len(seen); n == 0 || n > 2 || seen[n-1].Target != "/sentinel" || !seen[n-1].Whole || seen[n-1].Body != "" {
		t.Errorf("RFC %s: the origin saw %q", row.rfc, heads(seen))
		return
	}
	if len(seen) == 1 {
		if len(row.sees) > 0 {
			t.Errorf("RFC %s: the origin saw nothing of it", row.rfc)
		}
		return // answered by the proxy itself
	}
	r := &seen[0]
	for _, want := range row.sees {
		name, value, isField := strings.Cut(want, ": ")
		switch {
		case want[0] == '=':
			if r.Body != want[1:] {
				t.Errorf("RFC %s: the origin got the body %q, want %q", row.rfc, r.Body, want[1:])
			}
		case want[0] == '!':
			if v := r.Get(want[1:]); v != "" {
				t.Errorf("RFC %s: the origin got %s: %s", row.rfc, want[1:], v)
			}
		case isField:
			if v := r.Get(name); v != value {
				t.Errorf("RFC %s: the origin got %s: %q, want %q", row.rfc, name, v, value)
			}
		case !strings.HasPrefix(r.Head, want):
			t.Errorf("RFC %s: the origin got %q, want %q", row.rfc, r.Head, want)
		}
	}
}

// strictReply is a response of an origin as it goes on the wire.
type strictReply struct {
	name, rfc string
	request   string // method and field lines; "" is GET
	raw       string
	close     bool   // the origin closes behind it
	want      string // statuses; "cut": a beginning and then the end of the connection
	body      string // that a client gets, of what passes
	fields    []string
}

// TestStrictResponses: whatever an origin answers, a client gets one well-formed response to its
// own request and to no other, or 502, or a connection that is cut; and nobody who comes after
// gets any of it.
func TestStrictResponses(t *testing.T) {
	t.Parallel()
	rows := strictReplies()
	answers := map[string]*strictReply{}
	for i := range rows {
		answers[fmt.Sprintf("/row/%d", i)] = &rows[i]
	}
	o := harness.NewRawOrigin(t, func(r *harness.RawRequest) harness.RawAnswer {
		if row := answers[r.Target]; row != nil {
			return harness.RawAnswer{Text: row.raw, Close: row.close}
		}
		return strictOrigin(r)
	})
	p := harness.Start(t, harness.MapRaw("/", o), harness.Args("--threads", "1"))
	server := p.PID(harness.Server)
	if len(rows) < 60 {
		t.Errorf("%d rows, want 60", len(rows))
	}
	for i := range rows {
		t.Run(rows[i].name, func(t *testing.T) { rows[i].play(t, p, o, fmt.Sprintf("/row/%d", i)) })
	}
	p.ExpectSame(harness.Server, server)
}

func (row *strictReply) play(t *testing.T, p *harness.Trafficd, o *harness.RawOrigin, target string) {
	method, fields, _ := strings.Cut(row.request, "\n")
	if method == "" {
		method = "GET"
	}
	// Twice: what was stored must be as good as what was passed on.
	for i := range 2 {
		c := harness.NewClient(t, p.Addr).Dial()
		c.Send(method + " " + target + " HTTP/1.1\r\nHost: h.test\r\n" + fields + "\r\n")
		r, err := c.Try(method)
		switch {
		case err != nil && strings.Contains(row.want, "cut"):
		case err != nil:
			t.Errorf("RFC %s: try %d: %v", row.rfc, i, err)
		case !slices.Contains(strings.Fields(row.want), strconv.Itoa(r.Status)):
			t.Errorf("RFC %s: try %d: status %d, want %s: %q", row.rfc, i, r.Status, row.want, r.Body)
		case r.Status < 500:
			row.judge(t, r)
		}
		if err == nil && r.Get("Connection") != "close" && r.Status != 101 {
			// The same connection goes on with an answer of its own.
			if r, err := c.Send("GET /next HTTP/1.1\r\nHost: h.test\r\n\r\n").Try("GET"); err != nil || string(r.Body) != "GET /next " {
				t.Errorf("RFC %s: the next request on the connection got %v, %v", row.rfc, r, err)
			}
		}
		c.Close()
	}
	// And others get theirs.
	for range 3 {
		p.Client().Get("/other").Expect(200, "GET /other ")
	}
	for _, f := range o.Faults() {
		t.Errorf("the origin was sent %s", f)
	}
}

func (row *strictReply) judge(t *testing.T, r *harness.Response) {
	if string(r.Body) != row.body {
		t.Errorf("RFC %s: body %q, want %q", row.rfc, r.Body, row.body)
	}
	for _, want := range row.fields {
		name, value, _ := strings.Cut(want, ": ")
		if got, absent := r.Get(strings.TrimPrefix(name, "!")), name[0] == '!'; absent && got != "" || !absent && got != value {
			t.Errorf("RFC %s: %s is %q, want %s", row.rfc, name, got, want)
		}
	}
}
