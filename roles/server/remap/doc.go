// Package remap decides which origin a request goes to: it holds the remap
// rules and finds the one that applies.
//
// A rule maps a prefix, `/path` or `http://host[:port]/path`, to an origin,
// `http://host[:port][/path]`, or to a group of servers, `group:NAME[/path]`. As in the original, the origin's path takes the
// place of the prefix: with `/shop=http://10.0.0.1/v2` a request for /shop/a
// asks the origin for /v2/a. A prefix ends at a segment: /shop matches /shop
// and /shop/a, not /shopping.
//
// Precedence: rules with host and port, then rules with a host, then rules
// without; within each the longest prefix. A lookup costs a hash for each
// segment of the path that could still match, not a scan of the rules.
//
// A Table is immutable once made: a reload makes another and swaps it in, and
// what began under the old one ends under it. The package knows nothing of
// messages or connections.
package remap
