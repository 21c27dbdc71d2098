package freshness

import (
	"trafficd/roles/server/header"
	"trafficd/roles/server/http1"
)

// parseTargeted reads CDN-Cache-Control (RFC 9213): a Structured Fields dictionary, whose
// directives mean what they mean in Cache-Control. False: it is empty, no dictionary,
// or a directive that is known has a value of another type than it takes; then the field
// is as if it were not there (RFC 9213 §2.1).
//
// The field is forwarded like any other: caches nearer to the client may be of the
// same network (RFC 9213 §3.1).
func parseTargeted(s *http1.FieldSet, head []byte) (Control, bool) {
	c := newControl()
	c.Targeted = true
	seen := false
	for i := range s.Fields {
		f := &s.Fields[i]
		if f.ID != header.CDNCacheControl {
			continue
		}
		d := header.DictionaryMembers(f.Value.In(head))
		for d.Next() {
			seen = true
			if !c.member(&d) {
				return c, false
			}
		}
		if d.Malformed() {
			return c, false
		}
	}
	return c, seen
}

// member takes one directive. False: its value is of the wrong type. Members that are not
// known are ignored, and so is a repetition's order: the strictest meaning counts, as
// in Cache-Control.
func (c *Control) member(d *header.Dictionary) bool {
	id := header.LookupDirective(d.Key)
	switch id {
	case header.UnknownDirective:
	case header.MaxAge, header.SMaxAge, header.StaleWhileRevalidate, header.StaleIfError:
		if d.Kind != header.Integer {
			return false
		}
		n, ok := header.ParseDelta(d.Value) // not if it is negative
		c.seconds(id, n, ok)
	case header.NoCache, header.Private:
		names := d.Kind == header.String || d.Kind == header.Token
		if !names && d.Kind != header.Boolean {
			return false
		}
		if names || d.True() {
			c.directive(id, &header.DirectiveCursor{HasValue: names, Value: d.Value})
		}
	default:
		if d.Kind != header.Boolean {
			return false
		}
		if d.True() {
			c.directive(id, &header.DirectiveCursor{})
		}
	}
	return true
}

// maxNamed is more than the fields that no-cache and private may name: each field of the response is held against all of them.
const maxNamed = 64

// readNames notes which fields the response's control names in no-cache or private, once for all of its
// fields. What names too many holds for the whole response.
func (x *Exchange) readNames() {
	c := &x.control
	x.names = nil
	if !c.NoCacheFields && !c.PrivateFields {
		return
	}
	for i := range x.Response.Fields {
		f := &x.Response.Fields[i]
		v := f.Value.In(x.ResponseHead)
		switch {
		case f.ID == header.CacheControl && !c.Targeted:
			for d := header.Directives(v); d.Next(); {
				if d.HasValue {
					x.addNames(header.LookupDirective(d.Name), d.Value)
				}
			}
		case f.ID == header.CDNCacheControl && c.Targeted:
			for d := header.DictionaryMembers(v); d.Next(); {
				if d.Kind != header.Boolean {
					x.addNames(header.LookupDirective(d.Key), d.Value)
				}
			}
		}
	}
	if len(x.names) == maxNamed {
		c.NoCache = c.NoCache || c.NoCacheFields
		c.Private = c.Private || c.PrivateFields
	}
}

func (x *Exchange) addNames(id header.Directive, list []byte) {
	if id != header.NoCache && id != header.Private {
		return
	}
	l := header.Members(list)
	for m, ok := l.Next(); ok && len(x.names) < maxNamed; m, ok = l.Next() {
		x.names = append(x.names, m)
	}
}

// named reports whether the response's control names a field in no-cache or private: it
// is not stored then (§5.2.2.4, §5.2.2.7; what is not stored cannot be used again
// unasked).
func (x *Exchange) named(name []byte) bool {
	for _, n := range x.names {
		if header.EqualFoldBytes(n, name) {
			return true
		}
	}
	return false
}
