// Package harness holds the actors of the end-to-end stories: a real trafficd,
// a scripted origin, a client that decides about every byte, and a prober that
// opens a new connection for each request.
//
// The idea is varnishtest's: a story says what the origin does, what the client
// sees and what the counters and the log say afterwards. Everything is black
// box: the binary is built from the module root and talked to only by its flags,
// environment, signals, sockets, lock files and log.
//
//	o := harness.NewOrigin(t, harness.Reply(200, "v1", "Cache-Control: max-age=60"))
//	p := harness.Start(t, harness.Map("/", o))
//	p.Client().Get("/a").Expect(200, "v1")
//	old := p.Kill(harness.Server)
//	p.WaitReplaced(harness.Server, old.PID)
//	p.Client().Get("/a").Expect(200, "v1").Has("Age")
//	o.ExpectCount("/a", 1)
//
// Rules the actors keep, so that a story need not:
//
//   - Nothing sleeps to let something happen. A story waits for a log line, for a
//     request to arrive, for a channel; only for what the kernel or another process
//     alone can show (a lock file's text, a process's state) there is WaitFor, which
//     polls with a deadline far above what is expected.
//   - Signals go through a pidfd opened after the identity was checked: the lock
//     names the PID, the executable is the one under test, the role is in comm.
//   - When the story ends its instance is told to stop with TERM, must exit 0 where
//     that can be seen, and no process of its run root may be left.
//   - A race report or a panic in any process of the instance fails the story,
//     whatever else it checked.
//
// What it is not: a load generator, and a model of HTTP. The response parser is
// strict on purpose and knows only what a correct proxy may send.
package harness
