package ctl

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"trafficd/roles/internal/control"
)

func originsCommand(s *session) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "origins",
		Short: "Show the servers of origins: which are up, what they get, and why one is down",
		Long: `Show the servers of origins, those of groups first.

STATE is up; down (requests failed in a row; it gets none while others are up); probing (it was down, and a
request finds out); or sick (its health checks fail; it gets no request). The numbers are those of the server
process that serves now.`,
		Args: usage(cobra.NoArgs),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	c.RunE = s.run(func([]string) error {
		o, err := s.client.Origins(s.ctx)
		if err != nil {
			return err
		}
		if asJSON {
			return s.json(o)
		}
		return writeOrigins(s.out, o, time.Now())
	})
	return c
}

// writeOrigins is the list for people.
func writeOrigins(w io.Writer, o *control.Origins, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "GROUP\tSERVER\tSTATE\tFOR\tREQUESTS\tFAILURES\tCONNECTIONS\tWAITING\tLAST FAILURE")
	for _, s := range o.Servers {
		group, since, why := s.Group, "-", plain(s.Why)
		if group == "" {
			group = "-"
		}
		if !s.Since.IsZero() {
			since = max(0, now.Sub(s.Since)).Round(time.Second).String()
		}
		if why == "" {
			why = "-"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%s\n", group, s.Server, s.State, since, s.Requests, s.Failures, s.Connections, s.Waiting, why)
	}
	return t.Flush()
}
