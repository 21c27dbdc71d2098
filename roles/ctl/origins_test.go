package ctl

import (
	"strings"
	"testing"
	"time"

	"trafficd/roles/internal/control"
)

func TestOriginsForPeople(t *testing.T) {
	now := time.Unix(5000, 0)
	var b strings.Builder
	err := writeOrigins(&b, &control.Origins{Servers: []control.OriginServer{
		{Group: "app", Server: "10.0.0.1:80", State: "down", Since: now.Add(-90 * time.Second), Requests: 12, Failures: 5, Why: "connection refused"},
		{Server: "h:81", State: "up", Requests: 3, Connections: 2, Waiting: 1, Why: "one\nline\tonly"},
	}}, now)
	want := `GROUP  SERVER       STATE  FOR    REQUESTS  FAILURES  CONNECTIONS  WAITING  LAST FAILURE
app    10.0.0.1:80  down   1m30s  12        5         0            0        connection refused
-      h:81         up     -      3         0         2            1        one�line only
`
	if err != nil || b.String() != want {
		t.Errorf("got %v\n%s\nwant\n%s", err, b.String(), want)
	}
}
