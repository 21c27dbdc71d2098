package server

import "time"

// trouble is something that does not work while everything else does: a line of ctl status (control.Trouble is the other end).
type trouble struct {
	What   string    `json:"what"`
	State  string    `json:"state"`
	Since  time.Time `json:"since"`
	Reason string    `json:"reason"`
}

// troubles are what is wrong now. A server that stands by has none: it has opened nothing yet.
func (s *Server) troubles() []trouble {
	all := []trouble{}
	if s.opened.Load() != nil {
		if t := s.diskTrouble(); t != nil {
			state := "failing"
			if t.Off {
				state = "off"
			}
			all = append(all, trouble{"cache on disk", state, t.Since, t.Reason})
		}
	}
	if out := s.accessLog.Load(); out != nil {
		if t := out.Trouble(); t != nil {
			all = append(all, trouble{"access log", "not written", t.Since, t.Err.Error()})
		}
	}
	return all
}
