package cop

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"time"
)

// systemd speaks sd_notify(3) with its service, if there is a systemd: datagrams of
// assignments on a Unix socket. The zero value says nothing to nobody.
type systemd struct {
	conn  net.Conn
	every time.Duration // WATCHDOG=1 is due so often; 0: never
	last  time.Time
}

// newSystemd reads NOTIFY_SOCKET and the watchdog's variables (sd_watchdog_enabled(3)).
func newSystemd() (*systemd, error) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return &systemd{}, nil
	}
	// A leading @ is the abstract namespace, for systemd and for package net alike.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return &systemd{}, fmt.Errorf("connect to NOTIFY_SOCKET: %w", err)
	}
	s := &systemd{conn: conn}
	if pid := os.Getenv("WATCHDOG_PID"); pid == "" || pid == strconv.Itoa(os.Getpid()) {
		if usec, err := strconv.ParseUint(os.Getenv("WATCHDOG_USEC"), 10, 40); err == nil {
			s.every = time.Duration(usec) * time.Microsecond / 2
		}
	}
	return s, nil
}

// say sends one state. That nobody listens is not our trouble.
func (s *systemd) say(state string) {
	if s.conn != nil {
		s.conn.SetWriteDeadline(time.Now().Add(time.Second))
		s.conn.Write([]byte(state))
	}
}

// beat is called at every turn of the loop: a loop that stalls is silent.
func (s *systemd) beat(now time.Time) {
	if s.every > 0 && now.Sub(s.last) >= s.every {
		s.last = now
		s.say("WATCHDOG=1")
	}
}
