package accesslog

import (
	"bytes"
	"fmt"
	"net/netip"
	"strconv"

	"trafficd/roles/internal/logformat"
	"trafficd/roles/server/header"
	"trafficd/roles/server/http1"
)

// A Format is a form of lines. Immutable.
type Format struct {
	write func(f *Format, dst []byte, e *Entry, c *clock) []byte
	items []item // of a format that is a list of fields
}

// An item is one field of such a format.
type item struct {
	append func(dst []byte, e *Entry, c *clock, it *item) []byte
	text   []byte
	id     header.ID // of a request's field, if it is a known one
}

// The formats that are lists of fields.
const (
	commonFormat   = `%h %l %u %t "%r" %>s %b`
	combinedFormat = commonFormat + ` "%{Referer}i" "%{User-Agent}i"`
)

// NewFormat makes the format that is called name: squid, common, combined, json, or custom, which is
// written in the language of package logformat.
func NewFormat(name, custom string) (*Format, error) {
	switch name {
	case "squid":
		return &Format{write: (*Format).squid}, nil
	case "json":
		return &Format{write: (*Format).json}, nil
	case "common":
		custom = commonFormat
	case "combined":
		custom = combinedFormat
	case "custom":
	default:
		return nil, fmt.Errorf("access log: there is no format %q", name)
	}
	pieces, err := logformat.Parse(custom)
	if err != nil {
		return nil, fmt.Errorf("access log: format: %w", err)
	}
	f := &Format{write: (*Format).fields}
	for _, p := range pieces {
		it := item{append: fieldWriters[p.Op], text: []byte(p.Text)}
		if p.Op == logformat.RequestField {
			it.id = header.Lookup(it.text)
		}
		f.items = append(f.items, it)
	}
	return f, nil
}

// maxLine bounds a line. One that would be longer is cut.
const maxLine = 60 << 10

// appendLine appends the line of a transaction, with its end.
func (f *Format) appendLine(dst []byte, e *Entry, c *clock) []byte {
	from := len(dst)
	dst = f.write(f, dst, e, c)
	if len(dst)-from >= maxLine {
		dst = dst[:from+maxLine-1]
	}
	return append(dst, '\n')
}

func (f *Format) fields(dst []byte, e *Entry, c *clock) []byte {
	for i := range f.items {
		it := &f.items[i]
		dst = it.append(dst, e, c, it)
	}
	return dst
}

// fieldWriters has what writes each field.
var fieldWriters = [logformat.Ops]func(dst []byte, e *Entry, c *clock, it *item) []byte{
	logformat.Literal:    func(d []byte, e *Entry, c *clock, it *item) []byte { return append(d, it.text...) },
	logformat.Client:     func(d []byte, e *Entry, c *clock, it *item) []byte { return appendAddr(d, e.Client) },
	logformat.ClientPort: func(d []byte, e *Entry, c *clock, it *item) []byte { return appendInt(d, int64(e.Client.Port())) },
	logformat.Nothing:    func(d []byte, e *Entry, c *clock, it *item) []byte { return append(d, '-') },
	logformat.Time:       func(d []byte, e *Entry, c *clock, it *item) []byte { return c.appendCommon(d, e.Began) },
	logformat.TimeISO:    func(d []byte, e *Entry, c *clock, it *item) []byte { return c.appendISO(d, e.Began) },
	logformat.TimeSec:    func(d []byte, e *Entry, c *clock, it *item) []byte { return appendInt(d, e.Began/1e9) },
	logformat.TimeMsec:   func(d []byte, e *Entry, c *clock, it *item) []byte { return appendInt(d, e.Began/1e6) },
	logformat.TimeUsec:   func(d []byte, e *Entry, c *clock, it *item) []byte { return appendInt(d, e.Began/1e3) },
	logformat.RequestLine: func(d []byte, e *Entry, c *clock, it *item) []byte {
		return appendOr(d, e.requestLine())
	},
	logformat.Method: func(d []byte, e *Entry, c *clock, it *item) []byte {
		return appendOr(d, e.span(func(r *http1.Request) http1.Span { return r.MethodName }))
	},
	logformat.Path: func(d []byte, e *Entry, c *clock, it *item) []byte { return appendOr(d, e.path()) },
	logformat.Query: func(d []byte, e *Entry, c *clock, it *item) []byte {
		if e.Req == nil || !e.Req.HasQuery {
			return d
		}
		return appendText(append(d, '?'), e.Req.Query.In(e.Head))
	},
	logformat.Protocol:   func(d []byte, e *Entry, c *clock, it *item) []byte { return append(d, e.protocol()...) },
	logformat.Host:       func(d []byte, e *Entry, c *clock, it *item) []byte { return appendOr(d, e.host()) },
	logformat.Status:     func(d []byte, e *Entry, c *clock, it *item) []byte { return appendInt(d, int64(e.Status)) },
	logformat.Body:       func(d []byte, e *Entry, c *clock, it *item) []byte { return appendInt(d, e.Body) },
	logformat.BodyHyphen: appendBodyHyphen,
	logformat.Sent:       func(d []byte, e *Entry, c *clock, it *item) []byte { return appendInt(d, e.Sent) },
	logformat.Received:   func(d []byte, e *Entry, c *clock, it *item) []byte { return appendInt(d, e.Received) },
	logformat.Both:       func(d []byte, e *Entry, c *clock, it *item) []byte { return appendInt(d, e.Sent+e.Received) },
	logformat.Usec:       func(d []byte, e *Entry, c *clock, it *item) []byte { return appendInt(d, e.took()/1e3) },
	logformat.Msec:       func(d []byte, e *Entry, c *clock, it *item) []byte { return appendInt(d, e.took()/1e6) },
	logformat.Sec:        func(d []byte, e *Entry, c *clock, it *item) []byte { return appendInt(d, e.took()/1e9) },
	logformat.RequestField: func(d []byte, e *Entry, c *clock, it *item) []byte {
		return appendOr(d, e.requestField(it.id, it.text))
	},
	logformat.ResponseField: func(d []byte, e *Entry, c *clock, it *item) []byte { return appendOr(d, e.responseField(it.text)) },
	logformat.Connection:    func(d []byte, e *Entry, c *clock, it *item) []byte { return append(d, e.connection()) },
	logformat.Served:        func(d []byte, e *Entry, c *clock, it *item) []byte { return appendInt(d, int64(e.Served)) },
	logformat.Cache:         func(d []byte, e *Entry, c *clock, it *item) []byte { return appendResult(d, e) },
	logformat.Hierarchy:     func(d []byte, e *Entry, c *clock, it *item) []byte { return append(d, e.hierarchy()...) },
	logformat.Origin:        func(d []byte, e *Entry, c *clock, it *item) []byte { return appendOrigin(d, e) },
	logformat.OriginHost:    func(d []byte, e *Entry, c *clock, it *item) []byte { return appendOr(d, []byte(e.Outcome.Host)) },
	logformat.ID: func(d []byte, e *Entry, c *clock, it *item) []byte {
		d = append(strconv.AppendUint(d, e.Conn, 16), '-')
		return strconv.AppendUint(d, e.Request, 16)
	},
}

// squid is Squid's native format, which Traffic Server's is called after:
//
//	time elapsed client result/status bytes method URL user hierarchy/origin type
func (f *Format) squid(d []byte, e *Entry, c *clock) []byte {
	d = append(c.appendSquid(d, e.Ended), ' ')
	d = append(appendPadded(d, e.took()/1e6, 6), ' ')
	d = append(appendAddr(d, e.Client), ' ')
	d = append(appendResult(d, e), '/')
	if e.Status == ClientGone {
		d = append(d, "000 "...)
	} else {
		d = append(appendInt(d, int64(e.Status)), ' ')
	}
	d = append(appendInt(d, e.Sent), ' ')
	d = append(appendOr(d, e.span(func(r *http1.Request) http1.Span { return r.MethodName })), ' ')
	d = e.appendURL(d)
	d = append(d, " - "...)
	d = append(append(d, e.hierarchy()...), '/')
	if e.Outcome.Host == "" {
		d = append(d, '-')
	} else {
		d = append(d, e.Outcome.Host...)
	}
	kind, _, _ := bytes.Cut(e.responseField(contentType), semicolon)
	return appendWord(append(d, ' '), header.Trim(kind))
}

var (
	contentType = []byte("content-type")
	semicolon   = []byte(";")
)

// json is one object to a line.
func (f *Format) json(d []byte, e *Entry, c *clock) []byte {
	d = append(c.appendISO(append(d, `{"time":"`...), e.Began), `","client":"`...)
	d = append(appendAddr(d, e.Client), `","client_port":`...)
	d = appendInt(d, int64(e.Client.Port()))
	if e.Req != nil {
		d = appendString(append(d, `,"method":`...), e.Req.MethodName.In(e.Head))
		d = appendString(append(d, `,"host":`...), e.host())
		d = appendString(append(d, `,"url":`...), e.Req.Target.In(e.Head))
		d = append(append(d, `,"protocol":"`...), e.protocol()...)
		d = append(d, `","referer":`...)
		d = appendString(d, e.requestField(header.Lookup([]byte("referer")), []byte("referer")))
		d = appendString(append(d, `,"user_agent":`...), e.requestField(header.Lookup([]byte("user-agent")), []byte("user-agent")))
	} else {
		d = appendString(append(d, `,"request":`...), e.requestLine())
	}
	d = appendInt(append(d, `,"status":`...), int64(e.Status))
	d = appendInt(append(d, `,"body_bytes":`...), e.Body)
	d = appendInt(append(d, `,"sent_bytes":`...), e.Sent)
	d = appendInt(append(d, `,"received_bytes":`...), e.Received)
	d = appendInt(append(d, `,"duration_us":`...), e.took()/1e3)
	d = append(append(append(d, `,"cache":"`...), e.Result.String()...), `","hierarchy":"`...)
	d = append(append(d, e.hierarchy()...), '"')
	if e.Origin.IsValid() {
		d = append(e.Origin.AppendTo(append(d, `,"origin":"`...)), '"')
	}
	if e.Outcome.Host != "" {
		d = appendString(append(d, `,"origin_host":`...), []byte(e.Outcome.Host))
	}
	return append(strconv.AppendBool(append(d, `,"aborted":`...), e.Aborted), '}')
}

func appendInt(d []byte, n int64) []byte {
	if n < 0 {
		return strconv.AppendInt(d, n, 10)
	}
	return header.AppendUint(d, uint64(n))
}

// appendOr appends a value, or a hyphen for none.
func appendOr(d, p []byte) []byte {
	if len(p) == 0 {
		return append(d, '-')
	}
	return appendText(d, p)
}

func appendAddr(d []byte, a netip.AddrPort) []byte {
	if !a.IsValid() {
		return append(d, '-')
	}
	return a.Addr().AppendTo(d)
}

func appendOrigin(d []byte, e *Entry) []byte {
	if !e.Origin.IsValid() {
		return append(d, '-')
	}
	return e.Origin.AppendTo(d)
}

func appendBodyHyphen(d []byte, e *Entry, _ *clock, _ *item) []byte {
	if e.Body == 0 {
		return append(d, '-')
	}
	return appendInt(d, e.Body)
}

// appendResult appends the result, with Squid's mark of a transaction that did not come to its end.
func appendResult(d []byte, e *Entry) []byte {
	d = append(d, e.Result.String()...)
	if e.Aborted {
		d = append(d, "_ABORTED"...)
	}
	return d
}

// appendURL appends the URL that was asked for, as a whole.
func (e *Entry) appendURL(d []byte) []byte {
	if e.Req == nil {
		return append(d, "error:invalid-request"...)
	}
	target := e.Req.Target.In(e.Head)
	if e.Req.Form == http1.OriginForm {
		d = appendText(append(d, "http://"...), e.host())
	}
	return appendWord(d, target)
}

func (e *Entry) took() int64 { return max(e.Ended-e.Began, 0) }

func (e *Entry) span(part func(*http1.Request) http1.Span) []byte {
	if e.Req == nil {
		return nil
	}
	return part(e.Req).In(e.Head)
}

func (e *Entry) host() []byte {
	return e.span(func(r *http1.Request) http1.Span { return r.Host })
}

func (e *Entry) path() []byte {
	if e.Req == nil {
		return nil
	}
	if e.Req.Form == http1.AuthorityForm || e.Req.Form == http1.AsteriskForm {
		return e.Req.Target.In(e.Head)
	}
	return e.Req.Path.In(e.Head)
}

// maxUnknown bounds what is told of a request that was not understood.
const maxUnknown = 1 << 10

// requestLine is the first line; of a request that was not understood what may be one.
func (e *Entry) requestLine() []byte {
	if e.Req == nil {
		line := e.Head
		if i := bytes.IndexAny(line, "\r\n"); i >= 0 {
			line = line[:i]
		}
		return line[:min(len(line), maxUnknown)]
	}
	return e.Head[e.Req.MethodName.Off : int(e.Req.Target.End())+len(" HTTP/1.1")]
}

func (e *Entry) protocol() string {
	switch {
	case e.Req == nil:
		return "-"
	case e.Req.Minor == 0:
		return "HTTP/1.0"
	}
	return "HTTP/1.1"
}

func (e *Entry) connection() byte {
	switch {
	case e.Aborted:
		return 'X'
	case e.Keep:
		return '+'
	}
	return '-'
}

// requestField is the first field of the request that is called so.
func (e *Entry) requestField(id header.ID, name []byte) []byte {
	switch {
	case e.Req == nil:
		return nil
	case id != header.Unknown:
		return e.Req.Value(e.Head, id)
	}
	for i := range e.Req.Fields {
		f := &e.Req.Fields[i]
		if f.ID == header.Unknown && header.EqualFoldBytes(f.Name.In(e.Head), name) {
			return f.Value.In(e.Head)
		}
	}
	return nil
}

// responseField is the first field of the reply that is called so.
func (e *Entry) responseField(name []byte) []byte {
	for _, lines := range [2][]byte{e.Lines, e.Extra} {
		for len(lines) > 0 {
			line := lines
			if i := bytes.IndexByte(lines, '\n'); i >= 0 {
				line, lines = lines[:i], lines[i+1:]
			} else {
				lines = nil
			}
			if len(line) > len(name) && line[len(name)] == ':' && header.EqualFoldBytes(line[:len(name)], name) {
				return header.Trim(bytes.TrimSuffix(line[len(name)+1:], cr))
			}
		}
	}
	return nil
}

var cr = []byte("\r")
