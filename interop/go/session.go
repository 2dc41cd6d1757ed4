package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/pion/sctp"
)

// session is the inside of the scheme: the SCTP association, its streams, and the datagrams beside it.
type session struct {
	secured     *secured
	server      bool
	sniffer     *sniffer
	association *sctp.Association
	conn        *sctpConn
	datagrams   chan []byte

	mutex   sync.Mutex
	streams map[uint16]*stream
	free    []uint16
	next    uint16
	resets  chan *sctp.Stream
	// whether the end is our doing
	ending bool
	ended  chan struct{}
}

func newSession(secured *secured, server bool) (*session, error) {
	s := &session{
		secured:   secured,
		server:    server,
		sniffer:   newSniffer(server),
		datagrams: make(chan []byte, 1024),
		streams:   map[uint16]*stream{},
		resets:    make(chan *sctp.Stream, 65536),
		ended:     make(chan struct{}),
	}
	s.conn = newSCTPConn(secured.records, s.sniffer)

	if server {
		s.next = 1
	}

	go s.read()

	return s, s.associate()
}

func (s *session) associate() (err error) {
	options := []sctp.AssociationOption{
		sctp.WithNetConn(s.conn),
		sctp.WithMTU(1150),
		sctp.WithMaxReceiveBufferSize(1 << 20),
		sctp.WithRTOMax(1000),
	}

	if s.server {
		all := []sctp.ServerOption{}
		for _, option := range options {
			all = append(all, option)
		}

		s.association, err = sctp.ServerWithOptions(all...)
	} else {
		all := []sctp.ClientOption{}
		for _, option := range options {
			all = append(all, option)
		}

		ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
		defer cancel()
		s.association, err = sctp.ClientContext(ctx, all...)
	}

	if err == nil {
		go s.accept()
		go s.reset()
	}

	return err
}

// read tells the records apart.
func (s *session) read() {
	buffer := make([]byte, maxPacket)

	for {
		length, err := s.secured.records.Read(buffer)
		if err != nil {
			s.end(err)
			return
		}

		if length == 0 {
			violation("an empty record", nil)
			continue
		}

		record := append([]byte{}, buffer[:length]...)

		switch record[0] {
		case 0:
			s.onDatagram(record[1:])
		case 1:
			// several datagrams, which is how ours shows that it knows such records: without one from here it sends none in them
			if len(bytes.Trim(record[1:], "\x00")) > 0 {
				violation("datagrams together that were not asked for", nil)
			}
		default:
			s.sniffer.packet(record)
			s.conn.deliver(record)
		}
	}
}

func (s *session) accept() {
	for {
		inner, err := s.association.AcceptStream()
		if err != nil {
			return
		}

		id := inner.StreamIdentifier()

		if (id%2 == 1) == s.server {
			violation("a stream of ours opened by the remote", fields{"stream": id})
		}

		stream := newStream(s, inner, false)
		s.mutex.Lock()
		s.streams[id] = stream
		s.mutex.Unlock()

		go stream.receive()
		go serve(stream)
	}
}

// reset makes the ids of streams free, one after the other. There must not be two requests under way (RFC 6525, section 5.1.1), but
// pion sends each at once, and forgets those that are answered with "request already in progress" or "bad sequence number".
func (s *session) reset() {
	for {
		select {
		case stream := <-s.resets:
			s.sniffer.request.Store(-1)

			select {
			case <-s.sniffer.answered:
			default:
			}

			stream.Close()

			select {
			case <-s.sniffer.answered:
			case <-s.ended:
				return
			}
		case <-s.ended:
			return
		}
	}
}

var errNoStreams = errors.New("no stream id is free")

// pion sends a request to reset a stream again while the answer to it is on its way, and obeys the second one, too (RFC 6525,
// section 5.2.1, would have it look at the request's number). An id rests while that may happen.
const restingIDs = 64

// open opens a stream on the id that was free first.
func (s *session) open() (*stream, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()

	var id uint16

	switch {
	case len(s.free) > restingIDs:
		id, s.free = s.free[0], s.free[1:]
	case s.next >= 65534:
		return nil, errNoStreams
	default:
		id = s.next
		s.next += 2
	}

	inner, err := s.association.OpenStream(id, sctp.PayloadTypeWebRTCBinary)
	if err != nil {
		return nil, err
	}

	stream := newStream(s, inner, true)
	s.streams[id] = stream
	go stream.receive()

	return stream, nil
}

// forget is called when both sides have reset a stream.
func (s *session) forget(stream *stream) {
	s.mutex.Lock()
	defer s.mutex.Unlock()

	if s.streams[stream.id] == stream {
		delete(s.streams, stream.id)
	}

	if stream.outbound {
		s.free = append(s.free, stream.id)
	}
}

func (s *session) openStreams() int {
	s.mutex.Lock()
	defer s.mutex.Unlock()

	return len(s.streams)
}

// close says goodbye as the scheme has it: close_notify and nothing else.
func (s *session) close() {
	s.mutex.Lock()
	s.ending = true
	s.mutex.Unlock()
	s.secured.records.Close()
}

// abort tells by SCTP that this is no orderly end.
func (s *session) abort() {
	s.mutex.Lock()
	s.ending = true
	s.mutex.Unlock()
	s.association.Abort("interop")
	s.secured.records.Close()
}

func (s *session) end(err error) {
	s.mutex.Lock()
	how := "close_notify"

	switch {
	case s.sniffer.aborted:
		how = "abort"
	case s.ending:
		how = "local"
	case !errors.Is(err, io.EOF):
		how = "error"
	}
	s.mutex.Unlock()

	counts := map[string]int{}
	for kind, name := range map[byte]string{chunkData: "data", chunkIData: "i-data", chunkInit: "init", chunkHeartbeat: "heartbeat", chunkAbort: "abort", chunkShutdown: "shutdown", chunkReconfig: "reconfig"} {
		counts[name] = s.sniffer.counts[kind]
	}

	emit("closed", fields{
		"how": how, "message": err.Error(), "cause": s.sniffer.abortCause, "chunks": counts,
		"largest": s.sniffer.largest, "largestOf": s.sniffer.largestOf, "ids": len(s.sniffer.streams),
		"resets": s.sniffer.results,
	})
	s.conn.Close()
	close(s.ended)
}

// Datagrams: the id of the control stream as a varint of QUIC, then a byte that tells a request from the answer to it.
const (
	request = 1
	answer  = 2
)

func (s *session) onDatagram(payload []byte) {
	_, length := quicVarint(payload)

	if length == 0 || length >= len(payload) {
		violation("a datagram without the id of its stream", fields{"bytes": len(payload)})
		return
	}

	if payload[length] == request {
		payload[length] = answer
		s.sendDatagram(payload)
		return
	}

	select {
	case s.datagrams <- payload:
	default:
	}
}

func (s *session) sendDatagram(payload []byte) error {
	_, err := s.secured.records.Write(append([]byte{0}, payload...))

	return err
}

// quicVarint is RFC 9000, section 16; a length of 0 stands for none.
func quicVarint(bytes []byte) (value uint64, length int) {
	if len(bytes) == 0 {
		return 0, 0
	}

	length = 1 << (bytes[0] >> 6)

	if len(bytes) < length {
		return 0, 0
	}

	value = uint64(bytes[0] & 0x3f)
	for _, next := range bytes[1:length] {
		value = value<<8 | uint64(next)
	}

	return value, length
}

// sctpConn is what the SCTP association takes for its network.
type sctpConn struct {
	records  records
	sniffer  *sniffer
	incoming chan []byte
	closed   chan struct{}
	once     sync.Once
	mutex    sync.Mutex
	deadline chan struct{}
}

func newSCTPConn(records records, sniffer *sniffer) *sctpConn {
	return &sctpConn{records: records, sniffer: sniffer, incoming: make(chan []byte, 4096), closed: make(chan struct{}), deadline: make(chan struct{})}
}

func (c *sctpConn) deliver(packet []byte) {
	select {
	case c.incoming <- packet:
	case <-c.closed:
	}
}

func (c *sctpConn) Read(buffer []byte) (int, error) {
	c.mutex.Lock()
	deadline := c.deadline
	c.mutex.Unlock()

	select {
	case packet := <-c.incoming:
		return copy(buffer, packet), nil
	case <-c.closed:
		return 0, io.EOF
	case <-deadline:
		return 0, os.ErrDeadlineExceeded
	}
}

func (c *sctpConn) Write(packet []byte) (int, error) {
	c.sniffer.sent(packet)

	return c.records.Write(packet)
}

func (c *sctpConn) Close() error {
	c.once.Do(func() { close(c.closed) })

	return nil
}

// SetReadDeadline is only ever called to have Read return at once.
func (c *sctpConn) SetReadDeadline(at time.Time) error {
	c.mutex.Lock()
	defer c.mutex.Unlock()

	if !at.IsZero() {
		close(c.deadline)
		c.deadline = make(chan struct{})
	}

	return c.Close()
}

func (c *sctpConn) SetDeadline(time.Time) error      { return nil }
func (c *sctpConn) SetWriteDeadline(time.Time) error { return nil }
func (c *sctpConn) LocalAddr() net.Addr              { return &net.UDPAddr{} }
func (c *sctpConn) RemoteAddr() net.Addr             { return &net.UDPAddr{} }
