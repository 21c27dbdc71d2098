package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestTableIsComplete(t *testing.T) {
	seen, env := map[string]bool{}, map[string]bool{}
	for _, s := range table {
		if s.Name == "" || s.Help == "" || s.field == nil || seen[s.Name] || env[s.EnvName()] {
			t.Errorf("setting %q: no name, help or field, or named twice", s.Name)
		}
		if strings.Count(s.Name, ".") > 1 || strings.HasSuffix(s.Help, ".") || strings.ContainsRune(s.Help, '\n') {
			t.Errorf("setting %q: name or help is not in the form of the others", s.Name)
		}
		if s.Kind == Choice && len(s.Choices) == 0 || s.Kind != Choice && s.Kind != Path && s.Kind != PathOrOff && s.Kind != AddressOrOff && s.Kind != Switch && s.Kind != LineFormat && s.Max == 0 {
			t.Errorf("setting %q has no limits", s.Name)
		}
		if s.Kind == Count && s.Unit == "" {
			t.Errorf("setting %q has no unit", s.Name)
		}
		seen[s.Name], env[s.EnvName()] = true, true
	}
}

// Each setting has a field of its own, named like it, so that the JSON of a Config and the file agree.
func TestFieldsAreNamedLikeSettings(t *testing.T) {
	for _, s := range table {
		c := &Config{}
		reflect.ValueOf(s.field(c)).Elem().Set(sample(s.field(c)))
		b, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		var tree map[string]any
		if err := json.Unmarshal(b, &tree); err != nil {
			t.Fatal(err)
		}
		section, leaf := s.split()
		if section != "" {
			tree = tree[section].(map[string]any)
		}
		if v := reflect.ValueOf(tree[leaf]); !v.IsValid() || v.IsZero() {
			t.Errorf("%s is not %q in JSON: %s", s.Name, leaf, b)
		}
	}
}

func sample(p any) reflect.Value {
	switch p.(type) {
	case *[]string:
		return reflect.ValueOf([]string{"x"})
	case *[]Mapping:
		return reflect.ValueOf([]Mapping{{Prefix: "/"}})
	case *[]OriginGroup:
		return reflect.ValueOf([]OriginGroup{{Name: "x"}})
	case *string:
		return reflect.ValueOf("x")
	case *[]netip.Prefix:
		return reflect.ValueOf([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")})
	case *[]Ports:
		return reflect.ValueOf([]Ports{{First: 80, Last: 80}})
	case *bool:
		return reflect.ValueOf(true)
	}
	return reflect.ValueOf(7).Convert(reflect.TypeOf(p).Elem())
}

// A switch is true or false, in the file without quotes, and nothing that YAML dialects disagree on.
func TestSwitch(t *testing.T) {
	load := func(file, flag string) (*Config, error) {
		return Load(Sources{Flags: Overrides{Config: "trafficd.yaml", Custody: flag}, Data: []byte(file)})
	}
	for _, tt := range []struct {
		file, flag string
		want       bool
	}{{"", "", true}, {"custody: {enabled: false}\n", "", false}, {"custody: {enabled: false}\n", "true", true}, {"", "false", false}} {
		c, err := load(tt.file, tt.flag)
		if err != nil || c.Custody.Enabled != tt.want {
			t.Errorf("%q, --custody=%s: %v, %v", tt.file, tt.flag, c, err)
		}
		if err == nil && c.Value("custody.enabled") != fmt.Sprint(tt.want) {
			t.Errorf("value is written %q", c.Value("custody.enabled"))
		}
	}
	for _, file := range []string{"custody: {enabled: yes}\n", "custody: {enabled: 1}\n", "custody: {enabled: 'true'}\n"} {
		if _, err := load(file, ""); err == nil {
			t.Errorf("%q is taken", file)
		}
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "123": 123, "5B": 5, "64KiB": 65536, "1MB": 1e6, "1 MiB": 1 << 20, "2TiB": 2 << 40, "1kB": 1000} {
		if got, err := ParseSize(text); got != want || err != nil {
			t.Errorf("ParseSize(%q) = %d, %v, want %d", text, got, err, want)
		}
		if got, err := ParseSize(FormatSize(want)); got != want || err != nil {
			t.Errorf("ParseSize(FormatSize(%d)) = %d, %v", want, got, err)
		}
	}
	for _, text := range []string{"", "-1", "+1", "1.5MiB", "1K", "MiB", "0x10", "1 2", "9223372036854775808", "9007199254740993KiB", "1mib"} {
		if n, err := ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q) = %d, want an error", text, n)
		}
	}
}

func TestAddressesOverlap(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"127.0.0.1:1", "127.0.0.1:1", true}, {"127.0.0.1:1", "127.0.0.1:2", false}, {"127.0.0.1:1", "127.0.0.2:1", false},
		{":1", "127.0.0.1:1", true}, {":1", "[::1]:1", true}, {"0.0.0.0:1", "127.0.0.1:1", true}, {"0.0.0.0:1", "[::1]:1", false},
		{"[::]:1", "[::1]:1", true}, {"[::]:1", "0.0.0.0:1", false}, {"127.0.0.1:0", "127.0.0.2:0", false},
	} {
		if overlap(tt.a, tt.b) != tt.want || overlap(tt.b, tt.a) != tt.want {
			t.Errorf("overlap(%s, %s) is not %t", tt.a, tt.b, tt.want)
		}
	}
}

func TestDiff(t *testing.T) {
	a := Default()
	b, err := load("threads: 3\nqueue: {limit: 9}\nhealth: {interval: 2000ms}\n")
	if err != nil {
		t.Fatal(err)
	}
	got := Diff(a, b)
	want := []Change{{Name: "threads", Old: "0", New: "3"}, {Name: "queue.limit", Old: "1024", New: "9", Reloadable: true}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("Diff = %+v, want %+v", got, want)
	}
	if r := NeedRestart(got); len(r) != 1 || r[0].Name != "threads" {
		t.Errorf("NeedRestart = %+v", r)
	}
}

func TestPublishedFormIsReadBack(t *testing.T) {
	c, err := load("map: [{prefix: '/a=http://b', origin: 'http://c'}]\ncache: {size: 0}\n")
	if err != nil {
		t.Fatal(err)
	}
	c = c.WithGeneration(7)
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(b)
	if err != nil || !reflect.DeepEqual(got, c) {
		t.Errorf("Decode = %+v, %v, want %+v", got, err, c)
	}
	for _, bad := range []string{"", "{}", strings.Replace(string(b), `"threads":0`, `"threads":-1`, 1), strings.Replace(string(b), `"threads"`, `"thread"`, 1)} {
		if _, err := Decode([]byte(bad)); err == nil {
			t.Errorf("Decode(%.60q) accepted it", bad)
		}
	}
}

func TestLastGood(t *testing.T) {
	path := filepath.Join(t.TempDir(), "last-good.yaml")
	if _, err := LoadLastGood(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("LoadLastGood of nothing: %v", err)
	}
	for g := uint64(1); g <= 2; g++ {
		c, err := load("threads: 3\n")
		if err != nil {
			t.Fatal(err)
		}
		c = c.WithGeneration(g)
		if err := SaveLastGood(path, c, "v1"); err != nil {
			t.Fatal(err)
		}
		got, err := LoadLastGood(path)
		if err != nil || !reflect.DeepEqual(got.Config, c) || got.Version != "v1" || got.Saved.IsZero() {
			t.Fatalf("LoadLastGood = %+v, %v", got, err)
		}
	}
	entries, _ := os.ReadDir(filepath.Dir(path))
	if len(entries) != 1 {
		t.Errorf("directory has %v, want the one file", entries)
	}
	for _, tt := range []struct{ text, want string }{
		{`{"format":2,"config":{}}`, "has format 2"},
		{`{"format":1,"config":null}`, "has no configuration"},
		{`{"format":1,"config":{"threads":-4}}`, "threads: must be"},
		{`{"format":1,"con`, "unexpected end"},
	} {
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadLastGood(path); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("LoadLastGood(%s) = %v, want %s", tt.text, err, tt.want)
		}
	}
	// Another version knew another setting, and did not know some of ours.
	if err := os.WriteFile(path, []byte(`{"format":1,"config":{"generation":4,"threads":5,"warp":9}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	g, err := LoadLastGood(path)
	if err != nil || g.Config.Threads != 5 || g.Config.Queue.Limit != 1024 || g.Config.Generation != 4 {
		t.Errorf("LoadLastGood = %+v, %v", g, err)
	}
}

func FuzzLastGood(f *testing.F) {
	b, _ := json.Marshal(LastGood{Format: lastGoodFormat, Config: Default()})
	f.Add(b)
	f.Add([]byte(`{"format":1,"config":null}`))
	f.Add([]byte(`{"format":1,"config":{"map":[{"prefix":"/"}],"listen":null}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if g, err := decodeLastGood(data); err == nil && g.Config.Check() != nil {
			t.Fatal("accepted what Check refuses")
		}
		if c, err := Decode(data); err == nil && c.Check() != nil {
			t.Fatal("decoded what Check refuses")
		}
	})
}

func TestEffectiveIsAConfigurationFile(t *testing.T) {
	c, err := load("threads: 3\nmap: [{prefix: /, origin: 'http://h:1/p'}]\nautoconf: {listen: off}\n")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := c.Effective(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"threads: 3 # file trafficd.yaml:1:10\n", "  limit: 1024 # default\n", "queue:\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("Effective has no %q:\n%s", want, b.String())
		}
	}
	again, err := load(b.String())
	if err != nil {
		t.Fatalf("%v in\n%s", err, b.String())
	}
	if d := Diff(c, again); len(d) != 0 {
		t.Errorf("read back, it differs: %v", d)
	}
}

func TestDescribe(t *testing.T) {
	var all bytes.Buffer
	if err := Describe(&all); err != nil {
		t.Fatal(err)
	}
	for _, s := range table {
		if !strings.Contains(all.String(), s.Name+"\n") {
			t.Errorf("%s is not described", s.Name)
		}
	}
	var groups bytes.Buffer
	if err := Describe(&groups, "origins"); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"path", "host", "interval", "timeout", "expect", "rise", "fall"} {
		if !strings.Contains(groups.String(), "\n      "+key+" ") {
			t.Errorf("the key %s of health is not described in\n%s", key, groups.String())
		}
	}
	var one bytes.Buffer
	if err := Describe(&one, "cache.size"); err != nil {
		t.Fatal(err)
	}
	want := `cache.size
    memory for stored responses; not more than the machine and the control group have
    type:     size
    values:   2MiB to 16TiB, or 0: no cache
    default:  256MiB
    changed:  by restart
    variable: TRAFFICD_CACHE_SIZE
`
	if one.String() != want {
		t.Errorf("Describe = %s, want %s", one.String(), want)
	}
	if err := Describe(&one, "cache.sise"); err == nil || err.Error() != `no setting "cache.sise" (did you mean "cache.size"?)` {
		t.Errorf("Describe of a slip: %v", err)
	}
}
