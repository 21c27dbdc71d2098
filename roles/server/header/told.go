package header

// What proxies tell origins about a request in fields of their own, and so can anybody who sends one. The sets are immutable.
var (
	// OtherTarget are fields that name another target than the request line does.
	OtherTarget = SetOf(XOriginalURL, XRewriteURL)
	// OtherMethod are fields that name another method than the request line does.
	OtherMethod = SetOf(XForwardedMethod, XHTTPMethod, XHTTPMethodOverride, XMethodOverride, XOriginalMethod)
	// Reached are fields that tell how a proxy was reached: by which scheme, host, port and path.
	Reached = SetOf(Forwarded, ForwardedHost, ForwardedProto, FrontEndHTTPS, XEnvoyOriginalPath, XForwarded, XForwardedHost,
		XForwardedHTTPS, XForwardedPath, XForwardedPort, XForwardedPrefix, XForwardedProto, XForwardedProtocol, XForwardedScheme,
		XForwardedServer, XForwardedSSL, XForwardedURI, XForwardedURL, XHost, XHostOverride, XHTTPHostOverride, XOriginalHost,
		XOriginalPath, XOriginalURI, XRewriteURI, XScheme, XScriptName, XURLScheme, XWapProfile)
	// ClientAddress are fields that tell who came, beside X-Forwarded-For.
	ClientAddress = SetOf(CFConnectingIP, ClientIP, FastlyClientIP, ProxyClientIP, TrueClientIP, WLProxyClientIP, XClientIP,
		XClusterClientIP, XOriginatingIP, XRealIP, XRemoteAddr)
)
