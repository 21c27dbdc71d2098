package harness

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"testing"
)

// Ports lie below the range from which the kernel takes those of outgoing connections, so that no client
// of a story can be sitting on one when an instance binds.
const (
	firstPort, endPort = 10240, 32768
	blockSize          = 64
)

// ports are given once only. A process takes them in blocks that are its own until it ends, so that two
// that run stories at the same time never give the same one: a port that nobody listens on at the moment
// may be the one that an instance is about to bind.
var ports struct {
	sync.Mutex
	block []int          // ports of the block taken last that have not been given
	owned []net.Listener // a name in the kernel for each block; never closed
}

// FreeAddr is an address on 127.0.0.1 that nothing listens on and that is given once only.
func FreeAddr(t testing.TB) string {
	t.Helper()
	l := freeListener(t)
	l.Close()
	return l.Addr().String()
}

// freeListener listens on such an address.
func freeListener(t testing.TB) net.Listener {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	for range 1000 {
		if len(ports.block) == 0 && !takeBlock() {
			continue
		}
		port := ports.block[0]
		ports.block = ports.block[1:]
		if l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			return l
		}
	}
	t.Fatal("no free port in 1000 tries")
	return nil
}

// takeBlock takes a block that no process has; false: the one that was tried is somebody's. Called with ports locked.
func takeBlock() bool {
	first := firstPort + blockSize*rand.IntN((endPort-firstPort)/blockSize)
	l, err := net.Listen("unix", fmt.Sprintf("@trafficd-e2e-ports-%d", first))
	if err != nil {
		return false
	}
	ports.owned = append(ports.owned, l)
	for _, i := range rand.Perm(blockSize) {
		ports.block = append(ports.block, first+i)
	}
	return true
}
