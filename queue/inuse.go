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
	// Alive says that the holder is a process that was seen to live, or another user's. Otherwise it may be one of ours that was killed: the
	// kernel closes its sockets last of all, when its memory has been torn down.
	Alive bool
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
		holder, alive := findHolder(e)
		return &InUseError{Addr: e.String(), Holder: holder, Alive: alive}
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

// findHolder is best effort, and silent when /proc is not there or hides other users' processes.
func findHolder(e endpoint) (holder string, alive bool) {
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
				return fmt.Sprintf("pid %s (%s)", pid, name), true
			}
			return "a process of uid " + row.uid, row.uid != strconv.Itoa(os.Geteuid())
		}
	}
	return "", false
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

// findInode looks for a process that has socket:[inode] open, and is not about to close it.
func findInode(inode string) (pid, name string) {
	want := "socket:[" + inode + "]"
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, link := range links {
		if got, err := os.Readlink(link); err != nil || got != want {
			continue
		}
		pid = strings.Split(link, "/")[2]
		if stat, err := os.ReadFile("/proc/" + pid + "/stat"); err != nil || dies(stat) {
			continue
		}
		comm, _ := os.ReadFile("/proc/" + pid + "/comm")
		return pid, strings.TrimSpace(string(comm))
	}
	return "", ""
}

// dies tells from /proc/PID/stat (proc(5)) whether the process was killed, or ends already.
func dies(stat []byte) bool {
	const (
		flags   = 9 - 3 // by the manual's numbers, behind pid and name
		signal  = 31 - 3
		exiting = 0x4 // PF_EXITING
	)
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(f) <= signal {
		return false
	}
	state, _ := strconv.ParseUint(f[flags], 10, 64)
	pending, _ := strconv.ParseUint(f[signal], 10, 64)
	return state&exiting != 0 || pending&(1<<(unix.SIGKILL-1)) != 0
}
