// Package config is everything that can be set about an instance, in one table.
//
// The table (table.go) has a row for each setting: name, type, unit, default, limits, whether it can be changed without
// a new process, and one line of help. Reading YAML, the environment, the command line, `config describe`,
// Diff and the stored last good configuration are all walks over that table, so that none of them can know a setting
// that the others do not.
//
// # Where a value comes from
//
//	default  <  file (trafficd.yaml)  <  environment (TRAFFICD_QUEUE_LIMIT)  <  flag (--threads)
//
// Lists are replaced, not joined: a --listen on the command line is the whole list. Each value remembers its Source.
//
// # Invariants
//
//   - Load returns a Config in which every value is inside its limits and the values agree with each other, or an
//     *Error that lists every problem found, with its position. There is nothing in between.
//   - An unknown key is never accepted, wherever it stands.
//   - A Config is immutable from the moment Load returns it; a reload makes another one.
//   - The bytes of a file are foreign: they are bounded (8 MiB), must be UTF-8, and never cause a panic.
//
// # Life cycle
//
// The manager calls Load, gives the result its Generation (WithGeneration), stores it (SaveLastGood) and publishes it to
// the server as JSON, which reads it with Decode. On reload it calls Load again, and Diff says what changed and what
// cannot change in a running process. When Load fails at a restart, LoadLastGood gives what worked before.
//
//	c, err := config.Load(config.Sources{Flags: flags, Env: os.Environ()})
//	if err != nil {
//		fmt.Fprintln(os.Stderr, err) // trafficd.yaml:12:5: unknown key "orgin" (did you mean "origin"?)
//		os.Exit(int(exitcode.Of(err)))
//	}
//
// It does not watch files, does not resolve names and does not know who uses a value: each subsystem is given a small
// struct of its own settings by its role.
package config
