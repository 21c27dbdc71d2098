package autoconf

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// script is the generated file. The language is the one browsers have had since 1996; no
// function of the host environment is used that makes a browser look up names.
const script = `%sfunction FindProxyForURL(url, host) {
	host = host.toLowerCase();
	if (isPlainHostName(host) ||
		/^127\.\d+\.\d+\.\d+$/.test(host) ||
		/\.localhost$/.test(host) ||
		host == "::1" || host == "[::1]")
		return "DIRECT";
	return "%s";
}
`

// refused stands before a script that sends nobody here.
const refused = "// forward.allow names no clients: %s is not for browsers.\n"

// generate writes the proxy autoconfiguration for a client that reached us as host.
func generate(s *Settings, host string) string {
	var list []string
	seen := map[string]bool{}
	for _, p := range s.Proxies {
		at := p.Addr().Unmap().String()
		if p.Addr().IsUnspecified() {
			at = host
		}
		proxy := "PROXY " + net.JoinHostPort(at, strconv.Itoa(int(p.Port())))
		if !seen[proxy] {
			seen[proxy] = true
			list = append(list, proxy)
		}
	}
	if !s.Forward {
		return fmt.Sprintf(script, fmt.Sprintf(refused, strings.Join(list, ", ")), "DIRECT")
	}
	return fmt.Sprintf(script, "", strings.Join(append(list, "DIRECT"), "; "))
}

// reachedAs is the host by which a client reached us: that of its Host field if it is one that
// may be written into a script, otherwise the address its connection ended at.
func reachedAs(hostField string, local net.Addr) string {
	host := hostField
	if h, _, err := net.SplitHostPort(hostField); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if isHost(host) {
		return host
	}
	if ap, err := netip.ParseAddrPort(fmt.Sprint(local)); err == nil {
		return ap.Addr().Unmap().WithZone("").String()
	}
	return "127.0.0.1"
}

// isHost accepts addresses and names of letters, digits, dots and hyphens: nothing that
// could end a string in a script.
func isHost(s string) bool {
	if a, err := netip.ParseAddr(s); err == nil {
		return a.Zone() == ""
	}
	if s == "" || len(s) > 253 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.':
		default:
			return false
		}
	}
	return true
}

// maxFile is the largest proxy autoconfiguration file that is served.
const maxFile = 1 << 20

// file is a file that is read again when it has changed. Safe for concurrent use.
type file struct {
	mu   sync.Mutex
	path string // guarded by mu, as all below
	when time.Time
	size int64
	text []byte
}

// read returns what is in the file at path now.
func (f *file) read(path string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	// Without O_NONBLOCK a FIFO under that name would be waited for.
	in, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	if f.path == path && f.when.Equal(st.ModTime()) && f.size == st.Size() {
		return f.text, nil
	}
	text, err := io.ReadAll(io.LimitReader(in, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxFile {
		return nil, errors.New("longer than 1 MiB")
	}
	f.path, f.when, f.size, f.text = path, st.ModTime(), st.Size(), text
	return text, nil
}
