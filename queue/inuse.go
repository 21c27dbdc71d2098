package queue

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// InUseError reports a listen address that somebody else has.
type InUseError struct {
	Addr string // as asked for, canonical
	// Holder says who listens there, as far as this process may see it:
	// `pid 123 (nginx)`, `a process of uid 33`, or empty.
	Holder string
}

// Error implements error.
func (e *InUseError) Error() string {
	if e.Holder == "" {
		return fmt.Sprintf("listen on %s: address already in use", e.Addr)
	}
	return fmt.Sprintf("listen on %s: address already in use by %s", e.Addr, e.Holder)
}

// Unwrap makes errors.Is(err, EADDRINUSE) true.
func (e *InUseError) Unwrap() error { return unix.EADDRINUSE }

func bindError(e endpoint, err error) error {
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return &InUseError{Addr: e.String(), Holder: findHolder(e)}
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("listen on %s: %w (a port below net.ipv4.ip_unprivileged_port_start needs CAP_NET_BIND_SERVICE)", e, err)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("listen on %s: %w (no such address on this machine)", e, err)
	}
	return fmt.Errorf("listen on %s: %w", e, err)
}

// A listenRow is a listening socket as /proc/net/tcp and tcp6 show it.
type listenRow struct {
	addr  netip.AddrPort
	uid   string
	inode string
}

// findHolder is for the error message only: best effort, and silent when
// /proc is not there or hides other users' processes.
func findHolder(e endpoint) string {
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for _, row := range parseListenRows(text) {
			if !e.collides(row.addr) {
				continue
			}
			if pid, name := findInode(row.inode); pid != "" {
				return fmt.Sprintf("pid %s (%s)", pid, name)
			}
			return "a process of uid " + row.uid
		}
	}
	return ""
}

// collides: same port, and the same address or a wildcard on either side.
func (e endpoint) collides(a netip.AddrPort) bool {
	return e.addr.Port() == a.Port() &&
		(e.addr.Addr() == a.Addr() || e.addr.Addr().IsUnspecified() || a.Addr().IsUnspecified())
}

// parseListenRows reads the format of get_tcp4_sock (net/ipv4/tcp_ipv4.c):
//
//	sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode …
//
// Rows it does not understand are passed over.
func parseListenRows(text []byte) []listenRow {
	const stateListen = "0A" // TCP_LISTEN
	var rows []listenRow
	for sc := bufio.NewScanner(bytes.NewReader(text)); sc.Scan(); {
		f := strings.Fields(sc.Text())
		if len(f) < 10 || f[3] != stateListen {
			continue
		}
		if a, ok := parseHexAddr(f[1]); ok {
			rows = append(rows, listenRow{addr: a, uid: f[7], inode: f[9]})
		}
	}
	return rows
}

// parseHexAddr reads ADDRESS:PORT in hex; the address as 32-bit words of the
// machine's byte order, here little-endian, the port as a number.
func parseHexAddr(s string) (netip.AddrPort, bool) {
	host, portText, ok := strings.Cut(s, ":")
	port, err := strconv.ParseUint(portText, 16, 16)
	if !ok || err != nil {
		return netip.AddrPort{}, false
	}
	raw, err := hex.DecodeString(host)
	if err != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, false
	}
	if nativeUint32([]byte{1, 0, 0, 0}) == 1 {
		for i := 0; i < len(raw); i += 4 {
			slices.Reverse(raw[i : i+4])
		}
	}
	ip, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(ip.Unmap(), uint16(port)), ok
}

// findInode looks for the process that has socket:[inode] open.
func findInode(inode string) (pid, name string) {
	want := "socket:[" + inode + "]"
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, link := range links {
		if got, err := os.Readlink(link); err != nil || got != want {
			continue
		}
		pid = strings.Split(link, "/")[2]
		comm, _ := os.ReadFile("/proc/" + pid + "/comm")
		return pid, strings.TrimSpace(string(comm))
	}
	return "", ""
}
