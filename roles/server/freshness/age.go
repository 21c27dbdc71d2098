package freshness

import (
	"trafficd/roles/server/cache"
	"trafficd/roles/server/header"
)

const second = int64(1e9)

// seconds converts delta-seconds, at most header.MaxDelta, to nanoseconds; the sum
// of three of them does not overflow.
func seconds(n int64) int64 { return min(n, header.MaxDelta) * second }

// floorSeconds converts nanoseconds to whole seconds, downwards.
func floorSeconds(ns int64) int64 {
	if ns < 0 {
		return -((-ns + second - 1) / second)
	}
	return ns / second
}

// date is date_value of §4.2.3: the Date, or the time of arrival where there is
// none that can be read (RFC 9110 §6.6.1). Of several the first counts.
func (x *Exchange) date() int64 {
	if v := x.Response.Value(x.ResponseHead, header.Date); v != nil {
		if t, ok := header.ParseDate(v, floorSeconds(x.ResponseTime)); ok && t > -header.MaxDelta && t < 4*header.MaxDelta {
			return t * second
		}
	}
	return floorSeconds(x.ResponseTime) * second
}

// ageValue is age_value of §4.2.3. §5.1: of several values the first counts, and one
// that cannot be read is ignored.
func (x *Exchange) ageValue() int64 {
	l := header.Members(x.Response.Value(x.ResponseHead, header.Age))
	v, _ := l.Next()
	n, _ := header.ParseDelta(v)
	return seconds(n)
}

// initialAge is corrected_initial_age of §4.2.3. The apparent age is taken in whole
// seconds, since Date has no more: otherwise everything would seem half a second old.
func (x *Exchange) initialAge(date int64) int64 {
	apparent := clampAge(floorSeconds(x.ResponseTime)*second - date)
	delay := clampAge(x.ResponseTime - x.RequestTime)
	return clampAge(max(apparent, x.ageValue()+delay))
}

func clampAge(ns int64) int64 { return min(max(ns, 0), header.MaxDelta*second) }

// CurrentAge is current_age of §4.2.3 at the time now, in nanoseconds. A clock that
// was set back does not make the response younger than it was when it came.
func CurrentAge(m *cache.Meta, now int64) int64 {
	return clampAge(m.InitialAge + clampAge(now-m.ResponseTime))
}

// AgeSeconds is the value of the Age field to send (§5.1).
func AgeSeconds(m *cache.Meta, now int64) int64 { return CurrentAge(m, now) / second }
