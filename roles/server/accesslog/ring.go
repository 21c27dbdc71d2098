package accesslog

import (
	"encoding/binary"

	"trafficd/queue"
	"trafficd/roles/server/custody"
)

// A ring holds the lines of one loop until the writer has taken them: each behind a header of
// three words, everything in multiples of eight bytes, round and round.
//
//	length of the line | connection | request | the line
//
// The loop adds at the head, the writer takes from the tail. Positions only grow.
type ring struct {
	h    *ringHeader
	data []byte
	// Of the dead server's last line. Immutable after claim.
	lastConn, lastRequest uint64
}

const lineHeader = 24

func (m *memory) ringOf(loop int) *ring { return &ring{h: m.ringHeader(loop), data: m.data(loop)} }

// recall notes whose the last line is: its transaction may not know yet that it is over.
func (r *ring) recall() {
	r.lastConn, r.lastRequest = 0, 0
	if last, head := r.h.last.Load(), r.h.head.Load(); last < head && last&7 == 0 {
		r.lastConn, r.lastRequest = r.word(last+8), r.word(last+16)
	}
}

func (r *ring) word(pos uint64) uint64 {
	return binary.NativeEndian.Uint64(r.data[pos&uint64(len(r.data)-1):])
}

func (r *ring) setWord(pos, v uint64) {
	binary.NativeEndian.PutUint64(r.data[pos&uint64(len(r.data)-1):], v)
}

func size(line int) uint64 { return lineHeader + (uint64(line)+7)&^7 }

// add publishes a line. False: there is no room.
func (r *ring) add(line []byte, conn, request uint64) bool {
	head := r.h.head.Load()
	if head+size(len(line))-r.h.tail.Load() > uint64(len(r.data)) {
		return false
	}
	r.setWord(head, uint64(len(line)))
	r.setWord(head+8, conn)
	r.setWord(head+16, request)
	from := (head + lineHeader) & uint64(len(r.data)-1)
	n := copy(r.data[from:], line)
	copy(r.data, line[n:])
	queue.Killpoint(custody.StepLine)
	r.h.last.Store(head)
	r.h.head.Store(head + size(len(line)))
	queue.Killpoint(custody.StepLine)
	return true
}

// used is how many bytes wait.
func (r *ring) used() uint64 { return r.h.head.Load() - r.h.tail.Load() }

// pressing reports whether the loop may run out of room soon.
func (r *ring) pressing() bool { return r.used() > uint64(len(r.data))/4 }

// take copies lines from tail on into dst, as many as fit. It returns the position behind them.
func (r *ring) take(dst []byte, tail uint64) ([]byte, uint64) {
	head := r.h.head.Load()
	for tail < head {
		n := r.word(tail)
		if n > maxLine+1 || tail+size(int(n)) > head {
			return dst, head // it cannot be: there is nothing to be had from this ring
		}
		if uint64(cap(dst)-len(dst)) < n {
			break
		}
		from := (tail + lineHeader) & uint64(len(r.data)-1)
		first := min(n, uint64(len(r.data))-from)
		dst = append(dst, r.data[from:from+first]...)
		dst = append(dst, r.data[:n-first]...)
		tail += size(int(n))
	}
	return dst, tail
}
