package accesslog

// A Log is one loop's way to the log. Owned by the loop.
type Log struct {
	out    *Output // immutable
	loop   int     // immutable
	ring   *ring   // immutable
	format *Format
	clock  clock
	line   []byte
}

// Use sets the format of the lines from now on.
func (l *Log) Use(f *Format) { l.format = f }

// Add logs a transaction that is at its end. Its end is to be noted in the journal before anything else is
// done on this loop: see the package's documentation.
func (l *Log) Add(e *Entry) {
	l.line = l.format.appendLine(l.line[:0], e, &l.clock)
	if !l.ring.add(l.line, e.Conn, e.Request) {
		l.out.o.Dropped(l.loop)
		l.out.rouse(true)
		return
	}
	l.out.rouse(l.ring.pressing())
}

// Logged reports whether the dead server's last line on this loop is that of this request.
func (l *Log) Logged(conn, request uint64) bool {
	return conn != 0 && conn == l.ring.lastConn && request == l.ring.lastRequest
}
