package harness

import (
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Annihilate sends SIGKILL to every process of the instance until none is left: as long as one of them lives
// it starts the others anew.
func (p *Trafficd) Annihilate() {
	p.t.Helper()
	gone := poll(Patience, func() bool {
		left := processesOf(p.RunRoot)
		var dying []*Process
		for _, pid := range left {
			if h, err := openProcess(pid); err == nil {
				p.mu.Lock()
				p.killed[pid], p.seen[pid] = StartTime(pid), true
				p.mu.Unlock()
				h.signal(unix.SIGKILL)
				dying = append(dying, h)
			}
		}
		// A process that is being torn down shows nothing of itself, and may still hold its locks and sockets.
		for _, h := range dying {
			h.waitGone(Patience)
			h.fd.Close()
		}
		p.reap()
		return len(left) == 0 && unbound(p.Addr) && unbound(p.Autoconf)
	})
	if !gone {
		p.t.Fatalf("processes are left: %v", p.left())
	}
}

func unbound(addr string) bool {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	l.Close()
	return true
}

// StartAgain starts an instance with the run root, addresses and options of one that has been annihilated, and waits until it
// answers. p then stands for that one.
func (p *Trafficd) StartAgain(opts ...Option) {
	p.t.Helper()
	if !p.waitExited(Patience) {
		p.t.Fatal("the instance has not ended")
	}
	for _, o := range opts {
		o(&p.opts)
	}
	r, w, err := os.Pipe()
	if err != nil {
		p.t.Fatal(err)
	}
	p.Log = newLog(r)
	p.cmd = p.command(p.arguments()...)
	p.cmd.Stderr = w
	if err := p.cmd.Start(); err != nil {
		p.t.Fatalf("start trafficd again: %v", err)
	}
	w.Close()
	started.Store(p.cmd.Process.Pid, true)
	p.exited = make(chan struct{})
	cmd, exited := p.cmd, p.exited
	go func() {
		cmd.Wait()
		started.Delete(cmd.Process.Pid)
		close(exited)
	}()
	if !p.opts.noReady {
		p.WaitReady()
		p.waitKnown()
	}
}
