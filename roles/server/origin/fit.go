package origin

import "trafficd/roles/server/sock"

// What an origin has sent for a client that does not take it lies in the kernel until that client goes on or is thrown
// out. How much that is the kernel decides by how fast the connection was before: up to net.ipv4.tcp_rmem, some megabytes.
// A small window for all would cost a distant origin its throughput, so there is one only while much lies there
// untaken. What an origin was told that it may send cannot be taken back: a window becomes small as it is used up.

// little is the window that an origin has then, in bytes.
const little = 128 << 10

// pause stops receiving: the sink has no space.
func (c *Conn) pause() {
	c.paused = true
	c.clientsTurn()
}

// weigh notes what lies in the kernel of a response that nobody takes. It is asked when the client's turn lasts, and again
// when more has come.
func (c *Conn) weigh() {
	n := 0
	if c.paused && c.state == readingBody && c.x != nil {
		n = sock.Unread(c.fd)
	}
	c.pool.untaken += int64(n - c.untaken)
	c.untaken = n
}

// fit lets the origin send little at a time, or as much as the kernel likes again.
func (c *Conn) fit() {
	most := c.pool.limits.Untaken
	much := most > 0 && c.pool.untaken > most
	if much == c.little {
		return
	}
	c.little = much
	if much {
		sock.LimitWindow(c.fd, little)
	} else {
		sock.FreeWindow(c.fd)
	}
}
