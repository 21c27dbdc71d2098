package control

import "trafficd/roles/internal/cacheview"

// The state of the cache, and what is stored for a URL.
type (
	CacheStats  = cacheview.Stats
	CacheStored = cacheview.Stored
	CachePurged = cacheview.Purged
)

// CachePurge asks for a purge: by one URL, by one prefix, or by tags.
type CachePurge struct {
	URL    string   `json:"url,omitempty"`
	Prefix string   `json:"prefix,omitempty"`
	Tags   []string `json:"tags,omitempty"`
	Soft   bool     `json:"soft,omitempty"` // it becomes stale, and is not removed
}
