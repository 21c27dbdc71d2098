package witness

import "context"

// Kind is a kind of client.
type Kind uint8

// The kinds, in the order of the reports.
const (
	KeepAlive     Kind = iota // small hot objects over one connection
	NewConn                   // the same, each over a connection of its own
	Download                  // large cached objects, taken slowly
	Plain                     // uncacheable, with Content-Length, sent slowly by the origin; some after 103 Early Hints
	FromChunked               // uncacheable, chunked by the origin
	FromClose                 // uncacheable, ended by the origin's close
	Range                     // parts of cached objects
	Pipeline                  // 2 to 40 requests at once
	Dribble                   // heads in writes of 1 to 8 bytes
	Upload                    // POST with Content-Length
	UploadChunked             // POST in chunks
	Expect                    // POST that waits for 100 Continue, which half of them do not get from the origin
	Early                     // POST that is answered before its body
	Tunnel                    // Upgrade, then bytes in both directions at once
	Idle                      // a connection with a request every few seconds, watched all the time
	ProbeNew                  // a request every millisecond, each on a new connection
	ProbeKept                 // the same on one connection
	Conditional               // If-None-Match, revalidation and HEAD
	Collapsed                 // all of them together ask for one slow object after the other
	Connect                   // the same as Tunnel, through a tunnel by CONNECT to the origin
	numKinds

	// OriginSide is the kind of the failures that no client sees: what the origin got
	// twice, or wrong.
	OriginSide Kind = numKinds
)

var names = [...]string{
	KeepAlive: "keep-alive", NewConn: "new connections", Download: "downloads", Plain: "uncacheable",
	FromChunked: "chunked", FromClose: "until close", Range: "ranges", Pipeline: "pipelined", Dribble: "dribbled heads",
	Upload: "uploads", UploadChunked: "chunked uploads", Expect: "100-continue", Early: "early answers",
	Tunnel: "tunnels", Idle: "idle", ProbeNew: "probe, new", ProbeKept: "probe, kept", Conditional: "conditional",
	Collapsed: "collapsed", Connect: "CONNECT", OriginSide: "origin",
}

func (k Kind) String() string { return names[k] }

// Kinds are all kinds of clients.
func Kinds() []Kind {
	all := make([]Kind, numKinds)
	for i := range all {
		all[i] = Kind(i)
	}
	return all
}

// lives is what each kind does from begin to end.
var lives = [numKinds]func(*Client, context.Context){
	KeepAlive:     (*Client).runKeepAlive,
	NewConn:       (*Client).runNewConn,
	Download:      (*Client).runDownload,
	Plain:         func(k *Client, ctx context.Context) { k.runStream(ctx, Length) },
	FromChunked:   func(k *Client, ctx context.Context) { k.runStream(ctx, Chunked) },
	FromClose:     func(k *Client, ctx context.Context) { k.runStream(ctx, UntilClose) },
	Range:         (*Client).runRange,
	Pipeline:      (*Client).runPipeline,
	Dribble:       (*Client).runDribble,
	Upload:        (*Client).runUpload,
	UploadChunked: (*Client).runUploadChunked,
	Expect:        (*Client).runExpect,
	Early:         (*Client).runEarly,
	Tunnel:        (*Client).runTunnel,
	Idle:          (*Client).runIdle,
	ProbeNew:      func(k *Client, ctx context.Context) { k.runProbe(ctx, closing) },
	ProbeKept:     func(k *Client, ctx context.Context) { k.runProbe(ctx) },
	Conditional:   (*Client).runConditional,
	Collapsed:     (*Client).runCollapsed,
	Connect:       (*Client).runConnect,
}
