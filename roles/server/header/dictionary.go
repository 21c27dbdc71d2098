package header

// ItemKind is the type of an Item (RFC 9651 §3.3), or InnerList.
type ItemKind uint8

// The kinds of what a dictionary's key may stand for.
const (
	Boolean ItemKind = iota
	Integer
	Decimal
	String
	Token
	ByteSequence
	Timestamp
	DisplayString
	InnerList
)

// Dictionary walks the members of a Structured Fields dictionary (RFC 9651
// §3.2), one field line at a time. The whole of a field counts or none of it, so
// what was seen means nothing before Malformed has been asked at the end. A key
// that comes twice counts the last time. Parameters are checked and dropped.
type Dictionary struct {
	// Key is the member's name.
	Key []byte
	// Kind is the type of its value; Boolean where there is no value.
	Kind ItemKind
	// Value is the value as written: "?0" and "?1" of a boolean (nil for one
	// without a value, which is true), what stands between the quotes of a string,
	// its backslashes included.
	Value []byte

	rest  []byte
	begun bool
	bad   bool
}

// DictionaryMembers returns a cursor over one field line of a dictionary.
func DictionaryMembers(line []byte) Dictionary {
	for len(line) > 0 && line[0] == ' ' {
		line = line[1:]
	}
	for len(line) > 0 && line[len(line)-1] == ' ' {
		line = line[:len(line)-1]
	}
	return Dictionary{rest: line}
}

// Next goes to the next member.
func (d *Dictionary) Next() bool {
	if d.bad || len(d.rest) == 0 {
		return false
	}
	if d.begun {
		d.blanks()
		if !d.take(',') {
			return d.fail()
		}
		d.blanks()
		if len(d.rest) == 0 { // a comma at the end
			return d.fail()
		}
	}
	d.begun = true
	n := keyLen(d.rest)
	if n == 0 {
		return d.fail()
	}
	d.Key, d.rest = d.rest[:n], d.rest[n:]
	d.Kind, d.Value = Boolean, nil
	if d.take('=') {
		if len(d.rest) > 0 && d.rest[0] == '(' {
			if d.Kind = InnerList; !d.innerList() {
				return d.fail()
			}
		} else if !d.item() {
			return d.fail()
		}
	}
	if !d.parameters() {
		return d.fail()
	}
	if len(d.rest) > 0 && d.rest[0] != ',' && d.rest[0] != ' ' && d.rest[0] != '\t' {
		return d.fail()
	}
	return true
}

// Malformed reports whether the line, as far as it was walked, is no dictionary.
func (d *Dictionary) Malformed() bool { return d.bad }

// True reports whether the member is a boolean that is true.
func (d *Dictionary) True() bool { return d.Kind == Boolean && (d.Value == nil || d.Value[1] == '1') }

func (d *Dictionary) fail() bool {
	d.bad = true
	return false
}

// blanks skips OWS.
func (d *Dictionary) blanks() {
	for len(d.rest) > 0 && (d.rest[0] == ' ' || d.rest[0] == '\t') {
		d.rest = d.rest[1:]
	}
}

func (d *Dictionary) take(c byte) bool {
	if len(d.rest) == 0 || d.rest[0] != c {
		return false
	}
	d.rest = d.rest[1:]
	return true
}

// parameters checks what stands behind an item (RFC 9651 §4.2.3.2).
func (d *Dictionary) parameters() bool {
	kind, value := d.Kind, d.Value
	for d.take(';') {
		for d.take(' ') {
		}
		n := keyLen(d.rest)
		if n == 0 {
			return false
		}
		d.rest = d.rest[n:]
		if d.take('=') && !d.item() {
			return false
		}
	}
	d.Kind, d.Value = kind, value
	return true
}

// innerList checks one (RFC 9651 §4.2.1.2).
func (d *Dictionary) innerList() bool {
	list := d.rest
	d.take('(')
	for spaced := true; ; spaced = false {
		for d.take(' ') {
			spaced = true
		}
		if d.take(')') {
			d.Kind, d.Value = InnerList, list[:len(list)-len(d.rest)]
			return true
		}
		if !spaced || !d.item() || !d.parameters() {
			return false
		}
	}
}

// item takes a bare item (RFC 9651 §4.2.3.1).
func (d *Dictionary) item() bool {
	if len(d.rest) == 0 {
		return false
	}
	n := 0
	switch c := d.rest[0]; {
	case c == '-' || c >= '0' && c <= '9':
		d.Kind, n = number(d.rest)
	case c == '"':
		d.Kind, n = String, stringLen(d.rest)
	case c == '*' || Lower(c) >= 'a' && Lower(c) <= 'z':
		d.Kind, n = Token, sfTokenLen(d.rest)
	case c == ':':
		d.Kind, n = ByteSequence, bytesLen(d.rest)
	case c == '?':
		if d.Kind = Boolean; len(d.rest) > 1 && (d.rest[1] == '0' || d.rest[1] == '1') {
			n = 2
		}
	case c == '@':
		var kind ItemKind
		if kind, n = number(d.rest[1:]); n > 0 && kind == Integer {
			d.Kind, n = Timestamp, n+1
		} else {
			n = 0
		}
	case c == '%' && len(d.rest) > 1 && d.rest[1] == '"':
		if n = displayLen(d.rest[1:]); n > 0 {
			d.Kind, n = DisplayString, n+1
		}
	}
	if n == 0 {
		return false
	}
	d.Value, d.rest = d.rest[:n], d.rest[n:]
	if d.Kind == String {
		d.Value = d.Value[1 : n-1]
	}
	return true
}

func keyLen(b []byte) int {
	if len(b) == 0 || b[0] != '*' && (b[0] < 'a' || b[0] > 'z') {
		return 0
	}
	n := 1
	for n < len(b) {
		switch c := b[n]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '_', c == '-', c == '.', c == '*':
			n++
		default:
			return n
		}
	}
	return n
}

// number returns the kind and the length of the number that b begins with; 0: there is
// none. An integer has up to 15 digits, a decimal up to 12 and 3 (RFC 9651 §4.2.4).
func number(b []byte) (kind ItemKind, n int) {
	i := 0
	if len(b) > 0 && b[0] == '-' {
		i = 1
	}
	whole := digits(b[min(i, len(b)):])
	end := i + whole
	if whole == 0 || whole > 15 {
		return Integer, 0
	}
	if end == len(b) || b[end] != '.' {
		return Integer, end
	}
	part := digits(b[end+1:])
	if whole > 12 || part == 0 || part > 3 {
		return Decimal, 0
	}
	return Decimal, end + 1 + part
}

func digits(b []byte) (n int) {
	for n < len(b) && b[n] >= '0' && b[n] <= '9' {
		n++
	}
	return n
}

// stringLen: RFC 9651 §4.2.5. Only a quote and a backslash may be escaped.
func stringLen(b []byte) int {
	for i := 1; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			return i + 1
		case c == '\\':
			if i++; i == len(b) || b[i] != '"' && b[i] != '\\' {
				return 0
			}
		case c < ' ' || c > '~':
			return 0
		}
	}
	return 0
}

func sfTokenLen(b []byte) int {
	n := 1
	for n < len(b) && (IsTokenByte(b[n]) || b[n] == ':' || b[n] == '/') {
		n++
	}
	return n
}

// bytesLen: RFC 9651 §4.2.7; whether the base64 in it decodes is not looked at.
func bytesLen(b []byte) int {
	for i := 1; i < len(b); i++ {
		switch c := b[i]; {
		case c == ':':
			return i + 1
		case c >= '0' && c <= '9', Lower(c) >= 'a' && Lower(c) <= 'z', c == '+', c == '/', c == '=':
		default:
			return 0
		}
	}
	return 0
}

// displayLen: RFC 9651 §4.2.10; whether it decodes to UTF-8 is not looked at.
func displayLen(b []byte) int {
	for i := 1; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			return i + 1
		case c == '%':
			if i+2 >= len(b) || !hexDigit(b[i+1]) || !hexDigit(b[i+2]) {
				return 0
			}
			i += 2
		case c < ' ' || c > '~':
			return 0
		}
	}
	return 0
}

func hexDigit(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' }
