package eventloop

import "math/bits"

// A wheel holds the armed timers of one loop: a hierarchical timing wheel (Varghese and
// Lauck, "Hashed and Hierarchical Timing Wheels", 1987, scheme 6).
//
// Write the current tick and a timer's tick in base 64. The timer sits on the level of the
// highest digit in which they differ, in the slot named by its own digit there. So a
// timer on level 0 is due within the present 64 ticks and its slot is its exact tick; a timer
// on level n is looked at only when the present digit n reaches its slot: then it
// agrees with the present in one more digit and cascades to a lower level. A timer
// moves at most seven times in its life, mostly not even once, as it is stopped before.
//
// Eight levels are 2^48 ticks of 1 ms. A time.Duration ends below 2^44 ms, so there is no
// overflow list and no special case for long durations.
//
// A bitmap per level says which slots are taken. All timers of a level share the higher
// digits with the present and are above it in their own, so the lowest slot of the
// lowest level that is not empty is the next to be looked at: no tick is ever walked.
//
// Equal ticks run in the order of arming: lists are appended to at the tail and cascade
// from the head, and by the time a timer can be put on a level directly, earlier ones for the
// same tick have cascaded down to that level. One exception is the price of the
// budget of [wheel.expire]: when a slot of very many timers cascades over several turns, one
// armed in between for the same tick can overtake.
//
// All of it is owned by the loop.
type wheel struct {
	now       int64 // ticks: all timers up to here were handed out
	armed     int   // timers in the wheel
	cascading int   // slot in the middle of its cascade; 0 (a slot of level 0): none
	taken     [wheelLevels]uint64
	slots     [wheelLevels * wheelSlots]*Timer // heads of circular lists
}

const (
	wheelBits   = 6
	wheelSlots  = 1 << wheelBits
	wheelLevels = 8
)

// arm puts t in for its tick t.when, or for the next tick if that has passed: a timer
// armed by a handler of this tick never runs in this tick, so no handler can keep the
// wheel from moving on.
func (w *wheel) arm(t *Timer) {
	if t.when <= w.now {
		t.when = w.now + 1
	}
	w.armed++
	w.place(t)
}

// disarm takes t out.
func (w *wheel) disarm(t *Timer) {
	w.armed--
	w.unlink(t)
}

// place appends t to the slot that its tick belongs to now.
func (w *wheel) place(t *Timer) {
	level := 0
	if differ := uint64(t.when ^ w.now); differ >= wheelSlots {
		level = (bits.Len64(differ) - 1) / wheelBits
	}
	digit := int(t.when>>(level*wheelBits)) & (wheelSlots - 1)
	slot := level*wheelSlots + digit
	t.slot = uint16(slot)
	head := w.slots[slot]
	if head == nil {
		t.next, t.prev = t, t
		w.slots[slot] = t
		w.taken[level] |= 1 << digit
		return
	}
	tail := head.prev
	t.next, t.prev = head, tail
	tail.next, head.prev = t, t
}

func (w *wheel) unlink(t *Timer) {
	slot := int(t.slot)
	if t.next == t {
		w.slots[slot] = nil
		w.taken[slot/wheelSlots] &^= 1 << (slot % wheelSlots)
	} else {
		t.prev.next, t.next.prev = t.next, t.prev
		if w.slots[slot] == t {
			w.slots[slot] = t.next
		}
	}
	t.next, t.prev = nil, nil
}

// next returns the slot to look at next and the tick to do it at, which is not before
// w.now. On a level above 0 that tick is the start of the slot, not a deadline.
func (w *wheel) next() (tick int64, slot int, ok bool) {
	if w.cascading != 0 {
		if w.slots[w.cascading] != nil {
			return w.now, w.cascading, true
		}
		w.cascading = 0
	}
	for level, taken := range &w.taken {
		if taken != 0 {
			digit := bits.TrailingZeros64(taken)
			shift := level * wheelBits
			above := w.now >> (shift + wheelBits) << (shift + wheelBits)
			return above | int64(digit)<<shift, level*wheelSlots + digit, true
		}
	}
	return 0, 0, false
}

// expire takes out and returns the next timer that is due at tick to, or nil if there
// is none. Each timer touched, due or cascading, is taken off the budget; when it is used
// up expire returns nil, and the rest is due on the next turn. So neither a mass of timers in
// one slot nor a burst of due ones keeps events waiting.
func (w *wheel) expire(to int64, budget *int) *Timer {
	for *budget > 0 {
		tick, slot, ok := w.next()
		if !ok || tick > to {
			w.now = max(w.now, to)
			return nil
		}
		w.now = tick
		*budget--
		t := w.slots[slot]
		w.unlink(t)
		if slot < wheelSlots {
			w.armed--
			return t
		}
		// The whole slot cascades before the first of it runs, due at this very tick or
		// not: a handler must not arm in between.
		w.cascading = slot
		w.place(t)
	}
	return nil
}
