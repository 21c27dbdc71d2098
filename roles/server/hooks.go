package server

import (
	"os"
	"syscall"

	"trafficd/roles/server/header"
	"trafficd/roles/server/http1"
)

// hooksVariable switches on what only tests want: requests that kill the server. Whoever can send
// requests can then do so; a server that has it on says so when it starts.
const hooksVariable = "TRAFFICD_TEST_HOOKS"

const hookField = "Trafficd-Test"

// hook returns what the transactions call with each request, nil if the hooks are off:
//
//	Trafficd-Test: panic   a Go panic on the loop
//	Trafficd-Test: abort   SIGABRT, as from a fault of the Go runtime
//	Trafficd-Test: exit    exit code 3
//	Trafficd-Test: kill    SIGKILL, which nobody could tell from an operator's
//	Trafficd-Test: spin    the loop never comes back
func (s *Server) hook() func(*http1.Request, []byte) {
	if os.Getenv(hooksVariable) != "1" {
		return nil
	}
	s.log.Warn().Str("variable", hooksVariable).Msg("test hooks are on: any client can kill this server")
	return func(r *http1.Request, head []byte) {
		for i := range r.Fields {
			if f := &r.Fields[i]; header.EqualFold(f.Name.In(head), hookField) {
				die(string(f.Value.In(head)))
			}
		}
	}
}

func die(how string) {
	switch how {
	case "panic":
		panic("a test has asked for this")
	case "abort":
		_ = syscall.Kill(os.Getpid(), syscall.SIGABRT)
		select {}
	case "exit":
		os.Exit(3)
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "spin":
		for n := uint64(1); n != 0; n |= 1 {
		}
	}
}
