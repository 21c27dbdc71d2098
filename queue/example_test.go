package queue_test

import (
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"trafficd/queue"
)

// A manager without a server moves a waiting client into the FIFO; the server,
// once it is ready and has been told to go, takes it from there.
func Example() {
	l, err := queue.Bind("127.0.0.1:0", 128)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()
	fifo, err := queue.NewFIFO(1000)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer fifo.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	backlog, _ := l.Backlog()
	waiting, _ := fifo.Len()
	action, reason := queue.DefaultPolicy.Decide(queue.State{
		Without: 3 * time.Second, Backlog: backlog, Len: waiting, Limit: fifo.Limit(),
	})
	fmt.Println(action, reason)
	moved, _ := queue.Collect(fifo, []*queue.Listener{l}, 64, func(fd int) { unix.Close(fd) })
	fmt.Println(moved, "waiting")

	entry, fd, err := fifo.Take()
	fmt.Println(entry.Listener == l.ID(), err)
	unix.Close(fd)
	// Output:
	// accept no_server
	// 1 waiting
	// true <nil>
}

// An exchange is what this example has in progress on a connection.
type exchange struct {
	Request uint64 // byte of the stream that the request begins with
	Answer  uint64 // byte that the answer begins with, once Length is not 0
	Length  uint64
}

const (
	stepReceive = queue.UserStep + iota
	stepAnswer
)

// A server says in the journal what it does with a connection. Another process
// opens the same memory, after the death of the first, and goes on.
func ExampleJournal() {
	memory, err := queue.NewJournal(queue.Geometry{Loops: 1, Slots: 1000, Pool: 1 << 20})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer unix.Close(memory)

	first, err := queue.OpenJournal(memory)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer first.Close()
	const place = 4096                         // in the pool, given out by the server
	slot, err := first.Ledger(0).Open(4711, 0) // SO_COOKIE of the connection
	if err != nil {
		fmt.Println(err)
		return
	}
	record := queue.RecordAt[exchange](first.Pool(0)[place:])
	record.Commit(&exchange{Request: 900}, stepReceive)
	slot.Set(place)
	// Here it receives, up to the end of the request.
	record.Commit(&exchange{Request: 900, Answer: 5000, Length: 1234}, stepAnswer)
	// Here it sends, and dies. The socket tells: 5100 bytes were written.
	written := queue.Progress{Written: 5100}.Written

	next, err := queue.OpenJournal(memory)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer next.Close()
	for slot := range next.Ledger(0).All() {
		e := queue.RecordAt[exchange](next.Pool(0)[slot.Word():]).Load()
		fmt.Printf("connection %d: %d bytes of %d are sent\n", slot.Cookie(), written-e.Answer, e.Length)
	}
	// Output: connection 4711: 100 bytes of 1234 are sent
}
