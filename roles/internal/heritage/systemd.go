package heritage

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"trafficd/queue"
)

// systemd's first passed descriptor, SD_LISTEN_FDS_START in sd_listen_fds(3).
const listenFDsStart = 3

// FromSystemd takes up the descriptors of systemd's socket activation and
// descriptor store (sd_listen_fds(3)): LISTEN_FDS of them from 3 on, if
// LISTEN_PID is this process. If it is not, they were meant for another, and
// whatever is open under these numbers is left alone. In every case the
// variables are removed, so that no child takes them up.
//
// A listening TCP socket is called listener:ADDR by what getsockname says. Any
// other takes its name from LISTEN_FDNAMES if the name is one of ours and the
// kind is right (a descriptor store gives back stats, cache, queue.in and
// queue.out). What is neither is left open, not in the Set, and named in the
// error. The Set is never nil.
func FromSystemd() (*Set, error) {
	pid, count, names := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES")
	for _, v := range []string{"LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		if err := os.Unsetenv(v); err != nil {
			return New(), fmt.Errorf("heritage: unset %s: %w", v, err)
		}
	}
	if pid != strconv.Itoa(os.Getpid()) {
		return New(), nil
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || n > MaxDescriptors {
		return New(), fmt.Errorf("heritage: LISTEN_FDS=%q is not a number from 0 to %d", count, MaxDescriptors)
	}
	return fromSystemd(listenFDsStart, n, strings.Split(names, ":"))
}

func fromSystemd(first, n int, names []string) (*Set, error) {
	s := New()
	var errs []error
	for i := range n {
		fd, given := first+i, ""
		if i < len(names) {
			given = names[i]
		}
		name, err := systemdName(fd, given)
		if err == nil {
			unix.CloseOnExec(fd)
			err = s.Put(name, fd)
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return s, errors.Join(errs...)
}

func systemdName(fd int, given string) (string, error) {
	if addr, err := queue.ListeningOn(fd); err == nil {
		return ListenerPrefix + queue.NameOf(fd, addr), nil
	}
	switch given {
	case Stats, Cache, QueueIn, QueueOut:
		return given, Check(given, fd)
	}
	return "", fmt.Errorf("heritage: descriptor %d (%q) from systemd is neither a listening TCP socket nor one of ours", fd, given)
}
