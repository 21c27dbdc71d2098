// Package purge is the language in which purges are asked for: which response carries which tags, and what a
// PURGE request means. It decides; the store does (cache.Store.Purge).
//
// A response is tagged by the field Surrogate-Key, whose tags are separated by blanks, and by Cache-Tag, whose tags are
// separated by commas. Both may stand in several lines. Tags are compared byte for byte.
//
// A request with the method PURGE means
//
//	its URL, with all alternates,
//	everything below:  what begins with its URL, if that ends in "*", which is cut off, or with Purge-Prefix: 1
//	by tag:            with Surrogate-Key or Cache-Tag, whatever is tagged with any of them; the URL means nothing then
//
// and Soft-Purge: 1 (or Fastly-Soft-Purge: 1) leaves it in the cache, stale. Purge-Prefix: 0 says that the "*" is one.
//
// Example:
//
//	r, err := purge.Parse(&req.FieldSet, head, target)
//	if err != nil { … 400 … }
package purge
