package header

// List walks the members of a comma-separated list (RFC 9110 §5.6.1). A comma
// inside a quoted-string does not separate. Empty members are skipped, as
// recipients must. The zero value is an empty list.
type List struct {
	rest []byte
	bad  bool
	all  bool // empty members count
	due  bool // one is to come, though nothing may be left
}

// Members returns a cursor over the members of one field value.
func Members(value []byte) List { return List{rest: value} }

// AllMembers returns a cursor over what stands between the commas of one field value that need not be a list: empty members
// count. The empty value has one, "a," has two.
func AllMembers(value []byte) List { return List{rest: value, all: true, due: true} }

// Next returns the next member without surrounding blanks. A member of Members is never
// empty. After the last one it reports false.
func (l *List) Next() ([]byte, bool) {
	for len(l.rest) > 0 || l.due {
		end := l.memberEnd()
		m := Trim(l.rest[:end])
		l.due = l.all && end < len(l.rest)
		if end < len(l.rest) {
			end++
		}
		l.rest = l.rest[end:]
		if len(m) > 0 || l.all {
			return m, true
		}
	}
	return nil, false
}

// Malformed reports whether a quoted-string met so far was not closed. Its
// member is then all that was left of the value.
func (l *List) Malformed() bool { return l.bad }

func (l *List) memberEnd() int {
	quoted := false
	for i := 0; i < len(l.rest); i++ {
		switch c := l.rest[i]; {
		case c == '"':
			quoted = !quoted
		case c == '\\' && quoted:
			i++
		case c == ',' && !quoted:
			return i
		}
	}
	l.bad = l.bad || quoted
	return len(l.rest)
}

// HasToken reports whether a list has the given token among its members,
// without regard to case.
func HasToken(value []byte, token string) bool {
	l := Members(value)
	for m, ok := l.Next(); ok; m, ok = l.Next() {
		if EqualFold(m, token) {
			return true
		}
	}
	return false
}

// DirectiveCursor walks directives: list members of the form name or name=value
// where value is a token or a quoted-string (RFC 9111 §5.2). Use Next, then look
// at the fields.
type DirectiveCursor struct {
	// Name is the directive's name as written. It is a token.
	Name []byte
	// Value is what follows "=": the token, or what stands between the quotes
	// with its backslashes still in it.
	Value []byte
	// HasValue tells name= from name; Quoted, that Value was a quoted-string.
	HasValue, Quoted bool

	list List
	bad  bool
}

// Directives returns a cursor over the directives of one field value.
func Directives(value []byte) DirectiveCursor { return DirectiveCursor{list: Members(value)} }

// Next goes to the next directive. Members that are no directives are skipped,
// and are remembered by Malformed.
func (d *DirectiveCursor) Next() bool {
	for {
		m, ok := d.list.Next()
		if !ok {
			d.Name, d.Value, d.HasValue, d.Quoted = nil, nil, false, false
			return false
		}
		if d.split(m) {
			return true
		}
		d.bad = true
	}
}

// Malformed reports whether anything met so far was not a directive.
func (d *DirectiveCursor) Malformed() bool { return d.bad || d.list.Malformed() }

func (d *DirectiveCursor) split(m []byte) bool {
	i := 0
	for i < len(m) && classes[m[i]]&classToken != 0 {
		i++
	}
	d.Name, d.Value, d.HasValue, d.Quoted = m[:i], nil, false, false
	if i == 0 {
		return false
	}
	if i == len(m) {
		return true
	}
	if m[i] != '=' {
		return false
	}
	d.HasValue = true
	v := m[i+1:]
	if len(v) > 0 && v[0] == '"' {
		end := quotedEnd(v)
		if end != len(v) {
			return false
		}
		d.Value, d.Quoted = v[1:end-1], true
		return true
	}
	d.Value = v
	return IsToken(v)
}

// quotedEnd returns the length of the quoted-string that b begins with, or 0.
func quotedEnd(b []byte) int {
	for i := 1; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			return i + 1
		case c == '\\':
			i++
			if i == len(b) || classes[b[i]]&classText == 0 {
				return 0
			}
		case classes[c]&classQuoted == 0:
			return 0
		}
	}
	return 0
}

// Directive is a cache directive that the engine knows.
type Directive uint8

// The directives of RFC 9111 §5.2, RFC 5861 (stale-*) and RFC 8246 (immutable).
const (
	UnknownDirective Directive = iota
	Immutable
	MaxAge
	MaxStale
	MinFresh
	MustRevalidate
	MustUnderstand
	NoCache
	NoStore
	NoTransform
	OnlyIfCached
	Private
	ProxyRevalidate
	Public
	SMaxAge
	StaleIfError
	StaleWhileRevalidate
	numDirectives
)

var directiveNames = [numDirectives]string{
	Immutable: "immutable", MaxAge: "max-age", MaxStale: "max-stale", MinFresh: "min-fresh",
	MustRevalidate: "must-revalidate", MustUnderstand: "must-understand", NoCache: "no-cache",
	NoStore: "no-store", NoTransform: "no-transform", OnlyIfCached: "only-if-cached",
	Private: "private", ProxyRevalidate: "proxy-revalidate", Public: "public", SMaxAge: "s-maxage",
	StaleIfError: "stale-if-error", StaleWhileRevalidate: "stale-while-revalidate",
}

// String returns the directive's name, "" for UnknownDirective.
func (d Directive) String() string {
	if d >= numDirectives {
		return ""
	}
	return directiveNames[d]
}

// LookupDirective returns the cache directive of that name, without regard to
// case (RFC 9111 §5.2), or UnknownDirective.
func LookupDirective(name []byte) Directive {
	for d := Directive(1); d < numDirectives; d++ {
		if EqualFold(name, directiveNames[d]) {
			return d
		}
	}
	return UnknownDirective
}
