package roles

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Who may import whom, each rule with its reason. A pattern ending in /... means
// everything below, too.
var importRules = []struct {
	from   string // packages the rule is about
	forbid string // what they must not import
	except string // unless it is this
	why    string
}{
	{"lockfile/...", "trafficd/...", "", "libraries know nothing of trafficd"},
	{"proc/...", "trafficd/...", "", "libraries know nothing of trafficd"},
	{"queue/...", "trafficd/...", "", "libraries know nothing of trafficd"},
	{"eventloop/...", "trafficd/...", "", "libraries know nothing of trafficd"},
	{"lockfile/...", "github.com/...", "", "whoever imports a library must not inherit our logger or CLI"},
	{"proc/...", "github.com/...", "", "whoever imports a library must not inherit our logger or CLI"},
	{"queue/...", "github.com/...", "", "whoever imports a library must not inherit our logger or CLI"},
	{"eventloop/...", "github.com/...", "", "whoever imports a library must not inherit our logger or CLI"},
	{"roles/internal/...", "github.com/spf13/...", "", "the command line is the affair of roles and ctl"},
	{"roles/cop/...", "trafficd/roles/server/...", "", "the watchdog must not die of what it watches"},
	{"roles/cop/...", "trafficd/roles/manager/...", "", "the watchdog must not die of what it watches"},
	{"roles/cop/...", "net/http", "", "cop links as little as it can"},
	{"roles/cop/...", "os/exec", "", "cop's reaper would take the exit status"},
	{"roles/manager/...", "trafficd/roles/server/...", "", "a parser's bug must not kill the manager"},
	{"roles/manager/...", "trafficd/roles/cop/...", "", "they meet on the link only"},
	{"roles/server/...", "trafficd/roles/manager/...", "", "they meet on the link only"},
	{"roles/server/...", "net/http", "", "the engine is ours"},
	{"roles/ctl/...", "trafficd/roles/manager/...", "", "ctl is a client of the control socket, nothing more"},
	{"roles/internal/...", "trafficd/roles/cop/...", "", "what is shared lies below what shares it"},
	{"roles/internal/...", "trafficd/roles/manager/...", "", "what is shared lies below what shares it"},
	{"roles/internal/...", "trafficd/roles/server/...", "", "what is shared lies below what shares it"},
	{"roles/server/http1/...", "trafficd/...", "trafficd/roles/server/header", "parsing has no sockets and no clock"},
	{"roles/server/header/...", "trafficd/...", "", "parsing has no sockets and no clock"},
	{"roles/server/http1/...", "net", "", "parsing has no sockets and no clock"},
	{"roles/server/http1/...", "os", "", "parsing has no sockets and no clock"},
	{"roles/server/http1/...", "time", "", "parsing has no sockets and no clock"},
	{"roles/server/freshness/...", "time", "", "decisions are functions of times that are passed in"},
	{"roles/server/freshness/...", "net", "", "decisions have no I/O"},
	{"roles/server/remap/...", "net", "", "decisions have no I/O"},
	{"roles/server/cache/...", "trafficd/roles/server/transaction/...", "", "what a transaction uses knows no transaction"},
	{"roles/server/disk/...", "trafficd/roles/server/transaction/...", "", "what a transaction uses knows no transaction"},
	{"roles/server/disk/...", "trafficd/roles/server/http1/...", "", "the disk knows no HTTP"},
	{"roles/server/disk/...", "trafficd/roles/server/freshness/...", "", "the disk knows no HTTP"},
	{"roles/server/cache/...", "trafficd/roles/server/disk/...", "", "memory knows what is below it by an interface only"},
	{"roles/server/origin/...", "trafficd/roles/server/transaction/...", "", "what a transaction uses knows no transaction"},
	{"roles/server/origin/...", "trafficd/roles/server/cache/...", "", "an origin knows no cache"},
	{"roles/server/transaction/...", "trafficd/roles/server/session/...", "", "a transaction knows its client by an interface only"},
}

func TestImportRules(t *testing.T) {
	for pkg, imports := range imports(t) {
		for _, r := range importRules {
			if !covers(r.from, pkg) {
				continue
			}
			for _, imp := range imports {
				own := covers("trafficd/"+r.from, imp)
				if covers(r.forbid, imp) && !own && imp != r.except {
					t.Errorf("%s imports %s: %s", pkg, imp, r.why)
				}
			}
		}
	}
}

func covers(pattern, name string) bool {
	if below, ok := strings.CutSuffix(pattern, "/..."); ok {
		return name == below || strings.HasPrefix(name, below+"/")
	}
	return name == pattern
}

// imports returns what each package of the module imports, tests left out, by
// its folder relative to the module.
func imports(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	root := ".."
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") && d.Name() != ".." {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		pkg := path.Dir(filepath.ToSlash(rel))
		for _, spec := range f.Imports {
			imp, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			found[pkg] = append(found[pkg], imp)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
