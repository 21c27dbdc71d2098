package session

// blame is which deaths of servers may be a request's doing: the generations that died while they
// worked on it. Zeros: none.
type blame [2]uint64
