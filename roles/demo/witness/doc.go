// Package witness holds clients that do not let anything pass: what they are
// sent they compare byte by byte, and whatever is not as it must be they count
// as a failure and say where it was.
//
// It is what a proxy's promise is tested with, that processes may die and no
// client notices. The idea is that every byte can be computed: the content of
// object n at offset i is a function of the run's seed, n and i (Body). So
// nothing is stored, any offset of any length can be checked, and a byte of
// another object, or of another place in the right one, does not pass. At the
// other end an Origin of the same seed serves the objects in each framing, slowly
// or at once, compares what is uploaded, and remembers what it was asked how
// often: an upload that comes twice and an object that the cache fetches twice
// are failures, too (Audit).
//
//	o, err := witness.NewOrigin("127.0.0.1:0", seed)
//	…start the proxy before o.URL()…
//	crew := witness.NewCrew(witness.Everybody(), witness.Options{Addr: proxy, Origin: o, Seed: seed})
//	err = crew.Warm(ctx)        // fetches what is to be in the cache
//	crew.Run(ctx)               // until ctx ends and all have finished
//	r := crew.Report()
//	r.Write(os.Stdout, 20)
//	if r.Failed() > 0 { … }
//
// # Rules
//
//   - A client lives on one connection for as long as that lives, and opens the
//     next without complaint only if the answer said that the connection ends.
//     An end without a word, also between two requests, is a failure; so are a
//     reset, ten seconds without progress (Options.Patience), a byte too many.
//   - Nothing is tried again. A request that failed has failed.
//   - When the run ends, nobody hangs up. What is under way is finished, without
//     pauses, and checked, and a connection that was idle is used once more.
//   - All failures are counted; the first hundred of each client are kept in
//     words (Failure).
//
// # What it is not
//
// It is no load generator: clients think between requests and take their bytes
// at a rate (Options), so that at any instant there is something of everything
// under way. And it is no model of HTTP: the parser knows what a correct proxy
// may send to these clients, and nothing else.
//
// Goroutines: Run starts those of its clients and waits for them; Origin.Close
// waits for the origin's.
package witness
