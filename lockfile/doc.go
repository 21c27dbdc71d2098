// Package lockfile makes "at most one of these processes" true, and answers "which one is it?".
//
// The idea: the kernel's lock, not the PID in the file, says whether the holder lives, and the kernel, not the
// file, says who it is. The text is there for people and for tools that expect a PID file:
//
//	4711\n                                          PID, decimal
//	8833021 2f1c9a0e-….\n                           start time of that process (clock ticks since boot, field 22
//	                                                of proc_pid_stat(5)), boot id; "0" and "-" where unknown
//
// # Two locks on one file
//
// Linux has three kinds of file lock, and none of them does the whole job:
//
//   - flock(2) belongs to the open file description. It cannot be tested without taking it, so a watchdog that looks
//     makes a daemon that starts at that instant believe it is not alone; and it cannot say who holds it.
//   - A POSIX lock (fcntl F_SETLK) belongs to the process, can be tested, and F_GETLK names its holder. But it is
//     dropped when the process closes any descriptor of that file, also one opened by a library that only wanted to read it.
//   - An open file description lock (F_OFD_SETLK, see fcntl(2)) can be tested, and no stray close drops it. But the
//     kernel answers -1 when asked who holds it.
//
// So Acquire takes two locks on two bytes of the same file (locks of both kinds conflict, hence not the same byte):
//
//	byte 1   OFD lock     says WHETHER the file is held; only this one decides
//	byte 0   POSIX lock   says WHO holds it; [Lock.Check] takes it again should a stray close have dropped it
//
// Both bytes may lie behind the end of the file. A program that tests the whole file with F_GETLK, as the tools of
// the original did, sees it held too.
//
// Testing ([Holder]) opens the file for reading and asks with F_OFD_GETLK and F_GETLK: there is no instant in which
// the lock is taken. A process that asks about a file it holds itself is answered from a table of what this process
// holds, by device and inode, because opening and closing the file would drop its own POSIX lock.
//
// # What happens to the locks
//
//   - fork(2): a child has no part in the POSIX lock, but shares the OFD lock until it closes the descriptor.
//     The descriptor is close-on-exec, so this lasts from fork to exec. If the holder dies in between, the
//     lock is free some microseconds later than the holder; a caller of Acquire tries again.
//   - execve(2) of the holder: both are lost, because the descriptor is close-on-exec.
//   - clone(CLONE_FILES): a process that shares the holder's descriptor table keeps BOTH locks after the holder's death, for
//     both belong, in the end, to that table, and the kernel goes on naming the dead holder's PID. Whoever
//     shares its table this way must close the descriptor in good time, and whoever must know whether the holder
//     lives opens a pidfd for [Owner].PID and compares [Owner].StartTime: held means "not free", not "alive".
//   - death of the holder: both are released when its descriptors are closed, which for a process with a large address
//     space is up to tenths of a second after the signal.
//   - PID namespaces: the kernel translates the holder's PID into the asking process's namespace, and answers
//     0 if it is not visible there. The PID in the text is the one the holder sees. Owner keeps them apart.
//   - Network file systems: OFD and POSIX locks become locks of the server or are local to the host, depending
//     on the mount. Put lock files on a local file system.
//
// # Life cycle
//
// Acquire never waits. A Lock is held until Release or the end of the process; it has no finalizer, so dropping
// the last reference does not drop the lock. The file is never unlinked: unlinking would let two holders exist, one of
// the old inode and one of the new. When somebody else unlinks or replaces it, Acquire notices before it returns, and
// Check notices afterwards.
//
// /proc is used for start time and boot id only. Where it is not mounted these are unknown, and the rest works.
//
// # What it is not
//
// It signals nobody: compose it with package proc, which opens a pidfd for the PID, verifies it and signals that. It
// does not change the mode or the owner of an existing file, and it is no protection against a process that may
// write to the directory and means harm.
package lockfile
