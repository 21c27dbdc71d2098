package http1

import (
	"bytes"
	"math"

	"trafficd/roles/server/header"
)

// Bounds of what a chunked body may carry beside data.
const (
	// MaxChunkExt is the greatest length of the extensions of one chunk.
	MaxChunkExt = 256
	// MaxChunkExts is the greatest length of all extensions of a body.
	MaxChunkExts = 16 << 10
	// MaxTrailerLine is the greatest length of a trailer line with its CRLF. A
	// buffer that a chunked body is decoded from must hold at least this much.
	MaxTrailerLine = 2 << 10
	// MaxTrailerSection is the greatest length of all trailer lines.
	MaxTrailerSection = 8 << 10
	// MaxTrailers is the greatest number of trailer fields.
	MaxTrailers = 64

	maxSizeDigits = 16
)

// Faults of a chunked body.
var (
	errChunkSize     = bad("malformed chunk size")
	errChunkTooLarge = bad("chunk size too large")
	errChunkExt      = bad("malformed chunk extension")
	errChunkExtLong  = bad("chunk extensions too long")
	errChunkEnd      = bad("chunk data not followed by CRLF")
	errTrailers      = &Error{431, "trailer section too large"}
)

// Chunked decodes a chunked body as it arrives (RFC 9112 §7.1). It is a value of
// 24 bytes without pointers: a copy of it, in shared memory or in another
// process, goes on where the original was. The zero value is the beginning of a
// body.
//
// What it yields depends on the bytes only, not on how they were cut: data,
// chunk boundaries, trailers, and a fault with its position are the same for
// every way to hand the body over.
//
// It is stricter than RFC 9112: no blanks around the size or within extensions
// ("bad whitespace", which peers disagree about), at most 16 digits, CRLF and
// nothing else at the end of every line. Extensions are checked and dropped.
type Chunked struct {
	// size is the chunk size read so far, then what is left of the data.
	size uint64
	// exts is the length of the extensions met in the whole body.
	exts uint32
	// trailerBytes is the length of the trailer lines consumed.
	trailerBytes uint16
	// ext is the length of the current chunk's extensions.
	ext uint16
	// trailers is the number of trailer fields, dropped ones included.
	trailers uint8
	// digits is the number of digits of the current size.
	digits uint8
	state  chunkState
}

type chunkState uint8

const (
	chSize       chunkState = iota // in the digits of a size
	chExtName0                     // after ';'
	chExtName                      // in an extension's name
	chExtValue0                    // after '='
	chExtValue                     // in a token
	chExtQuoted                    // in a quoted-string
	chExtEscaped                   // after a backslash in it
	chExtAfter                     // after a quoted-string
	chSizeLF                       // after the CR of a size line
	chData                         // in data
	chDataCR                       // after data
	chDataLF                       // after data and CR
	chTrailer                      // at the beginning of a trailer line
	chDone
)

// Event is what Chunked.Step has come upon.
type Event uint8

// The events, in the order of a body: (ChunkStart Data...)... LastChunkStart Trailer... ChunkedEnd.
const (
	// NeedMore: nothing complete. Call again with the bytes not consumed and more.
	NeedMore Event = iota
	// ChunkStart: the size line of a chunk with data was consumed; see Remaining.
	ChunkStart
	// Data: the span is data.
	Data
	// LastChunkStart: the size line of the last chunk was consumed.
	LastChunkStart
	// TrailerLine: the span is a well-formed field line, with its CRLF, that may
	// stand in a trailer section.
	TrailerLine
	// ChunkedEnd: the body is complete.
	ChunkedEnd
)

// Step decodes in up to the next event, and returns it with the number of bytes
// consumed; data, for Data and TrailerLine, is within in. A trailer line is
// consumed only when it is complete, so NeedMore does not mean that all of in was
// consumed. After ChunkedEnd it consumes nothing.
//
// An error is an *Error. It concerns in[n] or, for a trailer, the line at n;
// calling again gives the same error. The connection is then unusable.
func (c *Chunked) Step(in []byte) (ev Event, data Span, n int, err error) {
	i := 0
	for i < len(in) {
		switch c.state {
		case chDone:
			return ChunkedEnd, Span{}, i, nil
		case chData:
			return c.stepData(in, i)
		case chTrailer:
			return c.stepTrailer(in, i)
		}
		ev, e := c.framing(in[i])
		if e != nil {
			return NeedMore, Span{}, i, e
		}
		i++
		if ev != NeedMore {
			return ev, Span{}, i, nil
		}
	}
	if c.state == chDone {
		return ChunkedEnd, Span{}, i, nil
	}
	return NeedMore, Span{}, i, nil
}

// Next decodes in up to and including the next run of data, for a caller that
// wants nothing but data: data is within in and may be empty, n is the number of
// bytes consumed. Trailers are checked and dropped. Call it until Done, or until
// both are 0: then it needs more than is left of in.
func (c *Chunked) Next(in []byte) (data Span, n int, err error) {
	for {
		ev, d, k, err := c.Step(in[n:])
		d.Off += uint32(n)
		n += k
		switch {
		case err != nil || ev == NeedMore || ev == ChunkedEnd:
			return Span{}, n, err
		case ev == Data:
			return d, n, nil
		}
	}
}

// Done reports whether the body is complete.
func (c *Chunked) Done() bool { return c.state == chDone }

func (c *Chunked) stepData(in []byte, i int) (Event, Span, int, error) {
	k := len(in) - i
	if uint64(k) >= c.size {
		k = int(c.size)
		c.state = chDataCR
	}
	c.size -= uint64(k)
	return Data, span(i, i+k), i + k, nil
}

// framing consumes one byte outside data and trailers. On error the state is as
// it was.
func (c *Chunked) framing(b byte) (Event, *Error) {
	switch c.state {
	case chSize:
		return NeedMore, c.sizeByte(b)
	case chSizeLF:
		if b != '\n' {
			return NeedMore, errChunkSize
		}
		return c.sizeLineEnd(), nil
	case chDataCR:
		if b != '\r' {
			return NeedMore, errChunkEnd
		}
		c.state = chDataLF
		return NeedMore, nil
	case chDataLF:
		if b != '\n' {
			return NeedMore, errChunkEnd
		}
		c.state, c.size, c.digits, c.ext = chSize, 0, 0, 0
		return NeedMore, nil
	}
	return NeedMore, c.extByte(b)
}

func (c *Chunked) sizeLineEnd() Event {
	if c.size == 0 {
		c.state = chTrailer
		return LastChunkStart
	}
	c.state = chData
	return ChunkStart
}

func (c *Chunked) sizeByte(b byte) *Error {
	if classes[b]&isHex != 0 {
		if c.digits == maxSizeDigits {
			return errChunkTooLarge
		}
		size := c.size<<4 | uint64(hexValue(b))
		if size > math.MaxInt64 {
			return errChunkTooLarge
		}
		c.size = size
		c.digits++
		return nil
	}
	if c.digits == 0 {
		return errChunkSize
	}
	switch b {
	case '\r':
		c.state = chSizeLF
	case ';':
		return c.extend(chExtName0)
	default:
		return errChunkSize
	}
	return nil
}

func hexValue(b byte) byte {
	if b <= '9' {
		return b - '0'
	}
	return b&^0x20 - 'A' + 10
}

// extByte consumes one byte of *( ";" name [ "=" ( token / quoted-string ) ] ).
func (c *Chunked) extByte(b byte) *Error {
	token := classes[b]&isToken != 0
	switch c.state {
	case chExtQuoted, chExtEscaped:
		return c.quotedByte(b)
	case chExtName0:
		if token {
			return c.extend(chExtName)
		}
		return errChunkExt
	case chExtValue0:
		switch {
		case token:
			return c.extend(chExtValue)
		case b == '"':
			return c.extend(chExtQuoted)
		}
		return errChunkExt
	}
	switch {
	case b == '\r':
		c.state = chSizeLF
		return nil
	case b == ';':
		return c.extend(chExtName0)
	case b == '=' && c.state == chExtName:
		return c.extend(chExtValue0)
	case token && c.state != chExtAfter:
		return c.extend(c.state)
	}
	return errChunkExt
}

func (c *Chunked) quotedByte(b byte) *Error {
	switch {
	case b != '\t' && b < ' ' || b == 0x7f:
		return errChunkExt
	case c.state == chExtEscaped:
		return c.extend(chExtQuoted)
	case b == '\\':
		return c.extend(chExtEscaped)
	case b == '"':
		return c.extend(chExtAfter)
	}
	return c.extend(chExtQuoted)
}

// extend counts one byte of extensions and goes to the given state.
func (c *Chunked) extend(to chunkState) *Error {
	if c.ext >= MaxChunkExt || c.exts >= MaxChunkExts {
		return errChunkExtLong
	}
	c.ext++
	c.exts++
	c.state = to
	return nil
}

// stepTrailer consumes complete trailer lines at i, up to one that is to be
// told, or the end.
func (c *Chunked) stepTrailer(in []byte, i int) (Event, Span, int, error) {
	for {
		line := in[i:min(len(in), i+MaxTrailerLine)]
		k := bytes.IndexByte(line, '\n')
		if k < 0 {
			if len(line) == MaxTrailerLine {
				return NeedMore, Span{}, i, errTrailers
			}
			return NeedMore, Span{}, i, nil
		}
		f, n, e := fieldLine(line[:k+1], 0)
		if e == nil && n != k+1 {
			e = errBareLF
		}
		if e == nil && f.Name.Len == 0 {
			c.state = chDone
			return ChunkedEnd, Span{}, i + n, nil
		}
		if e == nil && (c.trailers == MaxTrailers || int(c.trailerBytes)+n > MaxTrailerSection) {
			e = errTrailers
		}
		if e != nil {
			return NeedMore, Span{}, i, e
		}
		c.trailers++
		c.trailerBytes += uint16(n)
		i += n
		if !header.TrailerForbidden(f.ID) {
			return TrailerLine, span(i-n, i), i, nil
		}
	}
}

// CRLF ends every line, and the data of every chunk.
const CRLF = "\r\n"

// LastChunk ends a chunked body without trailers.
const LastChunk = "0\r\n\r\n"

// AppendChunkHeader appends the size line of a chunk of n bytes, n > 0. After the
// data comes CRLF.
func AppendChunkHeader(dst []byte, n int64) []byte {
	const digits = "0123456789abcdef"
	var b [maxSizeDigits]byte
	i := len(b)
	for u := uint64(n); ; {
		i--
		b[i] = digits[u&15]
		if u >>= 4; u == 0 {
			break
		}
	}
	dst = append(dst, b[i:]...)
	return append(dst, CRLF...)
}
