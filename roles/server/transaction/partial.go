package transaction

import (
	"bytes"
	"hash/maphash"
	"math"

	"trafficd/roles/internal/stats"
	"trafficd/roles/server/cache"
	"trafficd/roles/server/freshness"
	"trafficd/roles/server/header"
	"trafficd/roles/server/http1"
)

// Parts of representations (RFC 9111 §3.3, §3.4).
//
// A request for a range that is not stored is passed on as it is, so that a large object costs what was asked
// of it. What comes is stored as a part. A part answers what lies within it; what does not is asked for as
// far as it is missing, on the condition that the representation is still the same, and put together with the parts
// before and behind it. Once all of it is there, it is a stored response as any other. A response that breaks
// off, or that nobody wants any more, leaves a part behind.
//
// So the body of a fetch has three pieces, [front][what comes][back], of which the outer ones are stored
// objects. Offsets of what comes are counted from the first byte that comes.

// asking is which part of a representation a fetch asks for.
type asking uint8

const (
	askWhole asking = iota // no Range, or one that is passed on for a response that is not stored
	askAsIs                // what the client's Range says
	askRest                // what the pieces lack
)

// pieces are the stored parts that are put together with what a fetch brings.
type pieces struct {
	front, back cache.Object // valid if there is one
	rest        span         // what lies between them, or beside the only one
	size        int64        // of the representation
}

func (p *pieces) valid() bool { return p.front.Valid() || p.back.Valid() }

func (p *pieces) release() {
	p.front.Release()
	p.back.Release()
}

// ahead is how many bytes of the body lie before those that come.
func (p *pieces) ahead() int64 {
	if p.front.Valid() {
		return p.front.BodyLen()
	}
	return 0
}

func (p *pieces) behind() int64 {
	if p.back.Valid() {
		return p.back.BodyLen()
	}
	return 0
}

// known is a stored response of the representation.
func (p *pieces) known() *cache.Object {
	if p.front.Valid() {
		return &p.front
	}
	return &p.back
}

// consultParts looks at what is stored of a response that is not stored as a whole: a part that holds all
// that the request asks for becomes t.obj, others t.pieces.
func (t *Transaction) consultParts() {
	if t.req.Method != http1.GET || !t.settings.Partial {
		return
	}
	parts := t.env.Cache.AppendParts(t.env.parts[:0], t.key.Parts(), &t.sel)
	t.env.parts = parts
	if len(parts) == 0 {
		return
	}
	newest := 0
	for i := range parts {
		a, b := parts[i].Meta(), parts[newest].Meta()
		if a.Date > b.Date || a.Date == b.Date && a.ResponseTime > b.ResponseTime {
			newest = i
		}
	}
	t.choose(parts, &parts[newest])
	for i := range parts {
		parts[i].Release()
	}
}

// choose takes over what is of use of the parts. Those that are not of the same representation as the newest are not.
func (t *Transaction) choose(parts []cache.Object, newest *cache.Object) {
	meta := newest.Meta()
	size := meta.RangeTotal
	var buf [maxSpecs]span
	r, whole := t.wanted(buf[:0], meta, newest.Head(), size)
	if whole {
		r = append(buf[:0], span{0, size})
	}
	var front, back *cache.Object
	for i := range parts {
		o := &parts[i]
		if !related(o, newest) {
			continue
		}
		s := place(o)
		if s.holdsAll(r) {
			take(&t.obj, o)
			return
		}
		if s.from <= r[0].from && s.to >= r[0].from && (front == nil || s.to > place(front).to) {
			front = o
		}
	}
	if len(r) != 1 {
		return
	}
	rest := r[0]
	if front != nil {
		rest.from = place(front).to
	}
	for i := range parts {
		o := &parts[i]
		s := place(o)
		if o != front && s.from > rest.from && s.from <= r[0].to && s.to >= r[0].to && (back == nil || s.from < place(back).from) && related(o, newest) {
			back = o
		}
	}
	t.usePieces(front, back, rest, newest)
}

// related reports whether a part is of the newest one's representation, for all that is known. If it is certain,
// they may be combined.
func related(o, newest *cache.Object) bool {
	a, b := o.Meta(), newest.Meta()
	return o == newest || a.RangeTotal == b.RangeTotal &&
		(freshness.Alike(a, o.Head(), b, newest.Head()) || !freshness.Strong(a, o.Head()) && !freshness.Strong(b, newest.Head()))
}

// usePieces decides whether the pieces are worth asking for the rest only.
func (t *Transaction) usePieces(front, back *cache.Object, rest span, newest *cache.Object) {
	if front == nil && back == nil || t.control.NoStore { // what comes could not be put together with them
		return
	}
	if !freshness.Strong(newest.Meta(), newest.Head()) {
		// Nothing may be combined with it. The rest of the whole is asked for nevertheless: an origin that
		// knows no ranges answers with all of it.
		if t.req.Has(header.Range) || front == nil || front.Meta().RangeFrom != 0 {
			return
		}
		back, rest.to = nil, newest.Meta().RangeTotal
	}
	if size := extent(front, back, rest); t.req.Has(header.Range) && (size > t.env.Store.MaxObject() || size>>13 > rest.len()) {
		return // it would be too large to be stored as one, or its table of fragments larger than what is new
	}
	t.pieces.size = newest.Meta().RangeTotal
	if back != nil {
		rest.to = place(back).from
		take(&t.pieces.back, back)
	}
	if front != nil {
		take(&t.pieces.front, front)
	}
	t.pieces.rest = rest
}

// extent is how much front, rest and back are together.
func extent(front, back *cache.Object, rest span) int64 {
	if front != nil {
		rest.from = place(front).from
	}
	if back != nil {
		rest.to = place(back).to
	}
	return rest.len()
}

// take moves an object to where it is released later.
func take(to, from *cache.Object) { *to, *from = *from, cache.Object{} }

// place is where a stored response lies in its representation.
func place(o *cache.Object) span {
	s, _ := spanOf(o.Meta(), o.BodyLen())
	return s
}

// plan says how the request is fetched.
func (t *Transaction) plan() plan {
	p := plan{store: true, collapse: t.looks <= maxLooks}
	ranged := t.req.Has(header.Range)
	switch {
	case t.req.Method == http1.HEAD:
		// What answers it is not what a GET would bring: it is not stored, and
		// nobody else can use it.
		return plan{}
	case t.pieces.valid():
		p.asks = askRest
	case ranged && (!t.settings.Partial || t.foreignUnit()):
		return plan{}
	case ranged && t.passable():
		p.asks = askAsIs
	}
	if t.obj.Valid() && freshness.SingleUse(t.obj.Meta()) {
		p.collapse = false
	}
	return p
}

// foreignUnit reports whether the Range may mean something to the origin that it does not mean here.
func (t *Transaction) foreignUnit() bool {
	unit, _, ok := bytes.Cut(t.req.Value(t.head, header.Range), equals)
	return ok && !t.req.Repeated(header.Range) && !header.EqualFold(unit, "bytes")
}

var equals = []byte("=")

// passable reports whether the Range is one that is passed on: well-formed, and not more than what would be
// served here. Any other is ignored, by the origin too: it gets no Range to be
// understood otherwise, or to be worn out by (RFC 9110 §17.15).
func (t *Transaction) passable() bool {
	if t.req.Repeated(header.Range) || t.req.Repeated(header.IfRange) {
		return false
	}
	v := t.req.Value(t.head, header.Range)
	var buf [maxSpecs]span
	r, ok := parseRanges(buf[:0], v, math.MaxInt64)
	if n := bytes.Count(v, comma); n > 0 {
		return ok && len(r) == n+1 && n < maxParts
	}
	return ok
}

// rangeSeed keys what requests for the same range are recognised by.
var rangeSeed = maphash.MakeSeed()

// rangeID is the same for requests that say the same of ranges. Never 0.
func (t *Transaction) rangeID() uint64 {
	var h maphash.Hash
	h.SetSeed(rangeSeed)
	h.Write(t.req.Value(t.head, header.Range))
	h.WriteByte('\n')
	h.Write(t.req.Value(t.head, header.IfRange))
	return h.Sum64() | 1
}

// appendRange appends the field lines by which f asks for less than the whole.
func (f *fetch) appendRange(b []byte, t *Transaction) []byte {
	switch {
	case f.resuming:
		return f.appendResume(b)
	case f.asks == askAsIs:
		b = http1.AppendFieldID(b, header.Range, t.req.Value(t.head, header.Range))
		if t.req.Has(header.IfRange) {
			b = http1.AppendFieldID(b, header.IfRange, t.req.Value(t.head, header.IfRange))
		}
	case f.asks == askRest:
		b = appendRangeLine(b, f.pieces.rest, f.pieces.size)
		o := f.pieces.known()
		b = freshness.AppendIfRange(b, o.Meta(), o.Head())
	}
	return b
}

func appendRangeLine(b []byte, r span, size int64) []byte {
	b = append(b, "Range: bytes="...)
	b = header.AppendUint(b, uint64(r.from))
	b = append(b, '-')
	if r.to < size {
		b = header.AppendUint(b, uint64(r.to-1))
	}
	return append(b, "\r\n"...)
}

// An enclosure is what a 206 encloses: bytes of a representation of size. size 0: it is not stored. No bytes: it is not one
// part, or none that is looked at.
type enclosure struct {
	span
	size int64
	// bent: its length is not what it says of itself. Only who asked gets it as it says.
	bent bool
}

// takePart looks at what a response says of ranges before anything else is done with it. False: it
// is of no use, and the fetch has been ended or begun anew.
func (f *fetch) takePart(r *http1.Response, head []byte) (p enclosure, ok bool) {
	if r.Status != 206 {
		if f.asks == askRest && r.Status == 416 {
			f.dropParts() // it has shrunk
			f.askAnew()
			return p, false
		}
		f.pieces.release()
		return p, true
	}
	t := f.lead
	if f.x.Method != http1.GET || !f.store && t.req.Has(header.Range) && t.foreignUnit() {
		return p, true
	}
	p, several, ok := f.enclosed(r, head)
	switch {
	case f.asks == askWhole && (f.store || !t.req.Has(header.Range)):
		f.refuse("the origin answered 206 (Partial Content) to a request without Range")
		return p, false
	case f.asks == askRest:
		if !ok || several || p.bent || !f.pieces.fits(p) || !f.continues(r, head) {
			f.dropParts()
			f.askAnew()
			return p, false
		}
		return p, true
	case !ok || several && bytes.IndexByte(t.req.Value(t.head, header.Range), ',') < 0:
		f.refuse("the origin's partial response is malformed")
		return p, false
	}
	return p, true
}

// enclosed reads what a 206 encloses. several: it is multipart/byteranges, which is passed on and not stored.
func (f *fetch) enclosed(r *http1.Response, head []byte) (p enclosure, several, ok bool) {
	if !r.Has(header.ContentRange) {
		const kind = "multipart/byteranges"
		v := r.Value(head, header.ContentType)
		several = len(v) >= len(kind) && header.EqualFold(v[:len(kind)], kind)
		return p, several, several
	}
	c, ok := freshness.ParseContentRange(r.Value(head, header.ContentRange))
	if !ok || r.Repeated(header.ContentRange) {
		return p, false, false
	}
	p.span = span{c.From, c.To}
	n := r.ContentLength
	switch {
	case n < 0 || n == p.len():
	case n == p.len()-1 && n > 0 && c.To == c.Total && !r.Has(header.ETag) && !r.Has(header.LastModified):
		// An origin that counts one byte too many, to the end. Who asked for it gets that as it is; for
		// others the representation ends where the bytes do. Nothing will ever be combined with this.
		p.to, c.Total, p.bent = p.to-1, c.Total-1, true
	default:
		return p, false, false
	}
	if c.Total >= 0 {
		p.size = c.Total
	}
	return p, false, true
}

// fits reports whether a part is what lies between the pieces.
func (p *pieces) fits(b enclosure) bool { return p.valid() && b.span == p.rest && b.size == p.size }

// continues reports whether the response is of the same representation as the pieces.
func (f *fetch) continues(r *http1.Response, head []byte) bool {
	o := f.pieces.known()
	x := freshness.Exchange{Response: r, ResponseHead: head, ResponseTime: f.loop.Wall()}
	return freshness.Continues(&x, o.Meta(), o.Head())
}

// refuse ends the fetch for a response that cannot be passed on.
func (f *fetch) refuse(text string) {
	f.finish(failed, reason{502, text})
}

// dropParts removes what is stored of the response in parts: it does not fit any more.
func (f *fetch) dropParts() { f.env.Store.RemoveParts(f.wholeKey()) }

// askAnew asks once more, as if nothing were stored.
func (f *fetch) askAnew() {
	f.x.Cancel()
	f.pieces.release()
	f.pieces = pieces{}
	f.asks = askWhole
	if f.ranged && f.lead.passable() {
		f.asks = askAsIs
	}
	f.send()
}

// wholeKey is the key of the response of which the fetch may bring a part.
func (f *fetch) wholeKey() cache.Key {
	if f.ranged {
		return f.key.Parts()
	}
	return f.key
}

// beginPart begins to write a part into the cache. False: it is not stored.
func (f *fetch) beginPart(x *freshness.Exchange, h *responseHead, p enclosure) bool {
	t := f.lead
	all := p.span
	var meta cache.Meta
	var lines, vary []byte
	var why freshness.Reason
	if f.asks == askRest {
		o := f.pieces.known()
		var err error
		if meta, lines, why, err = f.env.update.Apply(x, o.Meta(), o.Head()); err != nil {
			f.dropParts()
			return false
		}
		vary = append(f.env.block[:0], o.Vary()...)
		all = span{p.from - f.pieces.ahead(), p.to + f.pieces.behind()}
	} else {
		y := x.WholeOf()
		meta, why = y.Judge()
		if y.LeavesOut() && why == freshness.Storable {
			if h.own = f.keepLines(f.env.appendLines(f.env.scratch[:0], x.Response, x.ResponseHead)); h.own == nil {
				return false
			}
		}
		var ok bool
		if vary, ok = y.AppendVary(f.env.block[:0]); !ok && why == freshness.Storable {
			why = freshness.VaryAny
		}
		lines = y.AppendHead(f.env.scratch[:0], &meta)
		f.env.scratch = lines
	}
	f.env.block = t.appendURI(vary)
	t.noteKeys()
	uri := f.env.block[len(vary):]
	if abridged, fits := f.abridged(x), len(lines) <= maxLines && t.mayStore(all.len()); why != freshness.Storable || abridged || !fits {
		f.env.Stats.Inc(stats.CacheUncacheable)
		f.landUnstored(fits, why, x.Response.Status) // abridged: another request gets more
		if f.asks == askRest && !(fits && why.OfRequest()) {
			f.dropParts()
		}
		return false
	}
	key := f.wholeKey()
	if all.from != 0 || all.to != p.size {
		meta.RangeFrom, meta.RangeTotal = all.from, p.size
		key = key.Parts()
	}
	w, err := f.env.Cache.Create(key, &meta, uri, vary, lines, p.len())
	if err != nil {
		f.env.Stats.Inc(stats.CacheStoreFailures)
		f.landUncacheable()
		if f.asks == askRest {
			f.dropParts()
		}
		return false
	}
	*h = responseHead{status: 200, length: all.len(), age: h.age, meta: meta, lines: w.Head(), vary: w.Vary(), shared: true, bent: p.bent, own: h.own}
	f.mu.Lock()
	f.w, f.writing = w, true
	f.mu.Unlock()
	return true
}

// abridged reports whether fields may be missing that are the representation's: who asks with If-Range has them already,
// so an origin leaves them out (RFC 9110 §15.3.7). For others they would not be there.
func (f *fetch) abridged(x *freshness.Exchange) bool {
	return f.asks == askAsIs && x.Request.Has(header.IfRange) && !x.Response.Has(header.ContentType)
}

// nearEnough is how far ahead of what has come of a response the beginning of a range may lie for a request to wait for it
// there instead of asking for itself, in bytes.
const nearEnough = 1 << 20

// servesLocked reports whether what the fetch brings, or will most likely bring, answers t.
func (f *fetch) servesLocked(t *Transaction) bool {
	ranged := t.req.Method == http1.GET && t.req.Has(header.Range)
	h := &f.head
	switch {
	case f.progress == pending:
		return !f.ranged || f.rangeID == t.rangeID()
	case freshness.SingleUse(&h.meta):
		return false
	case !ranged:
		return h.meta.RangeTotal == 0
	case h.length < 0:
		return false
	case h.status != 200:
		return true
	}
	have, size := spanOf(&h.meta, h.length)
	var buf [maxSpecs]span
	r, whole := t.wanted(buf[:0], &h.meta, h.lines, size)
	if whole {
		return h.meta.RangeTotal == 0
	}
	soon := have.from + f.pieces.ahead() + nearEnough
	if f.w != nil {
		soon += f.w.Len()
	}
	for _, s := range r {
		if !have.holds(s) || s.from > soon {
			return false
		}
	}
	return true
}

// assemble puts what was fetched and the pieces around it together.
func (f *fetch) assemble() error {
	if f.w.Len() != f.w.Declared() {
		return cache.ErrIncomplete
	}
	key := f.wholeKey()
	if f.head.meta.RangeTotal != 0 {
		key = key.Parts()
	}
	if err := f.assembleAs(key, &f.head.meta, true); err != nil {
		return err
	}
	f.env.Stats.Inc(stats.CacheCombined)
	if f.pieces.back.Valid() {
		f.env.Store.Discard(&f.pieces.back)
	}
	return nil
}

func (f *fetch) assembleAs(key cache.Key, meta *cache.Meta, back bool) error {
	w := f.w.Reader()
	defer w.Release()
	var all [3]*cache.Object
	list := all[:0]
	if f.pieces.front.Valid() {
		list = append(list, &f.pieces.front)
	}
	list = append(list, &w)
	if back && f.pieces.back.Valid() {
		list = append(list, &f.pieces.back)
	}
	return f.env.Cache.Assemble(key, meta, f.w.URI(), f.head.vary, f.head.lines, list...)
}

// keepPart keeps what has come of a response that will not be complete, if the rest can be asked for
// some day.
func (f *fetch) keepPart() {
	if !f.writing || f.w.Len() == 0 || f.w.State() != cache.Filling || !f.env.Settings.Load().Partial {
		return
	}
	meta := f.head.meta
	if meta.RangeTotal == 0 {
		meta.RangeTotal = f.head.length
	}
	if meta.Status != 200 || meta.RangeTotal <= 0 || !freshness.Strong(&meta, f.head.lines) {
		return
	}
	if f.assembleAs(f.wholeKey().Parts(), &meta, false) == nil {
		f.env.Stats.Inc(stats.CachePartialStores)
	}
}
