package queue

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Progress is how far a TCP connection got, as its socket tells. It outlives
// the process that used it, so whoever adopts the socket learns up to which
// byte the dead one wrote and read, without a note of it having been taken.
//
//	Written  = tcpi_bytes_acked + SIOCOUTQ − (active side: 1, the SYN) − (we have shut down: 1, our FIN)
//	Consumed = tcpi_bytes_received − SIOCINQ − (the peer has shut down: 1, its FIN)
//
// Why these: SIOCOUTQ is write_seq − snd_una (tcp_ioctl, net/ipv4/tcp.c), and
// bytes_acked counts every step of snd_una (tcp_snd_una_update,
// net/ipv4/tcp_input.c), so loss, retransmission and reordering cancel out. A
// passive socket is made after its SYN was acknowledged and starts at 0; an
// active one counts its SYN. FIN takes a place in the sequence in both
// directions. The formula that comes to mind, bytes_sent − bytes_retrans +
// notsent, is wrong: a segment that could not be handed to the device is counted in
// bytes_sent each time and never in bytes_retrans.
//
// Urgent data is counted wrongly unless the socket has SO_OOBINLINE: set it on
// the listener, its connections inherit it.
type Progress struct {
	// Written is the number of bytes this side has given to the socket, sent
	// or not.
	Written uint64
	// Consumed is the number of bytes this side has taken from the socket.
	Consumed uint64
	// Unread is the number of bytes that wait to be read. It may have grown
	// since.
	Unread uint32
	// Unacked is the number of bytes the peer has not acknowledged yet.
	Unacked uint32
	// State is the state of the connection (TCPEstablished, …), and with it
	// who has shut down what.
	State TCPState
}

// TCPState is the state of a TCP socket, numbered as in
// include/net/tcp_states.h.
type TCPState uint8

// The states a connected socket can be in.
const (
	TCPEstablished TCPState = 1
	TCPSynSent     TCPState = 2
	TCPSynRecv     TCPState = 3
	TCPFinWait1    TCPState = 4
	TCPFinWait2    TCPState = 5
	TCPTimeWait    TCPState = 6
	TCPClose       TCPState = 7
	TCPCloseWait   TCPState = 8
	TCPLastAck     TCPState = 9
	TCPListen      TCPState = 10
	TCPClosing     TCPState = 11
)

var tcpStateNames = map[TCPState]string{
	TCPEstablished: "established", TCPSynSent: "syn sent", TCPSynRecv: "syn received", TCPFinWait1: "fin wait 1",
	TCPFinWait2: "fin wait 2", TCPTimeWait: "time wait", TCPClose: "closed", TCPCloseWait: "close wait",
	TCPLastAck: "last ack", TCPListen: "listening", TCPClosing: "closing",
}

// String returns the state's name.
func (s TCPState) String() string {
	if name, ok := tcpStateNames[s]; ok {
		return name
	}
	return fmt.Sprintf("TCP state %d", uint8(s))
}

// PeerDone tells whether the peer has shut down its direction: its FIN was
// received, and counted.
func (s TCPState) PeerDone() bool {
	switch s {
	case TCPCloseWait, TCPLastAck, TCPClosing, TCPTimeWait:
		return true
	}
	return false
}

// WeDone tells whether this side has shut down its direction: its FIN stands
// in the send queue or has left it, and is counted either way.
func (s TCPState) WeDone() bool {
	switch s {
	case TCPFinWait1, TCPFinWait2, TCPLastAck, TCPClosing, TCPTimeWait:
		return true
	}
	return false
}

// Side is which end of the handshake a socket was.
type Side uint8

const (
	// Passive is a socket from accept: a client's connection.
	Passive Side = iota
	// Active is a socket from connect: a connection to an origin.
	Active
)

// ErrConnectionOver reports a socket whose connection has come to its end on
// both sides, or was reset, or never began: its state is the same for all of
// these, and its counters cannot be told apart by one.
var ErrConnectionOver = errors.New("connection is over")

// steadyTries bounds the reading of counters that change: each try takes some
// microseconds in which the peer must not have been heard of.
const steadyTries = 10_000

// ReadProgress asks the kernel how far the TCP connection fd got. side says
// how it began, which the socket does not remember.
//
// Nobody may read, write or shut down fd meanwhile. The peer may: the counters
// are read again until they stand still for an instant. Four system calls, no
// allocation. ErrConnectionOver comes with what can still be said: State, and
// numbers that may be one too high each.
func ReadProgress(fd int, side Side) (Progress, error) {
	var before, after tcpCounters
	if err := before.read(fd); err != nil {
		return Progress{}, err
	}
	for range steadyTries {
		inq, err := unix.IoctlGetInt(fd, unix.SIOCINQ)
		if err != nil {
			return Progress{}, fmt.Errorf("unread bytes of connection: %w", err)
		}
		outq, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
		if err != nil {
			return Progress{}, fmt.Errorf("unsent bytes of connection: %w", err)
		}
		if err := after.read(fd); err != nil {
			return Progress{}, err
		}
		if before == after {
			return after.progress(side, uint32(inq), uint32(outq))
		}
		before = after
	}
	return Progress{}, errors.New("progress of connection: its counters do not stand still")
}

// ReadEnded is ReadProgress for a connection of which the caller knows that this side has shut down its direction. When
// the peer has as well, the socket is closed to the kernel (the state after the last ACK, and also
// TIME-WAIT, which lives elsewhere: tcp_time_wait, net/ipv4/tcp_minisocks.c), and there may still be something to be
// read. A connection that was reset is ErrConnectionOver. Asking takes the socket's error away.
func ReadEnded(fd int, side Side) (Progress, error) {
	p, err := ReadProgress(fd, side)
	if !errors.Is(err, ErrConnectionOver) || p.State != TCPClose {
		return p, err
	}
	if n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || n != 0 {
		return p, fmt.Errorf("progress of connection: %w: reset", ErrConnectionOver)
	}
	c := tcpCounters{state: TCPTimeWait, acked: p.Written - uint64(p.Unacked), received: p.Consumed + uint64(p.Unread)}
	return c.progress(side, p.Unread, p.Unacked)
}

// tcpCounters is what must be equal before and after the two queues are read.
type tcpCounters struct {
	acked, received uint64
	state           TCPState
}

func (c *tcpCounters) read(fd int) error {
	var ti unix.TCPInfo
	size := uint32(unsafe.Sizeof(ti))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_INFO,
		uintptr(unsafe.Pointer(&ti)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return fmt.Errorf("tcp_info of connection: %w", errno)
	}
	// Linux 4.2 has both; a kernel that has not must not be read as 0.
	if uintptr(size) < unsafe.Offsetof(ti.Bytes_received)+8 {
		return fmt.Errorf("tcp_info of connection: the kernel gives %d bytes, without counters: %w", size, unix.ENOSYS)
	}
	c.acked, c.received, c.state = ti.Bytes_acked, ti.Bytes_received, TCPState(ti.State)
	return nil
}

func (c tcpCounters) progress(side Side, inq, outq uint32) (Progress, error) {
	p := Progress{
		Written:  c.acked + uint64(outq),
		Consumed: c.received - uint64(inq),
		Unread:   inq,
		Unacked:  outq,
		State:    c.state,
	}
	if c.state == TCPClose || c.state == TCPListen || c.state == TCPSynSent {
		return p, fmt.Errorf("progress of connection: %w: %v", ErrConnectionOver, c.state)
	}
	if side == Active {
		p.Written--
	}
	if c.state.WeDone() {
		p.Written--
		// The FIN is the last in the queue: unacknowledged until we are in a
		// state that says it was.
		if p.Unacked > 0 {
			p.Unacked--
		}
	}
	if c.state.PeerDone() {
		// SIOCINQ leaves out a FIN that stands unread behind data (tcp_inq),
		// so one is to be taken off whether it was read or not.
		p.Consumed--
	}
	return p, nil
}
