// Package logformat is the language of access_log.custom: the format strings of
// Apache's mod_log_config, as far as they make sense in a cache.
//
//	%h "%r" %>s %b "%{User-Agent}i" %{cache}x %D
//
// It only reads the language. What a field is in a transaction is the affair of
// the access log itself; here it is a number, so that the configuration can be
// checked where it is read, by processes that serve nobody.
package logformat
