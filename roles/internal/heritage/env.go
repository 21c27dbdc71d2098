package heritage

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// EnvVar names the environment variable that tells a child what it inherits.
const EnvVar = "TRAFFICD_HERITAGE"

// item is one name=fd pair of EnvVar.
type item struct {
	name string
	fd   int
}

// format writes items as name=fd,name=fd. In a name the three characters with
// a meaning, and the escape itself, are written %XX.
func format(items []item) string {
	var b strings.Builder
	for i, it := range items {
		if i > 0 {
			b.WriteByte(',')
		}
		for _, c := range []byte(it.name) {
			if strings.IndexByte("%=,", c) >= 0 {
				fmt.Fprintf(&b, "%%%02X", c)
			} else {
				b.WriteByte(c)
			}
		}
		b.WriteByte('=')
		b.WriteString(strconv.Itoa(it.fd))
	}
	return b.String()
}

// parse reads what format writes and refuses everything else: repeated names
// or descriptors, the standard three, numbers no descriptor can have.
func parse(text string) ([]item, error) {
	if text == "" {
		return nil, nil
	}
	var items []item
	names, fds := map[string]bool{}, map[int]bool{}
	for pair := range strings.SplitSeq(text, ",") {
		it, err := parsePair(pair)
		if err != nil {
			return nil, err
		}
		if names[it.name] || fds[it.fd] {
			return nil, fmt.Errorf("heritage: %q: name or descriptor given twice", pair)
		}
		names[it.name], fds[it.fd] = true, true
		if items = append(items, it); len(items) > MaxDescriptors {
			return nil, fmt.Errorf("heritage: more than %d descriptors", MaxDescriptors)
		}
	}
	return items, nil
}

func parsePair(pair string) (item, error) {
	escaped, number, ok := strings.Cut(pair, "=")
	if !ok {
		return item{}, fmt.Errorf("heritage: %q is not name=fd", pair)
	}
	name, err := unescape(escaped)
	if err != nil {
		return item{}, err
	}
	if err := checkName(name); err != nil {
		return item{}, err
	}
	fd, err := strconv.ParseUint(number, 10, 31)
	if err != nil || fd < 3 || strconv.FormatUint(fd, 10) != number {
		return item{}, fmt.Errorf("heritage: %q: not a descriptor from 3 on", pair)
	}
	return item{name, int(fd)}, nil
}

func unescape(s string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", fmt.Errorf("heritage: %q: cut-off escape", s)
		}
		c, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return "", fmt.Errorf("heritage: %q: bad escape", s)
		}
		b.WriteByte(byte(c))
		i += 2
	}
	return b.String(), nil
}

// FromEnv takes up what the parent passed by exec, and removes EnvVar, so that
// no grandchild believes the numbers are meant for it. Every descriptor is
// checked to be open and of the kind its name promises (see Check), and gets
// close-on-exec.
//
// The Set is never nil. What fails the check is left out and named in the
// error, not closed: a descriptor that is not what we were told is somebody
// else's. A variable that cannot be read gives an empty Set and an error. No
// variable is an empty Set without error.
//
// Call it once, early, before anything is opened.
func FromEnv() (*Set, error) {
	text, ok := os.LookupEnv(EnvVar)
	if !ok {
		return New(), nil
	}
	if err := os.Unsetenv(EnvVar); err != nil {
		return New(), fmt.Errorf("heritage: unset %s: %w", EnvVar, err)
	}
	items, err := parse(text)
	if err != nil {
		return New(), err
	}
	return take(items)
}

func take(items []item) (*Set, error) {
	s := New()
	var errs []error
	for _, it := range items {
		if err := Check(it.name, it.fd); err != nil {
			errs = append(errs, err)
			continue
		}
		unix.CloseOnExec(it.fd)
		if err := s.Put(it.name, it.fd); err != nil {
			errs = append(errs, err)
		}
	}
	return s, errors.Join(errs...)
}
