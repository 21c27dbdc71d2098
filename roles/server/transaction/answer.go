package transaction

import (
	"errors"
	"slices"

	"trafficd/roles/internal/stats"
	"trafficd/roles/server/buffer"
	"trafficd/roles/server/cache"
	"trafficd/roles/server/custody"
	"trafficd/roles/server/freshness"
	"trafficd/roles/server/header"
	"trafficd/roles/server/http1"
	"trafficd/roles/server/origin"
	"trafficd/roles/server/remap"
)

// hit answers from the cache with t.obj.
func (t *Transaction) hit() {
	t.env.Stats.Inc(stats.CacheHits)
	t.found()
	t.serveStored(t.obj.Meta(), t.obj.Head())
}

// serveStored answers with the body of t.obj under a head that is usually its
// own.
func (t *Transaction) serveStored(meta *cache.Meta, lines []byte) {
	t.reply = Reply{
		Status: int(meta.Status),
		Lines:  lines,
		Age:    freshness.AgeSeconds(meta, t.env.Loop.Wall()),
		Length: t.obj.BodyLen(),
	}
	if meta.Flags&cache.HeadOnly != 0 {
		t.reply.Length = -1
	} else if t.req.Method == http1.GET {
		t.reply.Body = (*storedBody)(&t.obj)
	}
	t.lives(meta)
	t.narrow(meta, lines)
	t.give()
}

// storedBody is a cached object as a Body.
type storedBody cache.Object

// Bytes implements Body.
func (b *storedBody) Bytes(off int64) ([]byte, origin.BodyState) {
	return (*cache.Object)(b).Fragment(off), origin.BodyEnd
}

// Release implements Body: the object is pinned as a whole.
func (b *storedBody) Release(int64) {}

// give hands the reply to the session. What other lines it has of its own lie in t.extra, unless it is local.
func (t *Transaction) give() {
	t.reverse()
	if t.settings != nil && t.settings.Status != nil {
		extra := t.reply.Extra
		switch {
		case extra == nil:
			extra = t.extra[:0]
		case t.reply.Local:
			extra = slices.Clip(extra) // everybody's
		}
		t.reply.Extra = t.appendStatus(extra)
	}
	t.ready = true
	t.on(evAnswer)
}

// narrow turns a full response into what the client's own conditions ask for:
// 304, or a part (RFC 9110 §13, §14).
func (t *Transaction) narrow(meta *cache.Meta, lines []byte) {
	if freshness.NotModified(t.req, t.head, meta, lines) {
		t.lines = freshness.AppendNotModified(t.lines[:0], lines)
		t.reply.Status, t.reply.Lines = 304, t.lines
		t.reply.Body, t.reply.Length = nil, -1
		return
	}
	if t.req.Method == http1.GET && t.reply.Status == 200 && (t.req.Has(header.Range) || meta.RangeTotal != 0) && t.reply.Length >= 0 {
		t.cutRange(meta, lines)
	}
}

// fail answers with an error of our own.
func (t *Transaction) fail(status int, text string) {
	t.failWith(status, text)
	t.give()
}

func (t *Transaction) failWith(status int, text string) {
	t.text = header.AppendUint(t.text[:0], uint64(status))
	t.text = append(t.text, ' ')
	t.text = append(t.text, http1.StatusText(status)...)
	t.text = append(t.text, ": "...)
	t.text = append(t.text, text...)
	t.text = append(t.text, '\n')
	t.local = Memory(t.text)
	t.reply = Reply{
		Status: status,
		Lines:  errorLines,
		Age:    -1,
		Length: int64(len(t.text)),
		Local:  true,
	}
	if t.req == nil || t.req.Method != http1.HEAD {
		t.reply.Body = &t.local
	}
	if status == 503 {
		t.reply.Extra = retryLine
	}
	if status == 405 {
		t.reply.Extra = allowLine
	}
	// What follows a CONNECT may be meant for the tunnel.
	t.reply.Close = t.req != nil && t.req.Method == http1.CONNECT
}

var (
	errorLines = []byte("Server: trafficd\r\nContent-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n")
	retryLine  = []byte("Retry-After: 1\r\n")
	serverLine = []byte("Server: trafficd\r\n")
	allowLine  = []byte("Allow: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH\r\n")
)

// answerFrom answers with what a fetch brings.
func (t *Transaction) answerFrom(f *fetch) {
	h := &f.head // immutable by now
	t.reply = Reply{Status: h.status, Lines: h.lines, Age: h.age, Length: h.length}
	switch {
	case t.req.Method == http1.HEAD || h.status == 304 || h.status == 204:
	case h.noBody:
		t.reply.Length = 0
	default:
		t.reply.Body = &t.place
	}
	if t.leading && h.own != nil {
		t.reply.Lines = h.own
	}
	if h.shared {
		t.fills = true
		t.lives(&h.meta)
	}
	if h.shared && t.req.Method != http1.POST {
		t.narrow(&h.meta, h.lines)
	}
	t.give()
}

// OriginHead implements origin.Handler.
func (f *fetch) OriginHead(r *http1.Response, head []byte, framing http1.Framing) origin.Sink {
	if f.resuming {
		return f.resumed(r, head)
	}
	if f.progress != pending {
		// It was reported to a server that died before the connection could note that.
		return f.OriginResumed(0, 0)
	}
	if f.passOver(r.Status) {
		return nil
	}
	t := f.lead // there is one: a fetch without a head is not left by its leader
	if freshness.Invalidates(f.x.Method, r.Status) && f.env.Store != nil {
		f.invalidate(t, r, head)
	}
	x := &f.env.judging
	*x = freshness.Exchange{
		Request: t.req, RequestHead: t.head, Response: r, ResponseHead: head,
		RequestTime: f.started, ResponseTime: f.loop.Wall(), Born: f.born, Rules: t.rules(),
	}
	if f.hushes(r.Status) {
		f.hush(r.Status)
		return nil
	}
	f.headSeen(x)
	if r.Status == 304 && f.validates() {
		t.fwdStatus = uint16(r.Status)
		f.revalidated(x)
		return nil
	}
	if r.Status == 304 && f.store {
		// Our own request had no conditions, whatever the client's had.
		f.refuse("the origin answered 304 (Not Modified) to a request without conditions")
		return nil
	}
	if framing == http1.Tunnel && !t.mayBecome(r, head) {
		f.refuse("the origin switched to a protocol that it was not asked for")
		return nil
	}
	part, ok := f.takePart(r, head)
	if !ok {
		return nil
	}
	h := responseHead{status: r.Status, length: r.ContentLength, age: -1, noBody: framing == http1.None}
	if framing == http1.ChunkedBody || framing == http1.UntilClose || r.Status == 204 {
		h.length = -1
	}
	if n := part.len(); n > 0 {
		h.length = n // stored or not, and however it is framed: a body of another length is cut, or breaks off
	}
	if v := r.Value(head, header.Age); v != nil {
		if age, ok := header.ParseDelta(v); ok {
			h.age = age
		}
	}
	switch storing := (f.store || f.representative(x)) && f.storeBody(x, &h, part); {
	case storing:
	case f.asks == askRest && part.size > 0:
		f.askAnew()
		return nil
	default:
		h.own = nil
		if h.lines = f.keepLines(f.env.appendLines(f.env.scratch[:0], r, head)); h.lines == nil {
			f.refuse("the origin's response head is too large")
			return nil
		}
	}
	f.mu.Lock()
	f.head = h
	f.progress = open
	f.mu.Unlock()
	f.note(custody.StepOpened)
	f.moved = true
	return f
}

// storeBody begins to write the response into the cache, if it may.
func (f *fetch) storeBody(x *freshness.Exchange, h *responseHead, part enclosure) bool {
	switch {
	case part.size > 0:
		return f.beginPart(x, h, part)
	case x.Response.Status == 206: // several ranges, or of a size that is not known
		if x.Response.Has(header.ContentRange) {
			f.landUncacheable()
		} else {
			f.land() // the request has asked for several
		}
		return false
	}
	return f.beginStoring(x, h)
}

// keepLines puts the field lines of a response that is not stored where they outlive this
// process; nil if there is no room.
func (f *fetch) keepLines(lines []byte) []byte {
	f.env.scratch = lines
	if len(lines) > maxLines {
		return nil
	}
	if f.linesRef == 0 {
		ref, ok := f.env.Arena.Get(len(lines))
		if !ok {
			return nil
		}
		f.linesRef = ref
	}
	page := f.env.Arena.Bytes(f.linesRef)
	return page[:copy(page, lines)]
}

// invalidate drops what an unsafe request has made wrong (RFC 9111 §4.4). What it brings itself is the newest there is.
func (f *fetch) invalidate(t *Transaction, r *http1.Response, head []byte) {
	if !f.outrun(t) {
		defer f.bear()
	}
	host := t.req.Host.In(t.head)
	t.invalidate(t.path, t.query())
	for _, id := range []header.ID{header.Location, header.ContentLocation} {
		if v := r.Value(head, id); v != nil {
			v = t.reverseURL(v)
			if path, query, ok := freshness.InvalidatedTarget(v, schemeHTTP, host); ok {
				if query != nil {
					query = append([]byte("?"), query...)
				}
				t.invalidate(remap.AppendNormal(nil, path), query)
			}
		}
	}
}

// invalidate drops what is stored of a resource of the request's host: what a client is served that is reached as this
// one is, and who says nothing of its way, at once; what is there for others, soon. What is on its way, to whomever, was
// asked for before, and is not stored.
func (t *Transaction) invalidate(path, query []byte) {
	s, host := t.env.Store, t.req.Host.In(t.head)
	uri := cache.AppendURI(nil, schemeHTTP, host, path, t.keyQuery(query))
	s.Outdate(uri)
	s.Remove(t.keyOf(path, query))
	if t.req.HasAny(&header.Reached) {
		s.Remove(s.KeyOf(schemeHTTP, host, path, t.keyQuery(query)))
	}
	if s.KeysNoted() {
		s.RemoveOthers(uri, t.env.Loop.Wall())
	}
}

// maxLines bounds the field lines of a response, so that a session's page holds
// them and what it adds.
const maxLines = buffer.Large - 2048

// beginStoring begins to write the response into the cache, if the rules allow
// it and there is room, and reports whether it did. Otherwise the response is
// passed on, and nobody waits for this key for a while.
func (f *fetch) beginStoring(x *freshness.Exchange, h *responseHead) bool {
	meta, why := x.Judge()
	vary, ok := f.appendVary(x)
	f.env.block = f.lead.appendURI(vary)
	f.lead.noteKeys()
	uri := f.env.block[len(vary):]
	length := h.length
	if h.noBody {
		length = 0
	}
	if fits := f.lead.mayStore(length); why != freshness.Storable || !ok || !fits {
		f.env.Stats.Inc(stats.CacheUncacheable)
		f.landUnstored(fits, why, h.status) // not ok: what it varies by is too long in this request
		if f.stale.Valid() && outdated(h.status) {
			f.env.Store.Remove(f.wholeKey())
		}
		return false
	}
	if x.LeavesOut() {
		if h.own = f.keepLines(f.env.appendLines(f.env.scratch[:0], x.Response, x.ResponseHead)); h.own == nil {
			return false
		}
	}
	lines := x.AppendHead(f.env.scratch[:0], &meta)
	f.env.scratch = lines
	if len(lines) > maxLines {
		return false
	}
	w, err := f.env.Cache.Create(f.wholeKey(), &meta, uri, vary, lines, length)
	if err != nil {
		f.env.Stats.Inc(stats.CacheStoreFailures)
		f.landUncacheable()
		return false
	}
	f.most = f.lead.match.Policy().MaxObject
	h.meta, h.lines, h.vary, h.shared = meta, w.Head(), w.Vary(), true
	f.mu.Lock()
	f.w, f.writing = w, true
	f.mu.Unlock()
	return true
}

// appendVary makes the vary block of the response. One that takes the place of a stored one which the same
// requests select has that one's block, so that it replaces it.
func (f *fetch) appendVary(x *freshness.Exchange) ([]byte, bool) {
	vary, ok := x.AppendVary(f.env.block[:0])
	if ok && f.stale.Valid() && freshness.SameAlternate(vary, f.stale.Vary()) {
		vary = append(vary[:0], f.stale.Vary()...)
	}
	return vary, ok
}

// validates reports whether the request carries conditions of ours.
func (f *fetch) validates() bool {
	return f.stale.Valid() && f.stale.Meta().Flags&cache.HasValidator != 0
}

// revalidated deals with a 304: the stored response is good, with a new head
// (RFC 9111 §4.3.4). Whoever follows looks into the cache again and finds it; so does the leader, unless it is good for
// him alone.
func (f *fetch) revalidated(x *freshness.Exchange) {
	meta, lines, why, err := f.env.update.Apply(x, f.stale.Meta(), f.stale.Head())
	if err != nil || len(lines) > maxLines {
		f.whole = true
		return
	}
	f.env.Stats.Inc(stats.CacheRevalidated)
	meta.RangeFrom, meta.RangeTotal = f.stale.Meta().RangeFrom, f.stale.Meta().RangeTotal
	kept := false
	if why == freshness.Storable {
		o, err := f.env.Cache.Update(&f.stale, &meta, lines)
		o.Release()
		if err == nil {
			f.env.Flights.Forget(f.key)
		}
		kept = err == nil || errors.Is(err, cache.ErrSuperseded)
		if errors.Is(err, cache.ErrPurged) || kept && !freshness.SingleUse(&meta) {
			return
		}
	}
	// It answers this request and no other. What is stored stays, if that is the request's doing: it is stale, and good.
	if !kept && !why.OfRequest() {
		f.env.Store.Remove(f.wholeKey())
	}
	t := f.lead
	t.obj, f.stale = f.stale, cache.Object{}
	t.lines = append(t.lines[:0], lines...)
	t.validated = meta
	t.serve = true
}

// appendLines writes the end-to-end fields of a response as field lines.
func (e *Env) appendLines(b []byte, r *http1.Response, head []byte) []byte {
	for i := range r.Fields {
		fld := &r.Fields[i]
		if fld.ID == header.ContentLength || fld.ID == header.Age || r.HopByHop(head, fld) {
			continue
		}
		b = http1.AppendParsed(b, head, fld)
	}
	switch {
	case r.Status == 101:
		b = append(b, "Connection: Upgrade\r\n"...)
		b = http1.AppendFieldID(b, header.Upgrade, r.Value(head, header.Upgrade))
	case r.Status >= 200 && !r.Has(header.Date):
		b = append(b, e.DateLine()...) // RFC 9110 §6.6.1
	}
	return b
}
