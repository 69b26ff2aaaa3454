package main

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"
)

// wire is a connection to a server that can be made to fail: a proxy in between.
type wire struct {
	t       *testing.T
	address string // where the server seems to be
	up      string // where it is
	group   sync.WaitGroup

	mu       sync.Mutex
	listener net.Listener // nil while nobody listens
	links    map[*link]bool
	trouble  *trouble
}

// trouble is what is wrong with a wire for a while.
type trouble struct {
	toxics []toxic
	over   chan struct{} // closed at its end
}

// toxic is one fault, of what comes down from the server or goes up to it.
type toxic struct {
	Type       string
	Stream     string
	Attributes map[string]int // times in milliseconds
}

// link is one connection through a wire.
type link struct {
	client, server *net.TCPConn
	done           chan struct{} // closed with it
	once           sync.Once
}

// newWire puts a proxy before a server.
func newWire(t *testing.T, _ string, up *url.URL) *wire {
	t.Helper()
	w := &wire{t: t, up: up.Host, links: map[*link]bool{}, trouble: &trouble{over: make(chan struct{})}}
	if err := w.listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	w.address = w.listener.Addr().String()
	t.Cleanup(func() {
		w.cut()
		w.group.Wait()
	})
	return w
}

// listen begins to accept connections.
func (w *wire) listen(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.listener = l
	w.group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			w.group.Go(func() { w.serve(l, c.(*net.TCPConn)) })
		}
	})
	return nil
}

// serve carries one connection.
func (w *wire) serve(l net.Listener, client *net.TCPConn) {
	server, err := net.Dial("tcp", w.up)
	if err != nil {
		client.Close()
		return
	}
	k := &link{client: client, server: server.(*net.TCPConn), done: make(chan struct{})}
	w.mu.Lock()
	if w.listener != l {
		w.mu.Unlock()
		k.end(false)
		return
	}
	w.links[k] = true
	w.doom(k, w.trouble)
	w.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { w.carry(k, k.client, k.server, "upstream") })
	both.Go(func() { w.carry(k, k.server, k.client, "downstream") })
	both.Wait()
	k.end(false)
	w.mu.Lock()
	delete(w.links, k)
	w.mu.Unlock()
}

// end closes a connection, or resets it.
func (k *link) end(reset bool) {
	k.once.Do(func() {
		if reset {
			_, _ = k.client.SetLinger(0), k.server.SetLinger(0)
		}
		_, _ = k.client.Close(), k.server.Close()
		close(k.done)
	})
}

// doom ends a connection when its time is over, if that is its trouble. The lock
// is held.
func (w *wire) doom(k *link, x *trouble) {
	for _, toxic := range x.toxics {
		if toxic.Type != "reset_peer" && toxic.Type != "timeout" {
			continue
		}
		w.group.Go(func() {
			var after <-chan time.Time // never, without a time
			if ms := toxic.Attributes["timeout"]; ms > 0 {
				after = time.After(time.Duration(ms) * time.Millisecond)
			}
			select {
			case <-after:
				k.end(toxic.Type == "reset_peer")
			case <-x.over:
				if toxic.Type == "timeout" {
					k.end(false) // bytes were lost
				}
			case <-k.done:
			}
		})
	}
}

// piece is what was read at once.
type piece struct {
	bytes []byte
	at    time.Time
}

// carry carries bytes in one direction until it ends.
func (w *wire) carry(k *link, from, to *net.TCPConn, stream string) {
	pieces := make(chan piece, 64)
	w.group.Go(func() {
		defer close(pieces)
		for {
			b := make([]byte, 16<<10)
			n, err := from.Read(b)
			if n > 0 {
				select {
				case pieces <- piece{b[:n], time.Now()}:
				case <-k.done:
					return
				}
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					k.end(true)
				}
				return
			}
		}
	})
	var last *trouble
	var passed int // bytes since it began
	for p := range pieces {
		w.mu.Lock()
		now := w.trouble
		w.mu.Unlock()
		if now != last {
			last, passed = now, 0
		}
		passed += len(p.bytes)
		if !now.write(k, to, stream, p, passed) {
			k.end(false)
			return
		}
	}
	_ = to.CloseWrite()
}

// write writes a piece with everything that is wrong; false if that is the end.
// passed counts the bytes up to the piece's end.
func (x *trouble) write(k *link, to io.Writer, stream string, p piece, passed int) bool {
	size := len(p.bytes)
	var gap time.Duration
	more := true
	for _, toxic := range x.toxics {
		if toxic.Stream != stream {
			continue
		}
		a := toxic.Attributes
		switch toxic.Type {
		case "latency":
			ms := a["latency"] - a["jitter"] + rand.IntN(2*a["jitter"]+1)
			x.wait(k, time.Until(p.at.Add(time.Duration(ms)*time.Millisecond)))
		case "bandwidth": // rate is in kilobytes a second
			x.wait(k, time.Duration(len(p.bytes))*time.Second/time.Duration(a["rate"]*1000))
		case "slicer":
			size = a["average_size"] - a["size_variation"] + rand.IntN(2*a["size_variation"])
			gap = time.Duration(a["delay"]) * time.Microsecond
		case "limit_data":
			if beyond := passed - a["bytes"]; beyond >= 0 {
				p.bytes, more = p.bytes[:max(0, len(p.bytes)-beyond)], false
			}
		case "timeout":
			return true // lost
		}
	}
	for len(p.bytes) > 0 {
		n := min(max(size, 1), len(p.bytes))
		if _, err := to.Write(p.bytes[:n]); err != nil {
			return false
		}
		if p.bytes = p.bytes[n:]; gap > 0 {
			x.wait(k, gap)
		}
	}
	return more
}

// wait waits, but not beyond the trouble or the connection.
func (x *trouble) wait(k *link, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-x.over:
	case <-k.done:
	}
}

// cut ends all connections, and nobody listens any more.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.listener != nil {
		w.listener.Close()
		w.listener = nil
	}
	for k := range w.links {
		k.end(true)
	}
}

// change has something else be wrong from now on.
func (w *wire) change(toxics []toxic) {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.trouble.over)
	w.trouble = &trouble{toxics: toxics, over: make(chan struct{})}
	for k := range w.links {
		w.doom(k, w.trouble)
	}
}

// fault lets the wire fail until mend is called. No toxics: nobody listens.
func (w *wire) fault(toxics []toxic) (mend func()) {
	w.t.Helper()
	if len(toxics) == 0 {
		w.cut()
		return func() {
			w.t.Helper()
			if err := w.listen(w.address); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	w.change(toxics)
	return func() { w.change(nil) }
}
