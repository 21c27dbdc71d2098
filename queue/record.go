package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"golang.org/x/sys/unix"
)

// Entry says of one waiting connection what its socket cannot.
type Entry struct {
	// Listener is the ListenerID of the listener it was accepted from. Not an
	// index: the manager that wrote it and the server that reads it may have
	// been given different lists.
	Listener uint32
	// Arrived is when the kernel completed the handshake, CLOCK_MONOTONIC ns,
	// so that time in the kernel's own queue counts. See Arrived.
	Arrived int64
	// Queued is when the manager put it into the FIFO, CLOCK_MONOTONIC ns.
	Queued int64
	// Cookie is the socket's SO_COOKIE: unique among all sockets of the
	// network namespace since boot, the same in every process.
	Cookie uint64
}

// Age is how long the client has been waiting at the instant now
// (CLOCK_MONOTONIC ns, see Monotonic). Never negative.
func (e Entry) Age(now int64) time.Duration {
	return time.Duration(max(0, now-e.Arrived))
}

// A record is an Entry as bytes in the FIFO: fixed length, so that the number
// of waiting connections is the number of waiting bytes divided by it.
//
//	0  magic "TFQ" and the version '1'
//	4  listener
//	8  arrived
//	16 queued
//	24 cookie
//
// Native byte order: writer and reader are on the same machine by nature.
const recordLen = 32

var recordMagic = [4]byte{'T', 'F', 'Q', '1'}

var errRecord = errors.New("not a record of the connection queue")

func (e Entry) append(b []byte) []byte {
	b = append(b, recordMagic[:]...)
	b = binary.NativeEndian.AppendUint32(b, e.Listener)
	b = binary.NativeEndian.AppendUint64(b, uint64(e.Arrived))
	b = binary.NativeEndian.AppendUint64(b, uint64(e.Queued))
	return binary.NativeEndian.AppendUint64(b, e.Cookie)
}

// parseRecord refuses what it does not know: a FIFO adopted from another
// version of the program must not be guessed at.
func parseRecord(b []byte) (Entry, error) {
	if len(b) != recordLen {
		return Entry{}, fmt.Errorf("%w: %d bytes", errRecord, len(b))
	}
	if [4]byte(b[:4]) != recordMagic {
		return Entry{}, fmt.Errorf("%w: magic %q", errRecord, b[:4])
	}
	e := Entry{
		Listener: binary.NativeEndian.Uint32(b[4:]),
		Arrived:  int64(binary.NativeEndian.Uint64(b[8:])),
		Queued:   int64(binary.NativeEndian.Uint64(b[16:])),
		Cookie:   binary.NativeEndian.Uint64(b[24:]),
	}
	if e.Arrived < 0 || e.Queued < e.Arrived {
		return Entry{}, fmt.Errorf("%w: arrived %d, queued %d", errRecord, e.Arrived, e.Queued)
	}
	return e, nil
}

func nativeUint32(b []byte) uint32 { return binary.NativeEndian.Uint32(b) }

// ListenerID is the stable identity of the listener with this name (its
// address as configured): 32-bit FNV-1a. The same in every generation,
// whatever other listeners come and go.
func ListenerID(name string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(name))
	return h.Sum32()
}

// Monotonic is CLOCK_MONOTONIC in nanoseconds: one clock for all processes of
// the instance, unaffected by steps of the wall clock.
func Monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic("queue: clock_gettime: " + err.Error()) // cannot fail with a valid clock
	}
	return ts.Nano()
}

// Arrived is the instant, CLOCK_MONOTONIC ns, at which the kernel completed
// the handshake of the accepted connection fd, to the millisecond, provided
// that nothing has been written to it yet.
//
// Source: tcp_create_openreq_child (net/ipv4/tcp_minisocks.c) sets both
// lsndtime and icsk_ack.lrcvtime to the instant of birth; tcp_get_info reports
// their ages as tcpi_last_data_sent and tcpi_last_data_recv. The second is
// reset by every segment the client sends, which would make the one who talks
// look younger; the first moves only when we send, and we have not. The larger
// is taken, in case a kernel keeps only one of them.
func Arrived(fd int) (int64, error) {
	ti, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0, fmt.Errorf("tcp_info of connection: %w", err)
	}
	waited := int64(max(ti.Last_data_sent, ti.Last_data_recv)) * int64(time.Millisecond)
	return max(0, Monotonic()-waited), nil
}
