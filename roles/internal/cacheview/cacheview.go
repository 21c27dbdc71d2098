// Package cacheview is what an operator can ask of the cache of a running server, and what is answered: the
// bodies of the link's operation "cache" and of the control socket's /v1/cache. It has types and their checks, and does nothing.
package cacheview

import (
	"fmt"
	"time"
)

// What can be asked for.
const (
	Stat   = "stat"
	Lookup = "lookup"
	Purge  = "purge"
	Result = "result" // of a question that was Pending
)

// A Question is the body of the operation. Only what belongs to Ask is set.
type Question struct {
	Ask    string   `json:"ask"`
	URL    string   `json:"url,omitempty"`    // Lookup, Purge: http://host[:port]/path[?query]
	Prefix string   `json:"prefix,omitempty"` // Purge: whatever begins so
	Tags   []string `json:"tags,omitempty"`   // Purge: whatever is tagged with any of these
	Soft   bool     `json:"soft,omitempty"`   // Purge: it is stale afterwards, not gone
	Ticket uint64   `json:"ticket,omitempty"` // Result
}

// An Answer has what belongs to the question's Ask, or else a Ticket: the answer takes time, and is to be asked for by
// Result.
type Answer struct {
	Ticket uint64   `json:"ticket,omitempty"`
	Stats  *Stats   `json:"stats,omitempty"`
	Stored *Stored  `json:"stored,omitempty"`
	Purged *Purged  `json:"purged,omitempty"`
	Error  *Problem `json:"error,omitempty"`
}

// Answers reports whether it has what was asked for.
func (a *Answer) Answers(ask string) bool {
	switch ask {
	case Stat:
		return a.Stats != nil
	case Lookup:
		return a.Stored != nil
	case Purge:
		return a.Purged != nil
	}
	return false
}

// A Problem is why there is no answer.
type Problem struct {
	Text  string `json:"text"`
	Usage bool   `json:"usage"` // the question is wrong
}

// Check tells what is wrong with a purge, before anybody does anything: nil for what means something.
func (q *Question) Check() error {
	ways := 0
	for _, used := range []bool{q.URL != "", q.Prefix != "", len(q.Tags) != 0} {
		if used {
			ways++
		}
	}
	if ways != 1 {
		return fmt.Errorf("a purge is by one URL, by one prefix, or by tags")
	}
	return nil
}

// Stats is the state of the cache. The counters begin with the cache in memory.
type Stats struct {
	Memory Memory `json:"memory"`
	Disk   *Disk  `json:"disk,omitempty"` // nil: there is none

	// By the counters of the instance; the manager fills them in.
	Hits     uint64  `json:"hits"`
	Misses   uint64  `json:"misses"`
	Stale    uint64  `json:"stale"`
	HitRatio float64 `json:"hit_ratio"` // 0 to 1
}

// Memory is the tier that is served from.
type Memory struct {
	Objects   int64 `json:"objects"`
	Bytes     int64 `json:"bytes"`     // waste included
	Capacity  int64 `json:"capacity"`  // bytes
	Protected int64 `json:"protected"` // of Bytes, what a scan does not reach
	Segments  int   `json:"segments"`
	Pinned    int   `json:"pinned"` // segments that responses under way keep

	Stored    uint64 `json:"stored"`
	Updated   uint64 `json:"updated"` // by a validation
	Removed   uint64 `json:"removed"` // by purges and unsafe requests
	Evictions uint64 `json:"evictions"`
	Kept      uint64 `json:"kept"`      // objects that were hit, and so not evicted
	Lost      uint64 `json:"lost"`      // objects that were hit, and evicted all the same
	Returned  uint64 `json:"returned"`  // objects stored again soon after their eviction
	Displaced uint64 `json:"displaced"` // objects that had to go for want of a place in the index
	NoSpace   uint64 `json:"no_space"`  // responses not stored since all was in use
}

// Disk is the tier below.
type Disk struct {
	Objects uint64 `json:"objects"`
	Hits    uint64 `json:"hits"`
	Misses  uint64 `json:"misses"`
	Reads   uint64 `json:"reads"`
	Writes  uint64 `json:"writes"`
	Errors  uint64 `json:"errors"`

	Trouble *Trouble `json:"trouble,omitempty"` // nil: it is well
}

// Trouble is why the disk is of no use, or of little.
type Trouble struct {
	Since  time.Time `json:"since"`
	Off    bool      `json:"off"` // nothing is found there or written
	Reason string    `json:"reason"`
}

// Stored is what there is for a URL.
type Stored struct {
	URI        string      `json:"uri"` // as the cache knows it
	Alternates []Alternate `json:"alternates"`
	Disk       bool        `json:"disk"` // something may be on disk that is not in memory
}

// An Alternate is one stored response.
type Alternate struct {
	Status   int      `json:"status"`
	Age      float64  `json:"age_seconds"`
	Lifetime float64  `json:"lifetime_seconds"`
	Fresh    bool     `json:"fresh"`
	Soft     bool     `json:"soft_purged,omitempty"`
	Part     string   `json:"part,omitempty"` // bytes FROM-TO/SIZE of a representation that is not there as a whole
	Size     int64    `json:"size"`           // of the body, in bytes
	Tier     string   `json:"tier"`           // memory, or memory and disk
	Kept     bool     `json:"protected"`      // from scans
	Hits     int      `json:"hits"`           // lately, up to 3
	Tags     []string `json:"tags,omitempty"`
	Vary     []string `json:"vary,omitempty"` // what requests must have in common
}

// Purged is how many responses a purge found.
type Purged struct {
	Purged int  `json:"purged"`
	Memory int  `json:"memory"`
	Disk   int  `json:"disk"` // on disk only
	Soft   bool `json:"soft"`
}
