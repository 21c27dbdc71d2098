package parent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"trafficd/roles/server/http1"
)

// A Check is how the servers of a group are asked whether they are well: a GET on a connection of its own, whose
// answer's status says it.
type Check struct {
	Path     string // with its query
	Host     string // sent as Host; "": the server's own name
	Interval time.Duration
	Timeout  time.Duration // for all of one check
	Expect   *[600]bool    // good statuses
	Rise     int           // good checks in a row that bring a server back
	Fall     int           // bad ones that take it out
}

// check is a Check of one server.
type check struct {
	server *Server
	Check
}

// checks runs health checks, a goroutine for each.
type checks struct {
	mu     sync.Mutex // guards what follows
	dial   dialer     // nil: not started
	wanted []check
	stop   context.CancelFunc // of those that run; nil: none
	wg     sync.WaitGroup
}

type dialer = func(ctx context.Context, host string, port uint16) (net.Conn, error)

func (c *checks) replace(wanted []check) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wanted = wanted
	c.runLocked()
}

func (c *checks) start(dial dialer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dial = dial
	c.runLocked()
}

// runLocked ends the checks that run, without waiting for them, and begins those that are wanted.
func (c *checks) runLocked() {
	if c.stop != nil {
		c.stop()
		c.stop = nil
	}
	if c.dial == nil || len(c.wanted) == 0 {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	for _, one := range c.wanted {
		c.wg.Go(func() { one.run(ctx, c.dial) })
	}
}

func (c *checks) close() {
	c.mu.Lock()
	c.dial = nil
	c.runLocked()
	c.mu.Unlock()
	c.wg.Wait()
}

// run checks until ctx ends. The first check comes at once, the others at intervals that vary by a tenth, so that
// many proxies do not ask in step.
func (c *check) run(ctx context.Context, dial dialer) {
	for {
		err := c.once(ctx, dial)
		if ctx.Err() != nil {
			return
		}
		c.server.checked(err)
		pause := time.NewTimer(c.Interval - c.Interval/20 + rand.N(c.Interval/10+1))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return
		}
	}
}

// once makes one check. nil: the server is well. Whatever breaks when the time is over, it is the time-out that is told.
func (c *check) once(ctx context.Context, dial dialer) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	err := c.ask(ctx, dial)
	if err != nil && ctx.Err() == context.DeadlineExceeded {
		return fmt.Errorf("no answer within %v", c.Timeout)
	}
	return err
}

// ask makes one check in the time that ctx has.
func (c *check) ask(ctx context.Context, dial dialer) error {
	conn, err := dial(ctx, c.server.Host, c.server.Port)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	host := c.Host
	if host == "" {
		host = c.server.name
	}
	if _, err := io.WriteString(conn, "GET "+c.Path+" HTTP/1.1\r\nHost: "+host+"\r\nUser-Agent: trafficd\r\nConnection: close\r\n\r\n"); err != nil {
		return err
	}
	status, err := readStatus(conn)
	if err != nil {
		return err
	}
	if status >= len(c.Expect) || !c.Expect[status] {
		return fmt.Errorf("the answer has status %d", status)
	}
	return nil
}

// maxCheckHead bounds the head of an answer to a check.
const maxCheckHead = 16 << 10

// readStatus reads the head of a final response. The body is of no interest.
func readStatus(r io.Reader) (int, error) {
	var buf [maxCheckHead]byte
	var resp http1.Response
	n := 0
	for n < len(buf) {
		m, err := r.Read(buf[n:])
		n += m
		for {
			perr := resp.Parse(buf[:n], nil)
			if perr == http1.ErrIncomplete {
				break
			}
			if perr != nil {
				return 0, fmt.Errorf("malformed answer: %w", perr)
			}
			if resp.Status >= 200 {
				return resp.Status, nil
			}
			n = copy(buf[:], buf[resp.HeadLen:n]) // an interim one
		}
		if err == io.EOF {
			return 0, errors.New("the connection was closed without an answer")
		}
		if err != nil {
			return 0, err
		}
	}
	return 0, errors.New("the answer's head is too large")
}
