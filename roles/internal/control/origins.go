package control

import (
	"context"
	"net/http"
	"time"
)

// PathOrigins is where the servers of origins are told of.
const PathOrigins = "/v1/origins"

// Origins is what the server that serves knows of the servers of origins: groups first, and then those that
// are in none, as far as requests have gone to them.
type Origins struct {
	Servers []OriginServer `json:"servers"`
}

// OriginServer is one of them. Numbers are since this server process began.
type OriginServer struct {
	Group       string    `json:"group,omitempty"` // "": it is in none
	Server      string    `json:"server"`          // host:port
	State       string    `json:"state"`           // up, down, probing, sick
	Since       time.Time `json:"since,omitzero"`  // of the last change
	Requests    uint64    `json:"requests"`
	Failures    uint64    `json:"failures"`      // of them, without an answer
	Connections int64     `json:"connections"`   // open now, to this address
	Waiting     int64     `json:"waiting"`       // requests that wait for one
	Why         string    `json:"why,omitempty"` // the last failure
}

// Origins asks for the servers of origins.
func (c *Client) Origins(ctx context.Context) (*Origins, error) {
	var a Origins
	return &a, c.do(ctx, http.MethodGet, PathOrigins, nil, &a)
}
