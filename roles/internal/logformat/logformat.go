package logformat

import (
	"fmt"
	"slices"
	"strings"
)

// An Op says what a piece of a line is.
type Op uint8

// The fields of a line.
const (
	Literal       Op = iota // Piece.Text as it stands
	Client                  // the client's address
	ClientPort              // and port
	Nothing                 // a hyphen, where other programs have names of users
	Time                    // when the request came, as in the common log format
	TimeISO                 // the same by RFC 3339, with milliseconds, in UTC
	TimeSec                 // in seconds since 1970
	TimeMsec                // in milliseconds
	TimeUsec                // in microseconds
	RequestLine             // the request line as it came
	Method                  // its method
	Path                    // the path of its target
	Query                   // "?" and query of its target, or nothing
	Protocol                // its version
	Host                    // the host that was asked for
	Status                  // of the reply
	Body                    // bytes of the reply's body
	BodyHyphen              // the same, and a hyphen for none
	Sent                    // bytes of the reply, head and framing included
	Received                // bytes of the request's head and body
	Both                    // Sent and Received
	Usec                    // how long it took, in microseconds
	Msec                    // in milliseconds
	Sec                     // in seconds
	RequestField            // the field of the request that is called Piece.Text
	ResponseField           // that of the reply
	Connection              // X: broken off before the reply's end; +: goes on; -: closed
	Served                  // requests on this connection before this one
	Cache                   // the cache's part in it: TCP_MEM_HIT, TCP_MISS, …
	Hierarchy               // whom it was asked of: DIRECT, NONE
	Origin                  // the address of that origin
	OriginHost              // and its name
	ID                      // a number that no other request has
	numOps
)

// Ops is how many there are.
const Ops = int(numOps)

// A Piece is a part of a format.
type Piece struct {
	Op   Op
	Text string // of Literal; of RequestField and ResponseField the name, in lower case
}

// A letter is what may stand behind a percent sign.
type letter struct {
	name  byte
	words []word // what may stand in braces; nil: a field's name
	help  string
}

// A word is an argument; "" is none.
type word struct {
	text string
	op   Op
}

func plain(op Op) []word { return []word{{"", op}} }

var letters = []letter{
	{'h', plain(Client), "address of the client"},
	{'a', plain(Client), "address of the client"},
	{'p', []word{{"remote", ClientPort}}, "port of the client, as %{remote}p"},
	{'l', plain(Nothing), "a hyphen"},
	{'u', plain(Nothing), "a hyphen"},
	{'t', []word{{"", Time}, {"iso", TimeISO}, {"sec", TimeSec}, {"msec", TimeMsec}, {"usec", TimeUsec}}, "time of the request"},
	{'r', plain(RequestLine), "request line"},
	{'m', plain(Method), "method"},
	{'U', plain(Path), "path of the target"},
	{'q', plain(Query), "query of the target, with its question mark"},
	{'H', plain(Protocol), "version"},
	{'v', plain(Host), "host that was asked for"},
	{'V', plain(Host), "host that was asked for"},
	{'s', plain(Status), "status of the reply"},
	{'b', plain(BodyHyphen), "bytes of the reply's body, - for none"},
	{'B', plain(Body), "bytes of the reply's body"},
	{'O', plain(Sent), "bytes of the reply"},
	{'I', plain(Received), "bytes of the request"},
	{'S', plain(Both), "bytes of request and reply"},
	{'D', plain(Usec), "duration in microseconds"},
	{'T', []word{{"", Sec}, {"s", Sec}, {"ms", Msec}, {"us", Usec}}, "duration in seconds, or in the unit in braces"},
	{'i', nil, "field of the request"},
	{'o', nil, "field of the reply"},
	{'X', plain(Connection), "X: broken off, +: the connection goes on, -: it is closed"},
	{'k', plain(Served), "requests on the connection before this one"},
	{'x', []word{{"cache", Cache}, {"hierarchy", Hierarchy}, {"origin", Origin}, {"origin_host", OriginHost}, {"id", ID}}, "the cache's part in it"},
}

// maxFormat bounds a format, so that a line's length has a bound.
const maxFormat = 4096

// Parse reads a format. The error says where it is wrong, and what may have been meant.
func Parse(format string) ([]Piece, error) {
	if format == "" {
		return nil, fmt.Errorf("is empty")
	}
	if len(format) > maxFormat {
		return nil, fmt.Errorf("has %d characters, at most %d are possible", len(format), maxFormat)
	}
	p := parser{text: format}
	for p.at < len(format) {
		if err := p.next(); err != nil {
			return nil, err
		}
	}
	p.flush()
	return p.pieces, nil
}

type parser struct {
	text    string
	at      int
	literal []byte
	pieces  []Piece
}

func (p *parser) flush() {
	if len(p.literal) > 0 {
		p.pieces = append(p.pieces, Piece{Literal, string(p.literal)})
		p.literal = nil
	}
}

// next reads one character of literal text, or one field.
func (p *parser) next() error {
	c := p.text[p.at]
	switch {
	case c < ' ' || c == 0x7f:
		return p.fault(p.at, "a control character; write \\t for a tab")
	case c == '\\':
		return p.escape()
	case c == '%':
		return p.field()
	}
	p.literal = append(p.literal, c)
	p.at++
	return nil
}

func (p *parser) escape() error {
	if p.at+1 == len(p.text) {
		return p.fault(p.at, "nothing follows the backslash")
	}
	switch c := p.text[p.at+1]; c {
	case 't':
		p.literal = append(p.literal, '\t')
	case '"', '\\':
		p.literal = append(p.literal, c)
	default:
		return p.fault(p.at, fmt.Sprintf("\\%c is not known: \\t, \\\" and \\\\ are", c))
	}
	p.at += 2
	return nil
}

// field reads what begins with a percent sign: %s, %>s, %{Name}i.
func (p *parser) field() error {
	start := p.at
	i := start + 1
	if i < len(p.text) && p.text[i] == '%' {
		p.literal = append(p.literal, '%')
		p.at = i + 1
		return nil
	}
	if i < len(p.text) && (p.text[i] == '>' || p.text[i] == '<') {
		i++ // Apache's first and last of internal redirections: there are none here
	}
	arg, given := "", false
	if i < len(p.text) && p.text[i] == '{' {
		n := strings.IndexByte(p.text[i:], '}')
		if n < 0 {
			return p.fault(start, "the brace is not closed")
		}
		arg, given = p.text[i+1:i+n], true
		i += n + 1
	}
	if i == len(p.text) {
		return p.fault(start, "a letter is missing behind %; write %% for a percent sign")
	}
	k := slices.IndexFunc(letters, func(l letter) bool { return l.name == p.text[i] })
	if k < 0 {
		return p.fault(start, unknown(p.text[start:i], p.text[i]))
	}
	piece, msg := letters[k].piece(arg, given)
	if msg != "" {
		return p.fault(start, msg)
	}
	p.flush()
	p.pieces = append(p.pieces, piece)
	p.at = i + 1
	return nil
}

// piece makes the piece of a letter with its argument; msg says why it cannot.
func (l *letter) piece(arg string, given bool) (piece Piece, msg string) {
	if l.words == nil {
		op := RequestField
		if l.name == 'o' {
			op = ResponseField
		}
		if !isToken(arg) {
			return piece, fmt.Sprintf("%%%c needs the name of a field: %%{Name}%c", l.name, l.name)
		}
		return Piece{op, strings.ToLower(arg)}, ""
	}
	for _, w := range l.words {
		if w.text == arg && (arg != "" || !given) {
			return Piece{Op: w.op}, ""
		}
	}
	return piece, fmt.Sprintf("%%%c is written %s", l.name, l.forms())
}

// forms lists the ways to write a field.
func (l *letter) forms() string {
	var list []string
	for _, w := range l.words {
		if w.text == "" {
			list = append(list, "%"+string(l.name))
			continue
		}
		list = append(list, "%{"+w.text+"}"+string(l.name))
	}
	return strings.Join(list, ", ")
}

// unknown names what is meant by a letter of the other case, or by a letter of nginx's or Squid's
// languages, or all there are.
func unknown(before string, name byte) string {
	msg := fmt.Sprintf("%s%c is not known", before, name)
	for _, l := range letters {
		if l.name^name == 'a'^'A' {
			return fmt.Sprintf("%s (did you mean %%%c, %s?)", msg, l.name, l.help)
		}
	}
	var all []string
	for _, l := range letters {
		all = append(all, string(l.name))
	}
	return fmt.Sprintf("%s: behind %% may stand one of %s", msg, strings.Join(all, " "))
}

func (p *parser) fault(at int, msg string) error { return fmt.Errorf("column %d: %s", at+1, msg) }

// isToken is tchar of RFC 9110 §5.6.2.
func isToken(s string) bool {
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		default:
			if strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
				return false
			}
		}
	}
	return s != ""
}
