// Package remap decides where a request goes: it holds the remap rules and finds
// the one that applies.
//
// A map sends what begins with its prefix, `/path` or `http://host[:port]/path`,
// to an origin, `http://host[:port][/path]`. As in the original, the origin's path
// takes the place of the prefix: with `/shop=http://10.0.0.1/v2` a request for /shop/a
// asks the origin for /v2/a. A prefix ends at a segment: /shop matches /shop
// and /shop/a, not /shopping. A redirect answers with its target in the same way, so that path and
// query are kept. A reverse map is about responses: it says what stands there in place of what an origin says of
// where things are. The host of a regex rule is an expression (RE2), of the whole
// host and without regard to case; it may have another of the whole path. What
// their groups match stands for $1 to $9 in its target.
//
// Precedence:
//
//	rules with a host and port   http://h:81/  \
//	rules with a host            http://h/      > within each the longest prefix; for one prefix
//	rules with a regex host, in their order    /  first the regexes of the path, in their order
//	rules without a host                      /
//
// It is the original's, but for two things. There a map hides every redirect
// below it, and the order of the file decides between prefixes; here the rule that says more wins, whatever it
// does. And there an expression need match only a part of the host.
//
// A look-up costs a hash for each segment of the path that could still match,
// and not a scan of the rules. Expressions of hosts are found by the labels that they end with, so
// only those for the request's own domain are tried; those that end with no whole label are tried each.
//
// Before rules are looked up a path is brought into the form in which it would
// mean the same to an origin (RFC 3986 §6.2.2): /a/../b is a request for /b.
//
// A Table is immutable once made: a reload makes another and swaps it in, and
// what began under the old one ends under it. The package knows nothing of
// messages or connections.
package remap
