package stats

import (
	"hash/fnv"
	"strconv"
)

// A Metric is a column of a Row.
type Metric int

// MetricKind says how a metric moves.
type MetricKind int

// The kinds.
const (
	Counter MetricKind = iota // only grows, over deaths too
	Gauge                     // what is there now; zeroed when its process is dead
)

// String is the word of the exposition format.
func (k MetricKind) String() string {
	if k == Gauge {
		return "gauge"
	}
	return "counter"
}

// The metrics. The order is the layout; a change of it changes the layout hash.
const (
	ClientConnections Metric = iota
	ClientConnectionsCurrent
	ClientRejected
	ClientEvicted
	ClientOverLimit
	Requests
	Responses1xx
	Responses2xx
	Responses3xx
	Responses4xx
	Responses5xx
	CacheHits
	CacheStale
	CacheRevalidated
	CacheMisses
	CacheStaleRevalidating
	CacheStaleOnError
	CacheBackground
	CacheCollapsed
	CacheStores
	CacheUncacheable
	CacheStoreFailures
	CachePurges
	CachePurged
	DiskHits
	DiskMisses
	DiskOverloads
	DiskReads
	DiskWrites
	DiskBytesWritten
	DiskErrors
	DiskDrops
	DiskObjects
	DiskBytes
	OriginConnections
	OriginConnectionsCurrent
	OriginReused
	OriginFailures
	OriginRetries
	ClientBytesIn
	ClientBytesOut
	OriginBytesIn
	OriginBytesOut
	ParseErrorsClient
	ParseErrorsOrigin
	TimeoutClientHeader
	TimeoutClientIdle
	TimeoutClientBody
	TimeoutClientWrite
	TimeoutOriginConnect
	TimeoutOriginResponse
	TimeoutOriginBody
	TimeoutTunnel
	Tunnels
	TunnelsCurrent
	RemapUnmatched
	RemapDenied
	RemapRedirects
	ForwardRequests
	ForwardTunnels
	ForwardRefused
	ClientAborts
	OriginAborts
	Heartbeats
	QueueAccepted
	QueueDepth
	QueueHandedOver
	QueueWait
	QueueOverflow
	QueueExpired
	Reloads
	ReloadsRefused
	ControlRequests
	CrashesMasked
	RequestsResumed
	RequestsLost
	ConnectionsAdopted
	ConnectionsLost
	OriginNoneUp
	OriginRetriesRefused
	OriginBusy
	OriginMarkedDown
	OriginServersDown
	SlowGivenUp
	AccessLogWritten
	AccessLogDropped
	AccessLogFailures
	CachePartialStores
	CacheCombined
	OriginResumes
	numMetrics
)

// A Desc is a row of the table of metrics. Metrics of one family differ in the label only.
type Desc struct {
	Family string // without the prefix; as Prometheus wants it: _total for counters, unit before that
	Label  string // "" or the name of the label
	Value  string // the label's value
	Kind   MetricKind
	Unit   string // of the stored number: "", bytes, ns
	Help   string // one line; of the first of the family
}

// JSONName is the flat name of the JSON form: family, and value if there is a label.
func (d Desc) JSONName() string {
	if d.Label == "" {
		return d.Family
	}
	return d.Family + "." + d.Value
}

// table describes every metric; indexed by Metric.
var table = [numMetrics]Desc{
	ClientConnections:        {Family: "client_connections_total", Help: "Client connections accepted."},
	ClientConnectionsCurrent: {Family: "client_connections", Kind: Gauge, Help: "Client connections open now."},
	ClientRejected:           {Family: "client_connections_rejected_total", Help: "Client connections or requests turned away for lack of descriptors or buffers."},
	ClientEvicted:            {Family: "client_connections_evicted_total", Help: "Client connections closed because there was no place left and they did not use theirs."},
	ClientOverLimit:          {Family: "client_connections_over_limit_total", Help: "Client connections closed because their client had too many (limits.connections_per_client)."},
	Requests:                 {Family: "requests_total", Help: "Requests begun, heartbeats not counted."},
	Responses1xx:             {Family: "responses_total", Label: "class", Value: "1xx", Help: "Responses sent to clients, by class of status."},
	Responses2xx:             {Family: "responses_total", Label: "class", Value: "2xx"},
	Responses3xx:             {Family: "responses_total", Label: "class", Value: "3xx"},
	Responses4xx:             {Family: "responses_total", Label: "class", Value: "4xx"},
	Responses5xx:             {Family: "responses_total", Label: "class", Value: "5xx"},
	CacheHits:                {Family: "cache_lookups_total", Label: "result", Value: "hit", Help: "Requests looked up in the cache, by what was found."},
	CacheStale:               {Family: "cache_lookups_total", Label: "result", Value: "stale"},
	CacheRevalidated:         {Family: "cache_revalidated_total", Help: "Stale responses that the origin confirmed with 304."},
	CacheMisses:              {Family: "cache_lookups_total", Label: "result", Value: "miss"},
	CacheStaleRevalidating:   {Family: "cache_stale_served_total", Label: "reason", Value: "revalidating", Help: "Requests answered with a stale response that nobody had asked for, by the reason."},
	CacheStaleOnError:        {Family: "cache_stale_served_total", Label: "reason", Value: "error"},
	CacheBackground:          {Family: "cache_background_total", Help: "Stale responses validated behind the back of clients that were served them."},
	CacheCollapsed:           {Family: "cache_collapsed_total", Help: "Requests that waited for another's fetch of the same object."},
	CacheStores:              {Family: "cache_stores_total", Help: "Responses stored."},
	CacheUncacheable:         {Family: "cache_uncacheable_total", Help: "Responses that were not allowed to be stored."},
	CacheStoreFailures:       {Family: "cache_store_failures_total", Help: "Responses not stored for lack of space or because the fetch broke off."},
	CachePurges:              {Family: "cache_purges_total", Help: "Purges that were asked for and allowed."},
	CachePurged:              {Family: "cache_purged_total", Help: "Responses that purges have removed or marked stale."},
	DiskHits:                 {Family: "cache_disk_lookups_total", Label: "result", Value: "hit", Help: "Misses in memory that were looked up on disk, by what was found; those that waited for one read count once."},
	DiskMisses:               {Family: "cache_disk_lookups_total", Label: "result", Value: "miss"},
	DiskOverloads:            {Family: "cache_disk_lookups_total", Label: "result", Value: "overload"},
	DiskReads:                {Family: "cache_disk_reads_total", Help: "Records read from the cache on disk."},
	DiskWrites:               {Family: "cache_disk_writes_total", Help: "Responses written to the cache on disk."},
	DiskBytesWritten:         {Family: "cache_disk_written_bytes_total", Unit: "bytes", Help: "Bytes written to the cache on disk."},
	DiskErrors:               {Family: "cache_disk_errors_total", Help: "Reads and writes of the cache on disk that failed, records that were damaged, and times that it could not be used at all."},
	DiskDrops:                {Family: "cache_disk_drops_total", Help: "Responses not written to disk, for lack of time or because a write failed."},
	DiskObjects:              {Family: "cache_disk_objects", Kind: Gauge, Help: "Responses on disk."},
	DiskBytes:                {Family: "cache_disk_bytes", Kind: Gauge, Unit: "bytes", Help: "Bytes of the cache on disk in use."},
	OriginConnections:        {Family: "origin_connections_total", Help: "Connections opened to origins."},
	OriginConnectionsCurrent: {Family: "origin_connections", Kind: Gauge, Help: "Origin connections open now."},
	OriginReused:             {Family: "origin_reused_total", Help: "Requests sent over an origin connection used before."},
	OriginFailures:           {Family: "origin_failures_total", Help: "Requests for which no origin gave an answer."},
	OriginRetries:            {Family: "origin_retries_total", Help: "Requests sent to an origin once more, to the same server or another one."},
	OriginNoneUp:             {Family: "origin_requests_rejected_total", Label: "reason", Value: "none_up", Help: "Requests answered 503 in place of an origin."},
	OriginBusy:               {Family: "origin_requests_rejected_total", Label: "reason", Value: "busy"},
	OriginRetriesRefused:     {Family: "origin_retries_refused_total", Help: "Requests not sent once more because the budget was used up."},
	OriginMarkedDown:         {Family: "origin_servers_marked_down_total", Help: "Times an origin server was taken out for failed requests or health checks."},
	OriginServersDown:        {Family: "origin_servers_down", Kind: Gauge, Help: "Origin servers that are out now."},
	SlowGivenUp:              {Family: "cache_followers_given_up_total", Help: "Clients whose answer was broken off because they held up others that read the same one."},
	ClientBytesIn:            {Family: "client_received_bytes_total", Unit: "bytes", Help: "Bytes received from clients."},
	ClientBytesOut:           {Family: "client_sent_bytes_total", Unit: "bytes", Help: "Bytes sent to clients."},
	OriginBytesIn:            {Family: "origin_received_bytes_total", Unit: "bytes", Help: "Bytes received from origins."},
	OriginBytesOut:           {Family: "origin_sent_bytes_total", Unit: "bytes", Help: "Bytes sent to origins."},
	ParseErrorsClient:        {Family: "parse_errors_total", Label: "side", Value: "client", Help: "Messages refused as malformed or too large."},
	ParseErrorsOrigin:        {Family: "parse_errors_total", Label: "side", Value: "origin"},
	TimeoutClientHeader:      {Family: "timeouts_total", Label: "kind", Value: "client_header", Help: "Time limits that ran out, by setting."},
	TimeoutClientIdle:        {Family: "timeouts_total", Label: "kind", Value: "client_idle"},
	TimeoutClientBody:        {Family: "timeouts_total", Label: "kind", Value: "client_body"},
	TimeoutClientWrite:       {Family: "timeouts_total", Label: "kind", Value: "client_write"},
	TimeoutOriginConnect:     {Family: "timeouts_total", Label: "kind", Value: "origin_connect"},
	TimeoutOriginResponse:    {Family: "timeouts_total", Label: "kind", Value: "origin_response"},
	TimeoutOriginBody:        {Family: "timeouts_total", Label: "kind", Value: "origin_body"},
	TimeoutTunnel:            {Family: "timeouts_total", Label: "kind", Value: "tunnel_idle"},
	Tunnels:                  {Family: "tunnels_total", Help: "Tunnels opened by CONNECT or Upgrade."},
	TunnelsCurrent:           {Family: "tunnels", Kind: Gauge, Help: "Tunnels open now."},
	RemapUnmatched:           {Family: "remap_unmatched_total", Help: "Requests that no remap rule is for, answered 404."},
	RemapDenied:              {Family: "remap_denied_total", Help: "Requests of clients that their remap rule is not for, answered 403."},
	RemapRedirects:           {Family: "remap_redirects_total", Help: "Requests answered by a redirect rule."},
	ForwardRequests:          {Family: "forward_requests_total", Label: "kind", Value: "request", Help: "Requests for hosts that no rule is for, of clients that may make them."},
	ForwardTunnels:           {Family: "forward_requests_total", Label: "kind", Value: "connect"},
	ForwardRefused:           {Family: "forward_refused_total", Help: "Such requests that were refused: the client, the port or the address is not permitted."},
	ClientAborts:             {Family: "aborts_total", Label: "side", Value: "client", Help: "Exchanges broken off by a peer."},
	OriginAborts:             {Family: "aborts_total", Label: "side", Value: "origin"},
	Heartbeats:               {Family: "heartbeats_total", Help: "Heartbeats answered."},
	QueueAccepted:            {Family: "queue_accepted_total", Help: "Connections taken into the manager's queue."},
	QueueDepth:               {Family: "queue_depth", Kind: Gauge, Help: "Connections in the manager's queue now."},
	QueueHandedOver:          {Family: "queue_handed_over_total", Help: "Connections handed from the manager's queue to a server."},
	QueueWait:                {Family: "queue_wait_seconds_total", Unit: "ns", Help: "Time that connections spent in the manager's queue."},
	QueueOverflow:            {Family: "queue_rejected_total", Label: "reason", Value: "overflow", Help: "Connections answered 503 from the manager's queue."},
	QueueExpired:             {Family: "queue_rejected_total", Label: "reason", Value: "expired"},
	Reloads:                  {Family: "config_reloads_total", Label: "result", Value: "published", Help: "Configuration reloads, by verdict."},
	ReloadsRefused:           {Family: "config_reloads_total", Label: "result", Value: "refused"},
	ControlRequests:          {Family: "control_requests_total", Help: "Requests on the control socket."},
	CrashesMasked:            {Family: "crashes_masked_total", Help: "Deaths of a server after which the next went on with its connections."},
	RequestsResumed:          {Family: "requests_resumed_total", Help: "Requests and tunnels under way when their server died, and gone on with by the next."},
	RequestsLost:             {Family: "requests_lost_total", Help: "Requests and tunnels that ended because their server died."},
	ConnectionsAdopted:       {Family: "connections_adopted_total", Help: "Connections that a server took over from the one before it."},
	ConnectionsLost:          {Family: "connections_lost_total", Help: "Connections that ended because their server died."},
	AccessLogWritten:         {Family: "access_log_lines_total", Label: "result", Value: "written", Help: "Lines of the access log, by what became of them."},
	AccessLogDropped:         {Family: "access_log_lines_total", Label: "result", Value: "dropped"},
	AccessLogFailures:        {Family: "access_log_failures_total", Help: "Times that the access log could not be written; its lines are kept while there is room."},
	CachePartialStores:       {Family: "cache_partial_stores_total", Help: "Parts of responses stored."},
	CacheCombined:            {Family: "cache_combined_total", Help: "Responses, or larger parts, put together from stored parts and what was asked for in addition."},
	OriginResumes:            {Family: "origin_resumes_total", Help: "Requests for the rest of a response that had broken off."},
}

// layoutHash is different for any two builds that would not agree on what a word means.
func layoutHash() uint64 {
	h := fnv.New64a()
	for _, d := range table {
		h.Write([]byte(d.JSONName() + "\x00" + d.Kind.String() + d.Unit + "\n"))
	}
	for _, n := range []int{roleWords, bankWords, RowSize, MaxLoops, Banks, Size} {
		h.Write([]byte(strconv.Itoa(n) + "\n"))
	}
	return h.Sum64()
}
