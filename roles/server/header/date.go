package header

// DateLen is the length of an IMF-fixdate.
const DateLen = len("Sun, 06 Nov 1994 08:49:37 GMT")

const (
	shortDays = "SunMonTueWedThuFriSat"
	months    = "JanFebMarAprMayJunJulAugSepOctNovDec"
	secsDay   = 86400
)

var longDays = [7]string{"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"}

// ParseDate parses an HTTP-date in any of the three forms of RFC 9110 §5.6.7 and
// returns Unix seconds. now (Unix seconds) is only used for the two-digit years
// of the rfc850 form: a date that seems more than 50 years ahead is taken as in
// the past. The form is taken strictly (number of digits, single blanks, GMT),
// except that letters may have either case, as RFC 9111 §4.2 asks of caches. The
// name of the day must be one, but is not held against the date.
func ParseDate(b []byte, now int64) (unix int64, ok bool) {
	switch {
	case len(b) == DateLen && b[3] == ',':
		return parseIMF(b)
	case len(b) == len("Sun Nov  6 08:49:37 1994") && b[3] == ' ':
		return parseAsctime(b)
	}
	return parseRFC850(b, now)
}

// parseIMF: "Sun, 06 Nov 1994 08:49:37 GMT".
func parseIMF(b []byte) (int64, bool) {
	p := datePart{ok: true}
	p.index(b[0:3], shortDays)
	p.literal(b[3:5], ", ")
	day := p.number(b[5:7])
	p.literal(b[7:8], " ")
	month := p.index(b[8:11], months)
	p.literal(b[11:12], " ")
	year := p.number(b[12:16])
	p.literal(b[16:17], " ")
	clock := p.clock(b[17:25])
	p.literal(b[25:29], " GMT")
	return p.unix(year, month, day, clock)
}

// parseAsctime: "Sun Nov  6 08:49:37 1994".
func parseAsctime(b []byte) (int64, bool) {
	p := datePart{ok: true}
	p.index(b[0:3], shortDays)
	p.literal(b[3:4], " ")
	month := p.index(b[4:7], months)
	p.literal(b[7:8], " ")
	var day int
	if b[8] == ' ' {
		day = p.number(b[9:10])
	} else {
		day = p.number(b[8:10])
	}
	p.literal(b[10:11], " ")
	clock := p.clock(b[11:19])
	p.literal(b[19:20], " ")
	year := p.number(b[20:24])
	return p.unix(year, month, day, clock)
}

// parseRFC850: "Sunday, 06-Nov-94 08:49:37 GMT".
func parseRFC850(b []byte, now int64) (int64, bool) {
	name := ""
	for _, d := range longDays {
		if len(b) > len(d) && b[len(d)] == ',' && EqualFold(b[:len(d)], d) {
			name = d
		}
	}
	if name == "" || len(b) != len(name)+len(", 06-Nov-94 08:49:37 GMT") {
		return 0, false
	}
	b = b[len(name):]
	p := datePart{ok: true}
	p.literal(b[0:2], ", ")
	day := p.number(b[2:4])
	p.literal(b[4:5], "-")
	month := p.index(b[5:8], months)
	p.literal(b[8:9], "-")
	year := p.number(b[9:11])
	p.literal(b[11:12], " ")
	clock := p.clock(b[12:20])
	p.literal(b[20:24], " GMT")
	if !p.ok {
		return 0, false
	}
	return p.unix(fullYear(year, month, day, clock, now), month, day, clock)
}

// fullYear returns the latest year with these last two digits for which the
// date is not more than 50 years after now (RFC 9110 §5.6.7).
func fullYear(twoDigits, month, day, clock int, now int64) int {
	nowYear, nowMonth, nowDay := civil(floorDiv(now, secsDay))
	nowClock := int(now - floorDiv(now, secsDay)*secsDay)
	year := nowYear + 50 - nowYear%100
	year += twoDigits - year%100
	for year > nowYear+50 {
		year -= 100
	}
	for year+100 <= nowYear+50 {
		year += 100
	}
	later := [3]int{month, day, clock}
	limit := [3]int{nowMonth, nowDay, nowClock}
	if year == nowYear+50 {
		for i := range later {
			if later[i] != limit[i] {
				if later[i] > limit[i] {
					year -= 100
				}
				break
			}
		}
	}
	return year
}

// datePart collects the verdict over the parts of a date.
type datePart struct{ ok bool }

func (p *datePart) literal(b []byte, want string) { p.ok = p.ok && EqualFold(b, want) }

// index returns the position, from 1, of a name of three letters in a table.
func (p *datePart) index(b []byte, table string) int {
	for i := 0; i < len(table); i += 3 {
		if EqualFold(b, table[i:i+3]) {
			return i/3 + 1
		}
	}
	p.ok = false
	return 0
}

func (p *datePart) number(b []byte) int {
	n := 0
	for _, c := range b {
		d := c - '0'
		if d > 9 {
			p.ok = false
			return 0
		}
		n = n*10 + int(d)
	}
	return n
}

// clock returns the second of the day of "08:49:37". A leap second (60) is the
// first second of the next minute.
func (p *datePart) clock(b []byte) int {
	h, m, s := p.number(b[0:2]), p.number(b[3:5]), p.number(b[6:8])
	p.ok = p.ok && b[2] == ':' && b[5] == ':' && h < 24 && m < 60 && s <= 60
	return h*3600 + m*60 + s
}

func (p *datePart) unix(year, month, day, clock int) (int64, bool) {
	if !p.ok || day < 1 || day > daysIn(year, month) {
		return 0, false
	}
	return daysSinceEpoch(year, month, day)*secsDay + int64(clock), true
}

func daysIn(year, month int) int {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// daysSinceEpoch and civil convert between the proleptic Gregorian calendar and
// days since 1970-01-01, by eras of 400 years whose years begin in March, so
// that the leap day is the last day of a year.

func daysSinceEpoch(year, month, day int) int64 {
	y := int64(year)
	if month <= 2 {
		y--
	}
	era := floorDiv(y, 400)
	yoe := y - era*400
	doy := (153*int64((month+9)%12)+2)/5 + int64(day) - 1
	return era*146097 + yoe*365 + yoe/4 - yoe/100 + doy - 719468
}

func civil(days int64) (year, month, day int) {
	days += 719468
	era := floorDiv(days, 146097)
	doe := days - era*146097
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	day = int(doy - (153*mp+2)/5 + 1)
	month = int((mp+2)%12 + 1)
	y := yoe + era*400
	if month <= 2 {
		y++
	}
	return int(y), month, day
}

// AppendDate appends unix (Unix seconds) as an IMF-fixdate, DateLen bytes. What
// is before year 0 or after year 9999 is taken as the nearest that can be written.
func AppendDate(dst []byte, unix int64) []byte {
	unix = min(max(unix, -62167219200), 253402300799)
	days := floorDiv(unix, secsDay)
	clock := int(unix - days*secsDay)
	year, month, day := civil(days)
	weekday := int(days+4) % 7 // 1970-01-01 was a Thursday
	if weekday < 0 {
		weekday += 7
	}
	dst = append(dst, shortDays[weekday*3:weekday*3+3]...)
	dst = append(dst, ',', ' ')
	dst = append(appendPair(dst, day), ' ')
	dst = append(dst, months[month*3-3:month*3]...)
	dst = append(dst, ' ')
	dst = appendPair(appendPair(dst, year/100), year%100)
	dst = append(dst, ' ')
	dst = append(appendPair(dst, clock/3600), ':')
	dst = append(appendPair(dst, clock/60%60), ':')
	dst = appendPair(dst, clock%60)
	return append(dst, " GMT"...)
}

func appendPair(dst []byte, n int) []byte { return append(dst, '0'+byte(n/10), '0'+byte(n%10)) }
