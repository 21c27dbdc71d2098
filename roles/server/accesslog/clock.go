package accesslog

import (
	"strconv"
	"time"
)

// A clock writes times, and keeps what it wrote of the last two seconds: lines tell when their
// requests began, and some began a second ago. Owned by a loop.
type clock struct {
	seconds [2]second
}

// second is one second in the forms that lines have.
type second struct {
	unix    int64
	made    bool
	common  []byte // [10/Oct/2000:13:55:36 -0700]
	iso     []byte // 2000-10-10T20:55:36, in UTC
	decimal []byte // 971211336
}

func (c *clock) at(unix int64) *second {
	s := &c.seconds[unix&1]
	if !s.made || s.unix != unix {
		s.make(unix)
	}
	return s
}

func (s *second) make(unix int64) {
	t := time.Unix(unix, 0)
	s.unix, s.made = unix, true
	s.common = t.AppendFormat(s.common[:0], "[02/Jan/2006:15:04:05 -0700]")
	s.iso = t.UTC().AppendFormat(s.iso[:0], "2006-01-02T15:04:05")
	s.decimal = strconv.AppendInt(s.decimal[:0], unix, 10)
}

func (c *clock) appendCommon(dst []byte, ns int64) []byte { return append(dst, c.at(ns/1e9).common...) }

func (c *clock) appendISO(dst []byte, ns int64) []byte {
	dst = append(append(dst, c.at(ns/1e9).iso...), '.')
	return append(appendDigits(dst, ns/1e6%1e3, 3), 'Z')
}

// appendSquid appends seconds and milliseconds, as Squid writes a time.
func (c *clock) appendSquid(dst []byte, ns int64) []byte {
	dst = append(append(dst, c.at(ns/1e9).decimal...), '.')
	return appendDigits(dst, ns/1e6%1e3, 3)
}

// appendDigits appends n with leading zeros.
func appendDigits(dst []byte, n int64, digits int) []byte {
	for range digits {
		dst = append(dst, '0')
	}
	for i := len(dst) - 1; n > 0 && digits > 0; i, digits = i-1, digits-1 {
		dst[i] = '0' + byte(n%10)
		n /= 10
	}
	return dst
}

// appendPadded appends n in at least width columns.
func appendPadded(dst []byte, n int64, width int) []byte {
	at := len(dst)
	dst = strconv.AppendInt(dst, n, 10)
	for missing := width - (len(dst) - at); missing > 0; missing-- {
		dst = append(dst, 0)
		copy(dst[at+1:], dst[at:])
		dst[at] = ' '
	}
	return dst
}
