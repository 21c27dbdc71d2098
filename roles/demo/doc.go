// Package demo is "trafficd demo": what trafficd promises, shown on an instance
// of its own.
//
// "demo crash" starts an instance in a temporary run root, with an origin behind
// it and a crew of clients before it that compare every byte (package witness),
// and then kills the instance's processes at random, with SIGKILL. At the end it
// says what the clients saw. It must be honest, so it has no part in judging: the
// clients count whatever is not as it must be, nothing is tried again, and the
// exit code is 0 only if there was no failure of any kind.
//
// # Whom it kills
//
// Nobody but processes of its own instance. cop, manager and server are those
// whom the kernel names as holders of the locks in the private run root; standby
// and keepers are found by the executable and the run root in their command line.
// Each is adopted by PID and start time (proc.Adopt), asked for once more with
// the pidfd open, and killed through the pidfd.
//
// # What the instance has that others have not
//
// Its restart budget is not limited, and there are no pauses before the next try:
// an instance that loses a process twice a second for no reason should be
// suspicious, this one knows why. Nothing else is set.
//
// # Life cycle
//
//	start ─▶ warm the cache ─▶ kill and watch ─▶ clients finish ─▶ stop, look for leftovers ─▶ table
//
// The process becomes a subreaper, so that whoever loses its parent stays below
// it. Interrupted once it goes on to the end of the table; interrupted twice it
// kills what it has started and leaves.
//
// It is no benchmark: the load is small enough for one core.
package demo
