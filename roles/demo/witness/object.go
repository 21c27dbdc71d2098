package witness

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Framing is how the origin delimits a body (RFC 9112 section 6).
type Framing uint8

// The three ways there are.
const (
	Length Framing = iota
	Chunked
	UntilClose
)

var framings = [...]string{"length", "chunked", "close"}

func (f Framing) String() string { return framings[f] }

// Object is what the origin serves, and all of it is in its target: origin and
// client need no common list. Its content is a Body.
type Object struct {
	Number  uint64
	Size    int64 // bytes
	Framing Framing
	MaxAge  int           // seconds; 0: no-store; or one of those below
	Rate    int           // bytes a second that the origin sends; 0: as fast as it can
	Delay   time.Duration // before the answer's head, in whole milliseconds
	Hints   bool          // 103 Early Hints before the answer (RFC 8297)
}

// Values of MaxAge that stand for other directives.
const (
	Revalidate = -1 // no-cache
	Behind     = -2 // stale after a second, and asked about behind the client's back for a day
)

// objectPath is what the targets of objects begin with.
const objectPath = "/object/"

// Target is the request target of the object.
func (o Object) Target() string {
	return fmt.Sprintf("%s%d/%d?framing=%s&age=%d&rate=%d&delay=%d&hints=%t",
		objectPath, o.Number, o.Size, o.Framing, o.MaxAge, o.Rate, o.Delay.Milliseconds(), o.Hints)
}

// ETag is the strong validator that the origin gives it.
func (o Object) ETag() string { return fmt.Sprintf(`"w%d-%d"`, o.Number, o.Size) }

func (o Object) cacheControl() string {
	switch {
	case o.MaxAge == Revalidate:
		return "no-cache"
	case o.MaxAge == Behind:
		return "max-age=1, stale-while-revalidate=86400"
	case o.MaxAge > 0:
		return fmt.Sprintf("max-age=%d", o.MaxAge)
	}
	return "no-store"
}

// token goes with each answer in the field X-Witness, so that an answer to
// somebody else's request is known by its head.
func (o Object) token() string { return fmt.Sprintf("%d/%d", o.Number, o.Size) }

// parseObject is the inverse of Target.
func parseObject(target string) (Object, error) {
	var o Object
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return o, err
	}
	rest, ok := strings.CutPrefix(u.Path, objectPath)
	number, size, two := strings.Cut(rest, "/")
	if !ok || !two {
		return o, fmt.Errorf("target %q is no object", target)
	}
	q := u.Query()
	var ms int64
	for _, field := range []struct {
		text string
		set  func(string) error
	}{
		{number, func(s string) (err error) { o.Number, err = strconv.ParseUint(s, 10, 64); return }},
		{size, func(s string) (err error) { o.Size, err = strconv.ParseInt(s, 10, 64); return }},
		{q.Get("age"), func(s string) (err error) { o.MaxAge, err = strconv.Atoi(s); return }},
		{q.Get("rate"), func(s string) (err error) { o.Rate, err = strconv.Atoi(s); return }},
		{q.Get("delay"), func(s string) (err error) { ms, err = strconv.ParseInt(s, 10, 32); return }},
		{q.Get("hints"), func(s string) (err error) { o.Hints, err = strconv.ParseBool(s); return }},
		{q.Get("framing"), func(s string) (err error) { o.Framing, err = parseFraming(s); return }},
	} {
		if err := field.set(field.text); err != nil {
			return o, fmt.Errorf("target %q: %w", target, err)
		}
	}
	if o.Size < 0 || o.Rate < 0 || ms < 0 {
		return o, fmt.Errorf("target %q: negative number", target)
	}
	o.Delay = time.Duration(ms) * time.Millisecond
	return o, nil
}

func parseFraming(s string) (Framing, error) {
	for i, name := range framings {
		if s == name {
			return Framing(i), nil
		}
	}
	return 0, fmt.Errorf("unknown framing %q", s)
}
