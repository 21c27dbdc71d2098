package header

import (
	"bytes"
	"encoding/binary"
)

// ID is a field name that the engine knows. The numbers are private to one
// build: never store them where another build may read them.
type ID uint8

// The known fields. Those that decide about framing and routing come first.
const (
	Unknown ID = iota
	Host
	Connection
	ContentLength
	TransferEncoding
	Expect
	Upgrade
	KeepAlive
	ProxyConnection
	TE
	Trailer
	ProxyAuthenticate
	ProxyAuthorization
	Accept
	AcceptCharset
	AcceptEncoding
	AcceptLanguage
	AcceptRanges
	Age
	Allow
	AltSvc
	AuthenticationInfo
	Authorization
	CacheControl
	CacheStatus
	CacheTag
	CDNCacheControl
	CFConnectingIP
	ClientIP
	ContentDisposition
	ContentEncoding
	ContentLanguage
	ContentLocation
	ContentRange
	ContentSecurityPolicy
	ContentType
	Cookie
	Date
	ETag
	Expires
	FastlyClientIP
	Forwarded
	ForwardedHost
	ForwardedProto
	FrontEndHTTPS
	HTTP2Settings
	IfMatch
	IfModifiedSince
	IfNoneMatch
	IfRange
	IfUnmodifiedSince
	LastModified
	Link
	Location
	MaxForwards
	Origin
	Pragma
	Proxy
	ProxyAuthenticationInfo
	ProxyClientIP
	Range
	Referer
	RetryAfter
	Server
	SetCookie
	StrictTransportSecurity
	SurrogateControl
	SurrogateKey
	TrueClientIP
	UpgradeInsecureRequests
	UserAgent
	Vary
	Via
	Warning
	WLProxyClientIP
	WWWAuthenticate
	XClientIP
	XClusterClientIP
	XEnvoyOriginalPath
	XForwarded
	XForwardedFor
	XForwardedHost
	XForwardedHTTPS
	XForwardedMethod
	XForwardedPath
	XForwardedPort
	XForwardedPrefix
	XForwardedProto
	XForwardedProtocol
	XForwardedScheme
	XForwardedServer
	XForwardedSSL
	XForwardedURI
	XForwardedURL
	XHost
	XHostOverride
	XHTTPHostOverride
	XHTTPMethod
	XHTTPMethodOverride
	XMethodOverride
	XOriginalHost
	XOriginalMethod
	XOriginalPath
	XOriginalURI
	XOriginalURL
	XOriginatingIP
	XRealIP
	XRemoteAddr
	XRewriteURI
	XRewriteURL
	XScheme
	XScriptName
	XURLScheme
	XWapProfile
	// NumIDs is one more than the highest ID: the length of a table indexed by ID.
	NumIDs
)

var names = [NumIDs]string{
	Unknown:                 "",
	Host:                    "Host",
	Connection:              "Connection",
	ContentLength:           "Content-Length",
	TransferEncoding:        "Transfer-Encoding",
	Expect:                  "Expect",
	Upgrade:                 "Upgrade",
	KeepAlive:               "Keep-Alive",
	ProxyConnection:         "Proxy-Connection",
	TE:                      "TE",
	Trailer:                 "Trailer",
	ProxyAuthenticate:       "Proxy-Authenticate",
	ProxyAuthorization:      "Proxy-Authorization",
	Accept:                  "Accept",
	AcceptCharset:           "Accept-Charset",
	AcceptEncoding:          "Accept-Encoding",
	AcceptLanguage:          "Accept-Language",
	AcceptRanges:            "Accept-Ranges",
	Age:                     "Age",
	Allow:                   "Allow",
	AltSvc:                  "Alt-Svc",
	AuthenticationInfo:      "Authentication-Info",
	Authorization:           "Authorization",
	CacheControl:            "Cache-Control",
	CacheStatus:             "Cache-Status",
	CacheTag:                "Cache-Tag",
	CDNCacheControl:         "CDN-Cache-Control",
	CFConnectingIP:          "CF-Connecting-IP",
	ClientIP:                "Client-IP",
	ContentDisposition:      "Content-Disposition",
	ContentEncoding:         "Content-Encoding",
	ContentLanguage:         "Content-Language",
	ContentLocation:         "Content-Location",
	ContentRange:            "Content-Range",
	ContentSecurityPolicy:   "Content-Security-Policy",
	ContentType:             "Content-Type",
	Cookie:                  "Cookie",
	Date:                    "Date",
	ETag:                    "ETag",
	Expires:                 "Expires",
	FastlyClientIP:          "Fastly-Client-IP",
	Forwarded:               "Forwarded",
	ForwardedHost:           "Forwarded-Host",
	ForwardedProto:          "Forwarded-Proto",
	FrontEndHTTPS:           "Front-End-Https",
	HTTP2Settings:           "HTTP2-Settings",
	IfMatch:                 "If-Match",
	IfModifiedSince:         "If-Modified-Since",
	IfNoneMatch:             "If-None-Match",
	IfRange:                 "If-Range",
	IfUnmodifiedSince:       "If-Unmodified-Since",
	LastModified:            "Last-Modified",
	Link:                    "Link",
	Location:                "Location",
	MaxForwards:             "Max-Forwards",
	Origin:                  "Origin",
	Pragma:                  "Pragma",
	Proxy:                   "Proxy",
	ProxyAuthenticationInfo: "Proxy-Authentication-Info",
	ProxyClientIP:           "Proxy-Client-IP",
	Range:                   "Range",
	Referer:                 "Referer",
	RetryAfter:              "Retry-After",
	Server:                  "Server",
	SetCookie:               "Set-Cookie",
	StrictTransportSecurity: "Strict-Transport-Security",
	SurrogateControl:        "Surrogate-Control",
	SurrogateKey:            "Surrogate-Key",
	TrueClientIP:            "True-Client-IP",
	UpgradeInsecureRequests: "Upgrade-Insecure-Requests",
	UserAgent:               "User-Agent",
	Vary:                    "Vary",
	Via:                     "Via",
	Warning:                 "Warning",
	WLProxyClientIP:         "WL-Proxy-Client-IP",
	WWWAuthenticate:         "WWW-Authenticate",
	XClientIP:               "X-Client-IP",
	XClusterClientIP:        "X-Cluster-Client-IP",
	XEnvoyOriginalPath:      "X-Envoy-Original-Path",
	XForwarded:              "X-Forwarded",
	XForwardedFor:           "X-Forwarded-For",
	XForwardedHost:          "X-Forwarded-Host",
	XForwardedHTTPS:         "X-Forwarded-Https",
	XForwardedMethod:        "X-Forwarded-Method",
	XForwardedPath:          "X-Forwarded-Path",
	XForwardedPort:          "X-Forwarded-Port",
	XForwardedPrefix:        "X-Forwarded-Prefix",
	XForwardedProto:         "X-Forwarded-Proto",
	XForwardedProtocol:      "X-Forwarded-Protocol",
	XForwardedScheme:        "X-Forwarded-Scheme",
	XForwardedServer:        "X-Forwarded-Server",
	XForwardedSSL:           "X-Forwarded-Ssl",
	XForwardedURI:           "X-Forwarded-Uri",
	XForwardedURL:           "X-Forwarded-Url",
	XHost:                   "X-Host",
	XHostOverride:           "X-Host-Override",
	XHTTPHostOverride:       "X-HTTP-Host-Override",
	XHTTPMethod:             "X-HTTP-Method",
	XHTTPMethodOverride:     "X-HTTP-Method-Override",
	XMethodOverride:         "X-Method-Override",
	XOriginalHost:           "X-Original-Host",
	XOriginalMethod:         "X-Original-Method",
	XOriginalPath:           "X-Original-Path",
	XOriginalURI:            "X-Original-Uri",
	XOriginalURL:            "X-Original-URL",
	XOriginatingIP:          "X-Originating-IP",
	XRealIP:                 "X-Real-IP",
	XRemoteAddr:             "X-Remote-Addr",
	XRewriteURI:             "X-Rewrite-Uri",
	XRewriteURL:             "X-Rewrite-URL",
	XScheme:                 "X-Scheme",
	XScriptName:             "X-Script-Name",
	XURLScheme:              "X-Url-Scheme",
	XWapProfile:             "X-Wap-Profile",
}

// String returns the canonical spelling, "" for Unknown.
func (id ID) String() string {
	if id >= NumIDs {
		return ""
	}
	return names[id]
}

// Lookup is a perfect hash: slot() maps each known name to its own slot, and the
// one candidate there is compared eight bytes at a time.

const (
	maxName  = 32 // no known name is longer
	numSlots = 512

	hashFirst = 0xd10bac73
	hashLast  = 0x3d1fc8a1
	hashMid   = 0x396ecd9f
	hashLen   = 0x452534c3
)

// candidate is a known name in the form in which it is compared. A name of at
// least eight bytes is covered by words at offsets 0, 8, 16 and by one that
// ends at its end; a shorter one is compared byte by byte.
type candidate struct {
	id     ID
	length uint8
	// mask has 0x20 where the name has a letter, so that (input | mask) == word
	// holds for either case of a letter and for the exact byte elsewhere.
	word, mask [maxName / 8]uint64
}

// slots is immutable after init.
var slots = makeSlots()

// slot hashes length and three bytes. The constants were searched for;
// makeSlots panics when a new name makes two collide, then search again.
func slot(b []byte) int {
	n := len(b)
	h := uint32(b[0]|0x20)*hashFirst + uint32(b[n-1]|0x20)*hashLast + uint32(b[n*7>>3]|0x20)*hashMid + uint32(n)*hashLen
	return int(h>>16) & (numSlots - 1)
}

// wordAt returns the offset of the i-th word of a name of n >= 8 bytes.
func wordAt(i, n int) int { return min(i*8, n-8) }

func makeSlots() (t [numSlots]candidate) {
	for id := ID(1); id < NumIDs; id++ {
		name := []byte(names[id])
		c := &t[slot(name)]
		if c.id != Unknown || len(name) > maxName {
			panic("header: " + names[id] + " does not fit the table of names")
		}
		c.id, c.length = id, uint8(len(name))
		var text, mask [maxName]byte
		for i, b := range name {
			text[i] = lower[b]
			if lower[b] >= 'a' && lower[b] <= 'z' {
				mask[i] = 0x20
			}
		}
		if len(name) < 8 {
			c.word[0] = binary.LittleEndian.Uint64(text[:])
			c.mask[0] = binary.LittleEndian.Uint64(mask[:])
			continue
		}
		for i := 0; i*8 < len(name); i++ {
			at := wordAt(i, len(name))
			c.word[i] = binary.LittleEndian.Uint64(text[at:])
			c.mask[i] = binary.LittleEndian.Uint64(mask[at:])
		}
	}
	return t
}

// Lookup returns the ID of a field name, without regard to case, or Unknown.
func Lookup(name []byte) ID {
	n := len(name)
	if n < 2 || n > maxName {
		return Unknown
	}
	c := &slots[slot(name)]
	if int(c.length) != n {
		return Unknown
	}
	if n < 8 {
		var w uint64
		for i, b := range name {
			w |= uint64(b) << (i * 8)
		}
		if w|c.mask[0] != c.word[0] {
			return Unknown
		}
		return c.id
	}
	for i, at := 0, 0; ; i, at = i+1, at+8 {
		if at+8 >= n {
			if binary.LittleEndian.Uint64(name[n-8:])|c.mask[i&3] != c.word[i&3] {
				return Unknown
			}
			return c.id
		}
		if binary.LittleEndian.Uint64(name[at:])|c.mask[i&3] != c.word[i&3] {
			return Unknown
		}
	}
}

// Set is a set of IDs. The zero value is empty.
type Set [(NumIDs + 63) / 64]uint64

// SetOf returns the set of the given IDs.
func SetOf(ids ...ID) (s Set) {
	for _, id := range ids {
		s.Add(id)
	}
	return s
}

// Add puts id into s.
func (s *Set) Add(id ID) { s[(id>>6)%ID(len(s))] |= 1 << (id & 63) }

// Has reports whether id is in s.
func (s *Set) Has(id ID) bool { return s[(id>>6)%ID(len(s))]>>(id&63)&1 != 0 }

// with returns what is in s or in one of the others.
func (s Set) with(others ...Set) Set {
	for _, o := range others {
		for i := range s {
			s[i] |= o[i]
		}
	}
	return s
}

// Meets reports whether s and other have an ID in common.
func (s *Set) Meets(other *Set) bool {
	var common uint64
	for i := range s {
		common |= s[i] & other[i]
	}
	return common != 0
}

var hopByHop = SetOf(Connection, KeepAlive, ProxyConnection, TE, Trailer, TransferEncoding,
	Upgrade, ProxyAuthenticate, ProxyAuthorization, HTTP2Settings)

// LookupDashed returns the ID of what a name with underscores becomes when they are read as
// hyphens, as CGI-like origins read them (RFC 3875 §4.1.18); Unknown for a name without any.
func LookupDashed(name []byte) ID {
	if len(name) > maxName || bytes.IndexByte(name, '_') < 0 {
		return Unknown
	}
	var b [maxName]byte
	for i, c := range name {
		if c == '_' {
			c = '-'
		}
		b[i] = c
	}
	return Lookup(b[:len(name)])
}

// HopByHop reports whether a field is meant for this connection only and is
// never forwarded as received (RFC 9110 §7.6.1; Proxy-Authenticate and
// Proxy-Authorization by RFC 9110 §11.7 for a proxy that does not chain
// authentication; HTTP2-Settings by RFC 7540 §3.2.1).
func HopByHop(id ID) bool { return hopByHop.Has(id) }

// forbiddenTrailer: framing, routing, modifiers, authentication, response
// control, and how to process the content.
var forbiddenTrailer = SetOf(Host, Connection, ContentLength, TransferEncoding, Expect, Upgrade, KeepAlive,
	ProxyConnection, TE, Trailer, ProxyAuthenticate, ProxyAuthorization, HTTP2Settings,
	CacheControl, CDNCacheControl, SurrogateControl, MaxForwards, Pragma, Range,
	IfMatch, IfModifiedSince, IfNoneMatch, IfRange, IfUnmodifiedSince,
	Authorization, WWWAuthenticate, AuthenticationInfo, ProxyAuthenticationInfo, Cookie, SetCookie,
	Age, Date, Expires, Location, RetryAfter, Vary, Warning, Allow,
	ContentEncoding, ContentType, ContentRange, ContentLocation, ContentLanguage, ContentDisposition,
	XForwardedFor, Proxy, Via).with(OtherTarget, OtherMethod, Reached, ClientAddress)

// TrailerForbidden reports whether a field may not stand in a trailer section
// (RFC 9110 §6.5.1): it would have to be known before the content.
func TrailerForbidden(id ID) bool { return forbiddenTrailer.Has(id) }
