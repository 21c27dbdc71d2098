package header

import (
	"net/http"
	"testing"
	"time"
)

// now is Sun, 22 Nov 2026 20:53:20 GMT.
const now = 1795380800

func TestParseDate(t *testing.T) { // RFC 9110 §5.6.7
	const example = 784111777 // Sun, 06 Nov 1994 08:49:37 GMT
	for _, c := range []struct {
		in   string
		want int64
		ok   bool
	}{
		{"Sun, 06 Nov 1994 08:49:37 GMT", example, true},
		{"Sunday, 06-Nov-94 08:49:37 GMT", example, true},
		{"Sun Nov  6 08:49:37 1994", example, true},
		{"Sun Nov 06 08:49:37 1994", example, true},
		{"sun, 06 nov 1994 08:49:37 gmt", example, true}, // RFC 9111 §4.2
		{"Mon, 06 Nov 1994 08:49:37 GMT", example, true}, // not its weekday
		{"Thu, 01 Jan 1970 00:00:00 GMT", 0, true},
		{"Wed, 31 Dec 1969 23:59:59 GMT", -1, true},
		{"Tue, 29 Feb 2000 00:00:00 GMT", 951782400, true},
		{"Sat, 31 Dec 2016 23:59:60 GMT", 1483228800, true}, // leap second
		{"Sun, 29 Feb 1900 00:00:00 GMT", 0, false},
		{"Mon, 30 Feb 2026 00:00:00 GMT", 0, false},
		{"Sun, 31 Nov 1994 08:49:37 GMT", 0, false},
		{"Sun, 00 Nov 1994 08:49:37 GMT", 0, false},
		{"Sun, 06 Nov 1994 24:00:00 GMT", 0, false},
		{"Sun, 06 Nov 1994 08:60:00 GMT", 0, false},
		{"Sun, 06 Nov 1994 08:49:61 GMT", 0, false},
		{"Sun, 6 Nov 1994 08:49:37 GMT", 0, false},
		{"Sun, 06 Nov 1994 08:49:37 UTC", 0, false},
		{"Sun, 06 Nov 1994 08:49:37 +00", 0, false},
		{"Sun, 06 Nov 1994 08:49:37", 0, false},
		{"Sun, 06  Nov 1994 08:49:37 GMT", 0, false},
		{"Sun, 06-Nov-1994 08:49:37 GMT", 0, false},
		{"Xyz, 06 Nov 1994 08:49:37 GMT", 0, false},
		{"Sun, 06 Xyz 1994 08:49:37 GMT", 0, false},
		{"Sun, 06 Nov +994 08:49:37 GMT", 0, false},
		{"Sun 06 Nov 1994 08:49:37 GMT ", 0, false},
		{"Someday, 06-Nov-94 08:49:37 GMT", 0, false},
		{"Sunday, 06-Nov-1994 08:49:37 GMT", 0, false},
		{"Sunday, 06-Nov-9x 08:49:37 GMT", 0, false},
		{"", 0, false}, {"0", 0, false}, {"-1", 0, false}, {"Sunday,", 0, false},
	} {
		if got, ok := ParseDate([]byte(c.in), now); ok != c.ok || ok && got != c.want {
			t.Errorf("ParseDate(%q) = %d, %v", c.in, got, ok)
		}
	}
}

func TestTwoDigitYears(t *testing.T) { // RFC 9110 §5.6.7: not more than 50 years ahead
	for _, c := range []struct {
		in   string
		year int
	}{
		{"26-Jan-26", 2026}, {"01-Jan-00", 2000}, {"01-Jan-75", 2075}, {"01-Jan-76", 2076}, {"22-Nov-76", 1976},
		{"21-Nov-76", 2076}, {"23-Nov-76", 1976}, {"01-Jan-77", 1977}, {"31-Dec-99", 1999},
	} {
		in := "Sunday, " + c.in + " 23:00:00 GMT"
		got, ok := ParseDate([]byte(in), now)
		if year := time.Unix(got, 0).UTC().Year(); !ok || year != c.year {
			t.Errorf("ParseDate(%q) is in %d, %v, want %d", in, year, ok, c.year)
		}
	}
	// Exactly 50 years ahead is not more than 50.
	if got, ok := ParseDate([]byte("Sunday, 22-Nov-76 20:53:20 GMT"), now); !ok || time.Unix(got, 0).UTC().Year() != 2076 {
		t.Errorf("exactly 50 years ahead: %d, %v", got, ok)
	}
	if got, ok := ParseDate([]byte("Sunday, 22-Nov-76 20:53:21 GMT"), now); !ok || time.Unix(got, 0).UTC().Year() != 1976 {
		t.Errorf("a second more: %d, %v", got, ok)
	}
	// Across the turn of a century, and before 1970.
	for _, c := range []struct {
		now  time.Time
		yy   string
		want int
	}{
		{time.Date(2060, 1, 1, 0, 0, 0, 0, time.UTC), "05", 2105},
		{time.Date(2060, 1, 1, 0, 0, 0, 0, time.UTC), "11", 2011},
		{time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), "48", 2048},
		{time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), "50", 1950},
		{time.Date(1960, 6, 1, 0, 0, 0, 0, time.UTC), "59", 1959},
		{time.Date(1960, 6, 1, 0, 0, 0, 0, time.UTC), "09", 2009},
	} {
		in := "Sunday, 02-Feb-" + c.yy + " 00:00:00 GMT"
		got, ok := ParseDate([]byte(in), c.now.Unix())
		if year := time.Unix(got, 0).UTC().Year(); !ok || year != c.want {
			t.Errorf("in %d, %q is in %d, want %d", c.now.Year(), in, year, c.want)
		}
	}
}

func TestAppendDate(t *testing.T) {
	for _, unix := range []int64{0, -1, 1, 784111777, 951782399, 951782400, 4107542399, 4107542400, 253402300799, -62135596800, -62167219200, now} {
		got := string(AppendDate(nil, unix))
		if want := time.Unix(unix, 0).UTC().Format(http.TimeFormat); got != want || len(got) != DateLen {
			t.Errorf("AppendDate(%d) = %q, want %q", unix, got, want)
		}
	}
	for unix, want := range map[int64]string{1 << 62: "Fri, 31 Dec 9999 23:59:59 GMT", -1 << 62: "Sat, 01 Jan 0000 00:00:00 GMT"} {
		if got := string(AppendDate(nil, unix)); got != want {
			t.Errorf("AppendDate(%d) = %q, want %q", unix, got, want)
		}
	}
}

func TestEveryDayComesBack(t *testing.T) {
	for day := int64(-30000); day < 60000; day++ {
		unix := day*secsDay + (day*7919)%secsDay
		text := AppendDate(nil, unix)
		if got, ok := ParseDate(text, now); !ok || got != unix {
			t.Fatalf("%d is %s, which is %d, %v", unix, text, got, ok)
		}
	}
}
