package cache

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// A Key names a cached resource: the keyed 128-bit hash of its normalised URI.
// The method is no part of it, since only answers to GET are stored (RFC 9111 §2
// leaves the key to the cache). Two URIs with one key would be served each other's
// body, so the hash is a keyed pseudo-random function whose key is drawn when the
// store is formatted: an outsider cannot search for a collision.
type Key [16]byte

func (k Key) low() uint64  { return binary.LittleEndian.Uint64(k[:8]) }
func (k Key) high() uint64 { return binary.LittleEndian.Uint64(k[8:]) }

// tag is what the index keeps of a key; it shares no bits with the set number.
func (k Key) tag() uint32 { return uint32(k.high() >> 32) }

// Tag and Spread are two independent words of the key, for other indexes than this package's.
func (k Key) Tag() uint32 { return k.tag() }

// Spread is evenly distributed over all values.
func (k Key) Spread() uint32 { return uint32(k.low() >> 32) }

// Alternate returns a key for those of the requests for k that say the same in what selects an alternate. Nothing is stored
// under it.
func (s *Store) Alternate(k Key, selecting []byte) Key {
	var h sipHash
	h.init(s.keySeed[0], s.keySeed[1])
	h.write(k[:])
	h.write(selecting)
	return h.sum()
}

// KeyOf returns the key of a URI. The scheme and the host are compared without
// case, and the scheme's default port is dropped (RFC 9110 §4.2.3); path and query
// are taken byte for byte. A nil query means there is none, which is not the same
// resource as an empty one ("/a" and "/a?"). It keeps nothing and allocates nothing.
func (s *Store) KeyOf(scheme, host, path, query []byte) Key {
	var h sipHash
	h.init(s.keySeed[0], s.keySeed[1])
	h.writeLower(scheme)
	h.writeByte(0) // none of the parts can hold a NUL, so the joints are unambiguous
	h.writeLower(dropDefaultPort(scheme, host))
	h.writeByte(0)
	h.write(path)
	if query != nil {
		h.writeByte(0)
		h.write(query)
	}
	return h.sum()
}

// keyOfURI is the key of what AppendURI made, without anything beyond it.
func (s *Store) keyOfURI(uri []byte) Key {
	host, path, query := uri, []byte(nil), []byte(nil)
	if i := bytes.IndexByte(uri, '/'); i >= 0 {
		host, path = uri[:i], uri[i:]
	}
	if i := bytes.IndexByte(path, '?'); i >= 0 {
		path, query = path[:i], path[i:]
	}
	return s.KeyOf(schemeHTTP, host, path, query)
}

var schemeHTTP = []byte("http")

// AppendURI appends what KeyOf hashes but for the scheme: "host/path?query", the host in lower
// case and without a default port. query begins with its "?", or is nil.
func AppendURI(b, scheme, host, path, query []byte) []byte {
	from := len(b)
	b = append(b, dropDefaultPort(scheme, host)...)
	for i, c := range b[from:] {
		if c-'A' < 26 {
			b[from+i] = c | 0x20
		}
	}
	b = append(b, path...)
	return append(b, query...)
}

// dropDefaultPort cuts ":80" from an http authority, ":443" from an https one, and
// an empty port from either (RFC 3986 §6.2.3).
func dropDefaultPort(scheme, host []byte) []byte {
	colon := len(host) - 1
	for colon >= 0 && host[colon] >= '0' && host[colon] <= '9' {
		colon--
	}
	if colon < 0 || host[colon] != ':' {
		return host
	}
	port := string(host[colon+1:])
	secure := len(scheme) == 5
	if port == "" || (port == "80" && !secure) || (port == "443" && secure) {
		return host[:colon]
	}
	return host
}

// sipHash is SipHash-2-4 with a 128-bit result (Aumasson and Bernstein,
// "SipHash: a fast short-input PRF"; the wide result as in the authors' reference
// code). Input is gathered in buf, so that parts of odd lengths cost one copy.
type sipHash struct {
	v0, v1, v2, v3 uint64
	total          uint64
	n              int
	buf            [256]byte
}

func (h *sipHash) init(k0, k1 uint64) {
	h.v0 = k0 ^ 0x736f6d6570736575
	h.v1 = k1 ^ 0x646f72616e646f6d ^ 0xee
	h.v2 = k0 ^ 0x6c7967656e657261
	h.v3 = k1 ^ 0x7465646279746573
}

// flush consumes the whole words of the buffer and keeps the odd bytes.
func (h *sipHash) flush() {
	v0, v1, v2, v3 := h.v0, h.v1, h.v2, h.v3
	whole := h.n &^ 7
	for i := 0; i < whole; i += 8 {
		m := binary.LittleEndian.Uint64(h.buf[i : i+8])
		v3 ^= m
		v0, v1, v2, v3 = sipRound(v0, v1, v2, v3)
		v0, v1, v2, v3 = sipRound(v0, v1, v2, v3)
		v0 ^= m
	}
	h.v0, h.v1, h.v2, h.v3 = v0, v1, v2, v3
	h.n = copy(h.buf[:8], h.buf[whole:h.n])
}

// sipRound is small enough to be inlined, which keeps the state in registers.
func sipRound(v0, v1, v2, v3 uint64) (_, _, _, _ uint64) {
	v0 += v1
	v2 += v3
	v1 = bits.RotateLeft64(v1, 13) ^ v0
	v3 = bits.RotateLeft64(v3, 16) ^ v2
	v0 = bits.RotateLeft64(v0, 32) + v3
	v2 += v1
	v3 = bits.RotateLeft64(v3, 21) ^ v0
	v1 = bits.RotateLeft64(v1, 17) ^ v2
	return v0, v1, bits.RotateLeft64(v2, 32), v3
}

func (h *sipHash) write(p []byte) {
	h.total += uint64(len(p))
	for len(p) > 0 {
		n := copy(h.buf[h.n:], p)
		h.n += n
		p = p[n:]
		if h.n == len(h.buf) {
			h.flush()
		}
	}
}

func (h *sipHash) writeByte(c byte) {
	h.total++
	h.buf[h.n] = c
	h.n++
	if h.n == len(h.buf) {
		h.flush()
	}
}

func (h *sipHash) writeLower(p []byte) {
	h.total += uint64(len(p))
	for len(p) > 0 {
		n := copy(h.buf[h.n:], p)
		for i, c := range h.buf[h.n : h.n+n] {
			if c-'A' < 26 {
				h.buf[h.n+i] = c | 0x20
			}
		}
		h.n += n
		p = p[n:]
		if h.n == len(h.buf) {
			h.flush()
		}
	}
}

// sum ends the input: the odd bytes and the length are its last word.
func (h *sipHash) sum() (k Key) {
	h.flush()
	clear(h.buf[h.n:8])
	h.buf[7] = byte(h.total)
	h.n = 8
	h.flush()
	h.v2 ^= 0xee
	binary.LittleEndian.PutUint64(k[:8], h.finish())
	h.v1 ^= 0xdd
	binary.LittleEndian.PutUint64(k[8:], h.finish())
	return k
}

func (h *sipHash) finish() uint64 {
	v0, v1, v2, v3 := h.v0, h.v1, h.v2, h.v3
	for range 4 {
		v0, v1, v2, v3 = sipRound(v0, v1, v2, v3)
	}
	h.v0, h.v1, h.v2, h.v3 = v0, v1, v2, v3
	return v0 ^ v1 ^ v2 ^ v3
}
