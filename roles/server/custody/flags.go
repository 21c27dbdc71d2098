package custody

// Flags are what a record says with a bit each: the zero value says nothing.
type Flags uint16

// Set adds f if on.
func (s *Flags) Set(f Flags, on bool) {
	if on {
		*s |= f
	}
}

// Has reports whether f is among them.
func (s Flags) Has(f Flags) bool { return s&f != 0 }
