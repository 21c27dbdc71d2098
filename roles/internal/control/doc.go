// Package control is the language between an operator and an instance: HTTP/1.1 with
// JSON bodies on the manager's Unix socket (control.sock), its types, and its client.
//
//	GET  /v1/status           Status
//	GET  /v1/stats            stats.Snapshot; ?match=PATTERN (path.Match) picks metrics
//	GET  /v1/config           Configuration: what is published
//	POST /v1/config/check     Verdict: what a reload would do
//	POST /v1/config/reload    Verdict
//	POST /v1/restart          Restart → Restarted, when it has happened
//	POST /v1/drain            Drain → {}
//	POST /v1/stop             Stop → {}, when it is under way
//	POST /v1/log/reopen       {}, when every process has done so
//	GET  /v1/crashes          Crashes: the records of deaths
//	GET  /v1/crashes/ID       crash.Record; ID may be its beginning, or last
//	POST /v1/upgrade          Upgrade → UpgradeReport, when it is under way; its end is in Status
//	GET  /v1/cache            CacheStats
//	GET  /v1/cache/lookup     CacheStored; ?url=URL
//	POST /v1/cache/purge      CachePurge → CachePurged, when it is gone
//	GET  /synthetic.txt       the heartbeat page
//
// # Rules
//
// The version is in the path: within v1 fields are added and never removed or changed
// in meaning. What is not a success has a status of 400 or above and the body
// {"error": Error}, whose Exit is what the command that asked should exit with. A
// request body is at most MaxBody bytes and may not contain fields that are not known: a
// misspelt "now" must not become a slow stop. An answer may contain more fields than
// the client knows.
//
// The socket is for the user of the instance and for root; everybody else is
// disconnected without an answer.
//
//	c := control.Dial(root.ControlSocket())
//	status, err := c.Status(ctx) // errors.Is(err, control.ErrNotRunning)
//
// # What it is not
//
// It is not how the processes talk among themselves: that is package link. It does
// not serve; the manager does.
package control
