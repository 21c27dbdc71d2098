package session

import (
	"testing"

	"trafficd/roles/server/origin"
	"trafficd/roles/server/transaction"
)

// What of a run is sent follows from the counters. So a note that is made in the midst of it, when the
// upload that goes on beside the reply needs a page, says what the one at its beginning said.
func TestANoteMayBeMadeInTheMidstOfAReply(t *testing.T) {
	for name, w := range map[string]*work{
		"length":       {from: 10, off: 10, end: 110},
		"until close":  {from: 10, off: 10, end: -1, untilClose: true},
		"chunk":        {from: 10, off: 10, end: 110, tail: len(crlf), chunked: true},
		"end of chunk": {from: 10, off: 100, end: 110, tail: len(crlf), chunked: true},
		"last chunk":   {from: 10, off: 10, end: 10, chunked: true, lastSent: true},
	} {
		t.Run(name, func(t *testing.T) {
			w.rendered, w.outHi, w.outTx = true, 20, 1000
			w.reply = &transaction.Reply{Status: 200, Body: &turning{nil, origin.BodyWait}}
			s := &Session{phase: phaseAnswering, work: w, tx: 1000}
			var before, after record
			w.describe(s, &before)
			s.consume(w.outHi)
			for range 11 {
				if w.off != w.end || w.tail > 0 {
					s.consume(1)
				}
			}
			w.describe(s, &after)
			if before != after {
				t.Errorf("noted at its beginning: %+v\nnoted later: %+v", before, after)
			}
		})
	}
}
