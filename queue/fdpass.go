package queue

import (
	"errors"
	"fmt"
	"io"
	"syscall"

	"golang.org/x/sys/unix"
)

// MaxFDs is the largest number of descriptors one message can carry
// (SCM_MAX_FD in include/net/scm.h).
const MaxFDs = 253

// ErrTruncated reports a message that did not fit: the payload was longer than
// the buffer, or the kernel dropped descriptors (MSG_CTRUNC: no room in the
// control buffer, or the descriptor table of this process is full). Every
// descriptor that did arrive with it has been closed.
var ErrTruncated = errors.New("message truncated")

// ErrPeerGone is io.EOF's companion on the sending side: nobody can ever read
// what is sent here.
var ErrPeerGone = errors.New("peer is gone")

// Send writes payload and duplicates of fds to the Unix socket c as one
// message. It blocks as c's own Write would (and so obeys its write deadline).
// The descriptors stay the caller's: the kernel holds its own references from
// the moment Send returns nil.
//
// On SOCK_SEQPACKET and SOCK_DGRAM the message arrives whole or not at all. On
// SOCK_STREAM the descriptors travel with the first byte. An empty payload is
// refused: on a stream descriptors without a byte are not delivered
// (unix(7)), and on SEQPACKET an empty message looks like the end.
func Send(c syscall.Conn, payload []byte, fds ...int) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return fmt.Errorf("send descriptors: %w", err)
	}
	first := true
	for first || len(payload) > 0 {
		var n int
		var sendErr error
		err = rc.Write(func(fd uintptr) bool {
			n, sendErr = sendOnce(int(fd), payload, fds, unix.MSG_DONTWAIT)
			return !errors.Is(sendErr, unix.EAGAIN)
		})
		if err == nil {
			err = sendErr
		}
		if err != nil {
			return err
		}
		payload, fds, first = payload[n:], nil, false
	}
	return nil
}

// SendFD is Send for a bare descriptor, without waiting: a socket that has no
// room gives unix.EAGAIN, whatever its O_NONBLOCK says. Not for SOCK_STREAM,
// where a partial write would be an error.
func SendFD(fd int, payload []byte, fds ...int) error {
	n, err := sendOnce(fd, payload, fds, unix.MSG_DONTWAIT)
	if err == nil && n != len(payload) {
		return fmt.Errorf("send message: %w", io.ErrShortWrite)
	}
	return err
}

func sendOnce(fd int, payload []byte, fds []int, flags int) (int, error) {
	if len(payload) == 0 {
		return 0, errors.New("send message: empty payload")
	}
	if len(fds) > MaxFDs {
		return 0, fmt.Errorf("send message: %d descriptors, at most %d fit", len(fds), MaxFDs)
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	for {
		// MSG_NOSIGNAL: a dead peer is an error here, not a SIGPIPE.
		n, err := unix.SendmsgN(fd, payload, oob, nil, flags|unix.MSG_NOSIGNAL)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EPIPE || err == unix.ECONNRESET:
			return 0, fmt.Errorf("send message: %w: %w", ErrPeerGone, err)
		case err != nil:
			return 0, fmt.Errorf("send message: %w", err)
		}
		return n, nil
	}
}

// Recv reads one message from the Unix socket c into buf and returns its
// length and the descriptors that came with it, which are the caller's to
// close and have close-on-exec set. It blocks as c's own Read would. The end
// of the connection is io.EOF. A message that does not fit is ErrTruncated.
func Recv(c syscall.Conn, buf []byte) (n int, fds []int, err error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return 0, nil, fmt.Errorf("receive descriptors: %w", err)
	}
	var recvErr error
	err = rc.Read(func(fd uintptr) bool {
		n, fds, recvErr = RecvFD(int(fd), buf)
		return !errors.Is(recvErr, unix.EAGAIN)
	})
	if err == nil {
		err = recvErr
	}
	if err != nil {
		return 0, nil, err
	}
	return n, fds, nil
}

// RecvFD is Recv for a bare descriptor, without waiting: nothing to read gives
// unix.EAGAIN, whatever its O_NONBLOCK says.
func RecvFD(fd int, buf []byte) (n int, fds []int, err error) {
	n, fds, flags, err := recvOnce(fd, buf, make([]byte, unix.CmsgSpace(MaxFDs*4)), 0)
	if err != nil {
		return 0, nil, err
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		CloseAll(fds)
		return 0, nil, fmt.Errorf("receive message: %w", ErrTruncated)
	}
	return n, fds, nil
}

// recvOnce is one recvmsg. It returns the message's flags for the caller to
// judge; the descriptors it returns are open in every case but an error.
func recvOnce(fd int, buf, oob []byte, flags int) (n int, fds []int, got int, err error) {
	var oobn int
	for {
		n, oobn, got, _, err = unix.Recvmsg(fd, buf, oob, flags|unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		if err != unix.EINTR {
			break
		}
	}
	if err == unix.ECONNRESET {
		// The peer closed with unread data of ours: the end all the same.
		return 0, nil, 0, io.EOF
	}
	if err != nil {
		return 0, nil, 0, fmt.Errorf("receive message: %w", err)
	}
	fds = parseRights(oob[:oobn])
	if n == 0 && len(fds) == 0 {
		return 0, nil, got, io.EOF
	}
	return n, fds, got, nil
}

// parseRights returns every descriptor named in the control data. What is not
// SCM_RIGHTS (credentials, timestamps) is passed over, and so is a tail the
// kernel cut off: the descriptors before it are open and must not be lost.
func parseRights(oob []byte) []int {
	var fds []int
	for len(oob) >= unix.CmsgLen(0) {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			break
		}
		if h.Level == unix.SOL_SOCKET && h.Type == unix.SCM_RIGHTS {
			for ; len(data) >= 4; data = data[4:] {
				fds = append(fds, int(int32(nativeUint32(data))))
			}
		}
		if len(rest) >= len(oob) {
			break
		}
		oob = rest
	}
	return fds
}

// CloseAll closes every descriptor of fds. For descriptors that were received
// and are not wanted.
func CloseAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
