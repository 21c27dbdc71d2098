package eventloop

import (
	"sync"
	"testing"
)

type number int

func (number) RunTask() {}

// Posters and a taker, and a close in the middle: exactly what was accepted comes out, once, in each poster's order.
func TestMailboxUnderConcurrency(t *testing.T) {
	const posters, each = 4, 3000
	var m mailbox
	var accepted [posters]int
	var wg sync.WaitGroup
	for p := range posters {
		wg.Go(func() {
			for i := range each {
				if ok, _ := m.push(number(p*each + i)); !ok {
					return
				}
				accepted[p]++
			}
		})
	}
	var taken [posters]int
	total, closed := 0, false
	for !closed {
		var n *node
		n, closed = m.take()
		for n != nil {
			var k Task
			k, n = n.spend()
			v := int(k.(number))
			if p, i := v/each, v%each; taken[p] != i {
				t.Fatalf("poster %d: took %d, want %d", p, i, taken[p])
			}
			taken[v/each]++
			if total++; total == posters*each/2 {
				wg.Go(func() { m.close() })
				wg.Go(func() { m.close() }) // only one of them does
			}
		}
	}
	wg.Wait()
	if taken != accepted {
		t.Errorf("took %v, accepted %v", taken, accepted)
	}
	if n, closed := m.take(); n != nil || !closed {
		t.Error("a closed mailbox brought something more")
	}
	if m.close() {
		t.Error("closed twice")
	}
	if ok, _ := m.push(number(0)); ok {
		t.Error("closed mailbox accepted")
	}
}

// Only the poster that finds the mailbox empty is told so.
func TestMailboxFirst(t *testing.T) {
	var m mailbox
	for i, want := range []bool{true, false, false} {
		if ok, first := m.push(number(i)); !ok || first != want {
			t.Errorf("push %d: accepted %v, first %v; want true, %v", i, ok, first, want)
		}
	}
	if n, _ := m.take(); n == nil || n.task != number(0) || n.next.task != number(1) {
		t.Error("not in order")
	}
	if _, first := m.push(number(3)); !first {
		t.Error("not first after take")
	}
}
