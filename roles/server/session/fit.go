package session

import "trafficd/roles/server/sock"

// What is handed to the kernel for a client that does not take it is memory that nobody gets back before the
// connection ends, up to net.ipv4.tcp_wmem of it, 4 MiB: a thousand clients that stand still are enough to bring
// the whole machine's TCP to its limit (net.ipv4.tcp_mem), and copying it takes seconds from the others. But giving
// everybody little at a time costs fast clients of large responses a tenth of the throughput and more. So it is done only
// while much lies there untaken.

// little is what a client gets at a time then, in bytes.
const little = 128 << 10

// holds notes what lies in the kernel for a client that is waited for, or that has been given much at once.
func (s *Session) holds(bytes int64) {
	s.host.untaken += bytes - s.work.untaken
	s.work.untaken = bytes
}

// fit gives the client of a long reply little at a time, or as much as the kernel takes again.
func (s *Session) fit() {
	w, most := s.work, s.host.Limits.Untaken
	much := most > 0 && s.host.untaken > most
	if much == s.little || w.end >= 0 && w.end-w.off <= little {
		return
	}
	s.little = much
	if much {
		sock.LimitUnsent(s.fd, little)
	} else {
		sock.LimitUnsent(s.fd, 0)
	}
}
