package ctl

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"trafficd/roles/internal/control"
	"trafficd/roles/internal/exitcode"
)

func cacheCommand(s *session) *cobra.Command {
	c := &cobra.Command{
		Use: "cache", Short: "What is in the cache, and how to get it out", Args: usage(cobra.NoArgs),
		RunE: missing,
	}
	c.AddCommand(cacheStatCommand(s), cacheLookupCommand(s), cachePurgeCommand(s))
	return c
}

func cacheStatCommand(s *session) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "stat",
		Short: "Show how full the cache is, how often it had the answer, and what it evicts",
		Args:  usage(cobra.NoArgs),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	c.RunE = s.run(func([]string) error {
		a, err := s.client.CacheStats(s.ctx)
		if err != nil {
			return err
		}
		if asJSON {
			return s.json(a)
		}
		return writeCacheStats(s.out, a)
	})
	return c
}

func cacheLookupCommand(s *session) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "lookup URL",
		Short: "Show what is stored for a URL: every alternate, its age, size, tier and tags",
		Long: "Show what is stored for a URL: every alternate, its age, size, tier and tags.\n\n" +
			"URL is http://host[:port]/path[?query], with the host that clients ask for. The exit\n" +
			"code is 1 if nothing is stored. A look does not count as a hit.",
		Args: usage(oneURL),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	c.RunE = s.run(func(args []string) error {
		a, err := s.client.CacheLookup(s.ctx, args[0])
		if err != nil {
			return err
		}
		if asJSON {
			err = s.json(a)
		} else {
			err = writeStored(s.out, a)
		}
		if err == nil && len(a.Alternates) == 0 && !a.Disk {
			err = exitcode.Errorf(exitcode.Failed, "nothing is stored for %s", args[0])
		}
		return err
	})
	return c
}

func cachePurgeCommand(s *session) *cobra.Command {
	var asJSON bool
	var p control.CachePurge
	c := &cobra.Command{
		Use:   "purge [--soft] URL | --prefix URL | --tag TAG...",
		Short: "Remove responses from the cache: of a URL, below a prefix, or by their tags",
		Long: "Remove responses from the cache, in memory and on disk: all alternates of a URL, what\n" +
			"begins with a URL, or what is tagged (Surrogate-Key, Cache-Tag) with any of the tags.\n" +
			"A URL without a query that ends in * means what begins with the rest of it, as in a\n" +
			"PURGE request; in a query a * is a *, and --prefix means what begins so.\n" +
			"With --soft they stay and are stale: the next request validates them. What is on disk\n" +
			"only is removed all the same.\n\n" +
			"When the command returns they are gone, and no request under way puts them back.\n" +
			"That none was found is no failure.",
		Args: usage(func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return oneURL(c, args)
			}
			return nil
		}),
	}
	c.Flags().StringVar(&p.Prefix, "prefix", "", "whatever begins with this URL")
	c.Flags().StringArrayVar(&p.Tags, "tag", nil, "whatever has this tag; may be repeated")
	c.Flags().BoolVar(&p.Soft, "soft", false, "mark it stale instead, where it is in memory")
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	c.RunE = s.run(func(args []string) error {
		p.URL = strings.Join(args, "")
		if n := ways(p); n != 1 {
			return exitcode.Errorf(exitcode.Usage, "what is to be purged? one of: a URL, --prefix URL, --tag TAG (%d are given)", n)
		}
		starred(&p)
		a, err := s.client.CachePurge(s.ctx, p)
		if err != nil {
			return err
		}
		if asJSON {
			return s.json(a)
		}
		_, err = fmt.Fprintln(s.out, purgedText(a))
		return err
	})
	return c
}

// oneURL checks that there is one.
func oneURL(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("one URL is needed, such as http://host/path (%d are given)", len(args))
	}
	return nil
}

// starred makes a prefix of a URL with a * at its end, as a PURGE request does: not of one with a query. The server
// knows that the * is no part of the prefix.
func starred(p *control.CachePurge) {
	if strings.HasSuffix(p.URL, "*") && !strings.Contains(p.URL, "?") {
		p.URL, p.Prefix = "", p.URL
	}
}

// purgedText is what has become of the responses. On disk nothing can be marked stale.
func purgedText(a *control.CachePurged) string {
	n, what, rest := a.Purged, "purged", "of them on disk only"
	if a.Soft {
		n, what, rest = a.Memory, "marked stale", "on disk only removed"
	}
	text := fmt.Sprintf("%d %s %s", n, plural(n, "response"), what)
	if a.Disk > 0 {
		text += fmt.Sprintf(", %d %s", a.Disk, rest)
	}
	return text
}

// ways counts by what a purge goes.
func ways(p control.CachePurge) (n int) {
	for _, given := range []bool{p.URL != "", p.Prefix != "", len(p.Tags) > 0} {
		if given {
			n++
		}
	}
	return n
}

func plural(n int, noun string) string {
	if n == 1 {
		return noun
	}
	return noun + "s"
}

// writeCacheStats is the state of the cache for people.
func writeCacheStats(w io.Writer, s *control.CacheStats) error {
	m := &s.Memory
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "hit ratio\t%.1f %%\t(%d hits, %d misses, %d stale)\n", 100*s.HitRatio, s.Hits, s.Misses, s.Stale)
	fmt.Fprintf(t, "memory\t%s of %s\t(%d objects; %s protected from scans)\n", size(m.Bytes), size(m.Capacity), m.Objects, size(m.Protected))
	fmt.Fprintf(t, "  stored\t%d\t(%d updated, %d removed, %d not for want of space)\n", m.Stored, m.Updated, m.Removed, m.NoSpace)
	fmt.Fprintf(t, "  evictions\t%d of %d segments\t(%d hot objects kept, %d lost; %d came back; %d displaced)\n",
		m.Evictions, m.Segments, m.Kept, m.Lost, m.Returned, m.Displaced)
	switch d := s.Disk; {
	case d == nil:
		fmt.Fprint(t, "disk\tnone\n")
	case d.Trouble != nil && d.Trouble.Off:
		fmt.Fprintf(t, "disk\toff since %s: %s\n", d.Trouble.Since.Local().Format(time.DateTime), plain(d.Trouble.Reason))
	default:
		fmt.Fprintf(t, "disk\t%d objects\t(%d hits, %d misses, %d reads, %d writes, %d errors)\n", d.Objects, d.Hits, d.Misses, d.Reads, d.Writes, d.Errors)
		if d.Trouble != nil {
			fmt.Fprintf(t, "  failing\tsince %s: %s\n", d.Trouble.Since.Local().Format(time.DateTime), plain(d.Trouble.Reason))
		}
	}
	return t.Flush()
}

// writeStored is what is stored for a URL, for people.
func writeStored(w io.Writer, s *control.CacheStored) error {
	fmt.Fprintln(w, plain(s.URI))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(s.Alternates) > 0 {
		fmt.Fprintln(t, "STATUS\tSIZE\tAGE\tLIFETIME\tSTATE\tTIER\tPROTECTED\tVARY\tTAGS")
	}
	for _, a := range s.Alternates {
		state := "stale"
		switch {
		case a.Fresh:
			state = "fresh"
		case a.Soft:
			state = "stale (purged)"
		}
		length := size(a.Size)
		if a.Part != "" {
			length += " (bytes " + a.Part + ")"
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%v\t%s\t%s\n", a.Status, length, span(a.Age), span(a.Lifetime), state, a.Tier, yes(a.Kept),
			plain(dash(strings.Join(a.Vary, "; "))), plain(dash(strings.Join(a.Tags, " "))))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if s.Disk {
		fmt.Fprintln(w, "something is on disk that is not in memory")
	}
	return nil
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func span(seconds float64) string { return (time.Duration(seconds) * time.Second).String() }

// size is a number of bytes, rounded.
func size(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f /= 1024
		i++
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}
