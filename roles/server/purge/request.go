package purge

import (
	"bytes"
	"errors"
	"fmt"

	"trafficd/roles/server/header"
	"trafficd/roles/server/http1"
)

// By is what a purge goes by.
type By uint8

// The ways.
const (
	ByURL By = iota
	ByPrefix
	ByTag
)

func (b By) String() string { return [...]string{"url", "prefix", "tag"}[b] }

// A Request is what a PURGE asks for.
type Request struct {
	By   By
	Soft bool
	Tags [][]byte // copies
	// Star: the URL's last byte is "*" and not part of the prefix.
	Star bool
}

// Bounds of one request.
const (
	maxTags = 256
	maxTag  = 1024 // bytes
)

var (
	errTwice    = errors.New("tags and Purge-Prefix exclude each other")
	errNoTag    = errors.New("there is no tag in Surrogate-Key or Cache-Tag")
	errManyTags = fmt.Errorf("more than %d tags", maxTags)
	errLongTag  = fmt.Errorf("a tag of more than %d bytes", maxTag)
)

// Parse reads the fields of a PURGE request for a URL of this path and query. An error says, for the client, what is
// wrong with them.
func Parse(f *http1.FieldSet, head, path, query []byte) (r Request, err error) {
	var prefix, said, tagged bool
	for i := range f.Fields {
		fld := &f.Fields[i]
		name, value := fld.Name.In(head), fld.Value.In(head)
		switch {
		case fld.ID == header.SurrogateKey || fld.ID == header.CacheTag:
			tagged = true
			if err := r.addTags(fld.ID, value); err != nil {
				return r, err
			}
		case header.EqualFold(name, "Purge-Prefix"):
			said = true
			if prefix, err = flag("Purge-Prefix", value); err != nil {
				return r, err
			}
		case header.EqualFold(name, "Soft-Purge") || header.EqualFold(name, "Fastly-Soft-Purge"):
			if r.Soft, err = flag("Soft-Purge", value); err != nil {
				return r, err
			}
		}
	}
	switch {
	case tagged && prefix:
		return r, errTwice
	case tagged && len(r.Tags) == 0:
		return r, errNoTag
	case tagged:
		r.By = ByTag
	case prefix:
		r.By = ByPrefix
	case !said && query == nil && bytes.HasSuffix(path, []byte("*")):
		r.By, r.Star = ByPrefix, true
	}
	return r, nil
}

func (r *Request) addTags(id header.ID, value []byte) (err error) {
	anyTag(id, value, func(tag []byte) bool {
		switch {
		case len(tag) > maxTag:
			err = errLongTag
		case len(r.Tags) == maxTags:
			err = errManyTags
		default:
			r.Tags = append(r.Tags, bytes.Clone(tag))
		}
		return err != nil
	})
	return err
}

// flag reads a yes or no.
func flag(name string, value []byte) (bool, error) {
	switch v := string(bytes.ToLower(value)); v {
	case "1", "true", "yes", "on":
		return true, nil
	case "0", "false", "no", "off":
		return false, nil
	}
	return false, fmt.Errorf("%s is 1 or 0, not %.20q", name, value)
}

// CheckTag tells what is wrong with a tag that did not come in a field; nil: nothing.
func CheckTag(tag string) error {
	switch {
	case tag == "":
		return errors.New("a tag is not empty")
	case len(tag) > maxTag:
		return errLongTag
	case bytes.ContainsAny([]byte(tag), " \t\r\n,"):
		return fmt.Errorf("tag %.100q: a tag has no blank and no comma", tag)
	}
	return nil
}
