// Package ctl is the command "trafficd ctl": the operator's hand on a running instance.
//
//	ctl ──HTTP on control.sock──▶ manager        status, stats, restart, drain, config, stop
//	 └───lock files───▶ the kernel               when no manager answers, and to see the end of a stop
//
// It is a client and no more: whatever it can do, curl on the socket can. The exit code is
// the verdict (sysexits): 0 it has happened, 69 no instance runs, 75 not now, 78 the
// configuration is refused; and the reason is on standard error, one problem a line.
//
// A command returns when what it asks for has happened, not when it was asked: "stop" when
// all three locks are free, "restart server" when the new server is ready, "restart manager"
// when the new manager answers.
//
// If the manager does not answer although the instance lives, "status" says what the lock
// files tell, and "stop" sends TERM to the holder of cop.lock: it is the one signal sent here,
// through a pidfd, to the process that the kernel names as the holder.
package ctl
