package cache

// Walk calls f with every object that can be found, pinned for the time of the call, until f
// returns false. It is for goroutines beside the loops: it takes no lock, and nothing is held between two
// calls. What can be found all the time while the walk goes on is seen at least once, since an entry keeps
// its place as long as it is good. What comes, goes or is replaced meanwhile is seen or not.
func (s *Store) Walk(f func(*Object) bool) {
	for set, more := 0, true; more && set < len(s.sets); set++ {
		more = s.walkSet(set, f)
	}
}

// walkSet is the part of a walk that one set of the index is. It returns what f said last.
func (s *Store) walkSet(set int, f func(*Object) bool) bool {
	a := s.common()
	for i := range s.sets[set].locs {
		o, ok := a.open(location(s.sets[set].locs[i].Load()))
		if !ok {
			continue
		}
		more := f(&o)
		o.Release()
		if !more {
			return false
		}
	}
	return true
}

// WalkURI is Walk over what is stored for one URI: its alternates, and their parts.
func (s *Store) WalkURI(uri []byte, f func(*Object) bool) {
	mine := func(o *Object) bool { return string(o.URI()) != string(uri) || f(o) }
	if s.fences.told.Load() != 0 {
		s.Walk(mine)
		return
	}
	s.walkSet(int(s.place(s.keyOfURI(uri))), mine)
}

// Below tells whether the tier below may have something for a URI, and whether there is such a tier.
func (s *Store) Below(uri []byte) (has, tier bool) {
	l := s.lower.Load()
	if l == nil {
		return false, false
	}
	return (*l).Has(s.keyOfURI(uri)), true
}
