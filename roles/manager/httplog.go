package manager

import (
	stdlog "log"

	"github.com/rs/zerolog"
)

// stdLogger is where an http.Server complains about its clients, which is nobody's alarm.
func stdLogger(l zerolog.Logger) *stdlog.Logger { return stdlog.New(debugWriter{l}, "", 0) }

type debugWriter struct{ l zerolog.Logger }

// Write implements io.Writer.
func (w debugWriter) Write(p []byte) (int, error) {
	n := len(p)
	if n > 0 && p[n-1] == '\n' {
		p = p[:n-1]
	}
	w.l.Debug().Bytes("text", p).Msg("http server")
	return n, nil
}
