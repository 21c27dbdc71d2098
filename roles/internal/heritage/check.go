package heritage

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"trafficd/queue"
)

// Check reports whether fd is open and what its name promises:
//
//	listener:ADDR        a listening TCP socket (on ADDR, port 0 being any)
//	stats, cache, journal, accesslog   shared memory (memfd) that is not empty
//	queue.*, custody.*      a connected Unix SOCK_SEQPACKET socket
//	any other            open
//
// Names not known are let through, so that an older process can hold for a
// newer one what it does not understand.
func Check(name string, fd int) error {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
		return fmt.Errorf("heritage: %s: descriptor %d: %w", name, fd, err)
	}
	var err error
	addr, isListener := strings.CutPrefix(name, ListenerPrefix)
	switch {
	case isListener:
		err = checkListener(addr, fd)
	case name == Stats || name == Cache || name == Journal || name == AccessLog:
		err = checkMemory(fd)
	case name == QueueIn || name == QueueOut || name == CustodyIn || name == CustodyOut:
		err = checkQueue(fd)
	}
	if err != nil {
		return fmt.Errorf("heritage: %s: descriptor %d: %w", name, fd, err)
	}
	return nil
}

func checkListener(addr string, fd int) error {
	got, err := queue.ListeningOn(fd)
	if err != nil {
		return err
	}
	return queue.MatchesAddr(addr, got)
}

// checkMemory: only shmem and hugetlbfs files know seals (mm/memfd.c).
func checkMemory(fd int) error {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0); err != nil {
		return fmt.Errorf("not a memfd: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Size == 0 {
		return errors.New("memfd is empty")
	}
	return nil
}

func checkQueue(fd int) error {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return err
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return err
	}
	if domain != unix.AF_UNIX || kind != unix.SOCK_SEQPACKET {
		return errors.New("not a Unix SOCK_SEQPACKET socket")
	}
	return nil
}
