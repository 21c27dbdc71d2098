package resolve

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// A client asks name servers. The kernel gives each question a port of its own by random, and it has a random id: who
// does not see the question has to guess both (RFC 5452 §9).
type client struct {
	dial func(ctx context.Context, network, address string) (net.Conn, error)
	turn atomic.Uint32 // for rotate
}

// lookup asks for the addresses of both families of a host, under the names that it may mean.
func (c *client) lookup(ctx context.Context, cf *conf, host string) (Answer, error) {
	missing := &NotFoundError{Host: host}
	for i, name := range cf.names(host) {
		a, err := c.both(ctx, cf, name)
		var none *NotFoundError
		if err == nil || !errors.As(err, &none) {
			return a, err
		}
		if i == 0 || none.TTL < missing.TTL {
			missing.TTL = none.TTL
		}
	}
	return Answer{}, missing
}

// both asks for both families at once. One that is not answered does not matter if the other has addresses.
func (c *client) both(ctx context.Context, cf *conf, name string) (Answer, error) {
	type outcome struct {
		reply
		err error
	}
	kinds := []dnsmessage.Type{dnsmessage.TypeAAAA, dnsmessage.TypeA}
	outcomes := make([]chan outcome, len(kinds))
	for i, kind := range kinds {
		outcomes[i] = make(chan outcome, 1)
		go func() {
			r, err := c.ask(ctx, cf, name, kind)
			outcomes[i] <- outcome{r, err}
		}()
	}
	var a Answer
	var errs []error
	ttl := time.Duration(-1)
	for _, ch := range outcomes {
		o := <-ch
		if o.err != nil {
			errs = append(errs, o.err)
			continue
		}
		if len(o.addrs) > 0 {
			if len(a.Addrs) == 0 || o.ttl < a.TTL {
				a.TTL = o.ttl
			}
			a.Addrs = append(a.Addrs, o.addrs...)
		} else if ttl < 0 || o.ttl < ttl {
			ttl = o.ttl
		}
	}
	switch {
	case len(a.Addrs) > 0:
		prefer(a.Addrs)
		return a, nil
	case len(errs) > 0:
		return a, OneLine(errs)
	}
	return a, &NotFoundError{Host: name, TTL: max(ttl, 0)}
}

// prefer puts the IPv4 addresses first where IPv6 leads nowhere. addrs begins with those of IPv6, if there are any.
func prefer(addrs []netip.Addr) {
	n := 0
	for n < len(addrs) && addrs[n].Is6() {
		n++
	}
	if n == 0 || n == len(addrs) || routed(addrs[0]) {
		return
	}
	turned := append(append([]netip.Addr(nil), addrs[n:]...), addrs[:n]...)
	copy(addrs, turned)
}

// routed reports whether the machine has a route to a. Connecting a datagram socket sends nothing.
func routed(a netip.Addr) bool {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, dnsPort)))
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// ask puts one question to the servers in turn until one answers it.
func (c *client) ask(ctx context.Context, cf *conf, name string, kind dnsmessage.Type) (reply, error) {
	first := 0
	if cf.rotate {
		first = int(c.turn.Add(1))
	}
	err := errors.New("there are no name servers")
	for range cf.attempts {
		for i := range cf.servers {
			server := cf.servers[(first+i)%len(cf.servers)]
			var r reply
			if r, err = c.askServer(ctx, server, cf.timeout, name, kind); err == nil {
				return r, nil
			}
			err = fmt.Errorf("name server %s: %w", server, err)
			if ctx.Err() != nil {
				return reply{}, err
			}
		}
	}
	return reply{}, err
}

func (c *client) askServer(ctx context.Context, server netip.AddrPort, timeout time.Duration, name string, kind dnsmessage.Type) (reply, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	q, err := newQuestion(name, kind, uint16(rand.Uint32()))
	if err != nil {
		return reply{}, err
	}
	r, err := c.exchange(ctx, "udp", server, &q)
	if errors.Is(err, errTruncated) {
		return c.exchange(ctx, "tcp", server, &q)
	}
	return r, err
}

// maxMessage bounds an answer by UDP. Without EDNS servers send 512 bytes at most.
const maxMessage = 4096

// exchange puts a question to one server over one network.
func (c *client) exchange(ctx context.Context, network string, server netip.AddrPort, q *question) (reply, error) {
	conn, err := c.dial(ctx, network, server.String())
	if err != nil {
		return reply{}, err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return reply{}, err
		}
	}
	msg, err := q.pack()
	if err != nil {
		return reply{}, err
	}
	if network == "tcp" {
		return overStream(conn, msg, q)
	}
	if _, err := conn.Write(msg); err != nil {
		return reply{}, err
	}
	buf := make([]byte, maxMessage)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return reply{}, err
		}
		// What is not for us was sent by somebody who guesses, or comes too late; the answer may still come.
		if r, err := q.parse(buf[:n]); err != errStranger {
			return r, err
		}
	}
}

// overStream puts a question to a server by TCP, where messages have their length before them (RFC 1035 §4.2.2).
func overStream(conn io.ReadWriter, msg []byte, q *question) (reply, error) {
	if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...)); err != nil {
		return reply{}, err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return reply{}, err
	}
	buf := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, buf); err != nil {
		return reply{}, err
	}
	return q.parse(buf)
}
