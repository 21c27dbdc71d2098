package witness

import "encoding/binary"

// Body is the content of an object, without an end: the byte at any offset is a
// function of seed, object and offset, so that any part of it can be made or
// checked without keeping it, and a byte of another object or of another offset
// does not pass for the right one.
type Body struct {
	Seed   uint64 // of the whole run
	Object uint64
}

// word is the n-th eight bytes: splitmix64 (Steele, Lea, Flood 2014), which
// maps different inputs to different outputs.
func (b Body) word(n uint64) uint64 {
	x := b.Seed + b.Object*0xd1342543de82ef95 + (n+1)*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// at is the byte at one offset.
func (b Body) at(off int64) byte {
	return byte(b.word(uint64(off)/8) >> (8 * (uint64(off) % 8)))
}

// Fill writes the bytes from offset off on into p.
func (b Body) Fill(p []byte, off int64) {
	i := 0
	for ; i < len(p) && (off+int64(i))%8 != 0; i++ {
		p[i] = b.at(off + int64(i))
	}
	for ; i+8 <= len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], b.word(uint64(off+int64(i))/8))
	}
	for ; i < len(p); i++ {
		p[i] = b.at(off + int64(i))
	}
}

// Check returns the index in p of the first byte that is not the one at its
// offset, which is off for p[0]; -1 if all are right.
func (b Body) Check(p []byte, off int64) int {
	i := 0
	for ; i < len(p) && (off+int64(i))%8 != 0; i++ {
		if p[i] != b.at(off+int64(i)) {
			return i
		}
	}
	for ; i+8 <= len(p); i += 8 {
		if binary.LittleEndian.Uint64(p[i:]) != b.word(uint64(off+int64(i))/8) {
			break
		}
	}
	for ; i < len(p); i++ {
		if p[i] != b.at(off+int64(i)) {
			return i
		}
	}
	return -1
}
