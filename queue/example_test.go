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
