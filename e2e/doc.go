// Package e2e holds the end-to-end stories: the real binary, real processes, real
// sockets on 127.0.0.1.
//
// A story reads: what the origin does, what the client sees, what the log, the
// lock files and the counters say. The actors are in package harness. Files are
// by subject, and each story names in its comment what it proves:
//
//	boot_test.go       starting, being ready, stopping, refusing to start
//	scenes_test.go     the two scenes of the original description, and adoption
//	heal_test.go       kills and stops of each role under traffic
//	foreign_test.go    strangers and bad lock files
//	proxy_test.go      HTTP/1.1 on both sides
//	cache_test.go      stored answers
//	malformed_test.go  bad input
//	queue_test.go      no server to be had
//	ctl_test.go        the operator's commands and the autoconfiguration port
//	crash_test.go      what is on record of deaths
//	container_test.go  PID 1 with nothing around it
//	custody_test.go    a thousand kills at random, and nobody notices
//	custody_steps_test.go   (build tag killpoints) a death at every step of the journal and of adoption
//	custody_net_test.go     the same while packets are lost, without rights, and of a server that hangs
//	custody_bounds_test.go  ten thousand idle connections, and a large cache
//
// To write one: no sleeping to let something happen; wait for an event or poll
// with harness.WaitFor what only the kernel shows. Wait for the end of what must
// end by itself, and never assert how long it took: a window that matters is set
// short by a setting, and the story asserts that it ended or did not.
//
// Every instance has a run root and ports of its own, so stories that mostly wait
// run in parallel; those that measure memory or load do not.
package e2e
