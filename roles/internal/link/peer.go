package link

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Peer is who is at the other end, as the kernel recorded it. For a hub: who
// called connect. For a dialer: who called listen.
type Peer struct {
	PID int // in our PID namespace; 0 if the peer is not visible in it
	UID int
	GID int
}

func peerOf(c *net.UnixConn) (Peer, error) {
	var cred *unix.Ucred
	err := control(c, func(fd int) (err error) {
		cred, err = unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		return err
	})
	if err != nil {
		return Peer{}, fmt.Errorf("link: credentials of peer: %w", err)
	}
	return Peer{PID: int(cred.Pid), UID: int(cred.Uid), GID: int(cred.Gid)}, nil
}

func control(c *net.UnixConn, f func(fd int) error) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	return errors.Join(rc.Control(func(fd uintptr) { inner = f(int(fd)) }), inner)
}

// trusted: our own user, and root, who could do anything to us anyway.
func (p Peer) trusted() error {
	if p.UID != 0 && p.UID != os.Geteuid() {
		return fmt.Errorf("link: peer is uid %d, want %d or 0", p.UID, os.Geteuid())
	}
	return nil
}

// Hello is how each side introduces itself.
type Hello struct {
	Role       string   `json:"role"`                 // cop, manager, server
	PID        int      `json:"pid"`                  // must be what the kernel says
	StartTime  uint64   `json:"start_time,omitempty"` // /proc/PID/stat field 22, clock ticks since boot
	Generation uint64   `json:"generation,omitempty"` // of the process, counted by who spawns it
	State      string   `json:"state,omitempty"`      // of the role's own state machine
	Want       []string `json:"want,omitempty"`       // what the peer is asked to send
	Journal    uint64   `json:"journal,omitempty"`    // inode of the journal that a server keeps its connections by; 0: none
	Leaves     bool     `json:"leaves,omitempty"`     // a server ends, and accepts nothing more
}

const opHello = "hello"

func (h Hello) check(p Peer) error {
	if h.Role == "" {
		return errors.New("hello without a role")
	}
	if p.PID != 0 && h.PID != p.PID {
		return fmt.Errorf("hello says pid %d, the kernel says %d", h.PID, p.PID)
	}
	return nil
}
