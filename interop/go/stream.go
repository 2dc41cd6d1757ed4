package main

import (
	"encoding/binary"
	"errors"
	"io"
	"sync"

	"github.com/libp2p/go-libp2p/p2p/transport/webrtc/pb"
	"github.com/pion/sctp"
	"google.golang.org/protobuf/proto"
)

const (
	maxMessage = 16 << 10
	// The prefix of a message of 16 KiB, and the tags and lengths of its fields
	overhead  = 3 + 4 + 2
	sendAhead = 1 << 20
	readAhead = 1 << 20
)

var (
	errReset   = errors.New("the remote has reset the stream")
	errStopped = errors.New("the remote reads no more")
)

// stream has the message framing of libp2p's WebRTC specification on one SCTP stream.
type stream struct {
	session  *session
	inner    *sctp.Stream
	id       uint16
	outbound bool

	mutex     sync.Mutex
	changed   *sync.Cond
	unread    []byte
	finished  bool // the remote's FIN
	reset     bool // the remote's RESET
	stopped   bool // the remote's STOP_SENDING
	discards  bool // our STOP_SENDING
	sentFin   bool
	acked     bool // the remote's FIN_ACK
	sentReset bool
	closing   bool // our outgoing reset of RFC 6525 is on its way
	gone      bool // the remote's has come
}

func newStream(session *session, inner *sctp.Stream, outbound bool) *stream {
	s := &stream{session: session, inner: inner, id: inner.StreamIdentifier(), outbound: outbound}
	s.changed = sync.NewCond(&s.mutex)
	inner.SetBufferedAmountLowThreshold(sendAhead / 2)
	inner.OnBufferedAmountLow(func() {
		s.mutex.Lock()
		s.changed.Broadcast()
		s.mutex.Unlock()
	})

	return s
}

// receive reads messages until the remote resets the SCTP stream.
func (s *stream) receive() {
	buffer := make([]byte, maxPacket)

	for {
		length, _, err := s.inner.ReadSCTP(buffer)
		if err != nil {
			s.onGone(err)
			return
		}

		message, err := parse(buffer[:length])
		if err != nil {
			violation(err.Error(), fields{"stream": s.id, "bytes": length})
			continue
		}

		s.onMessage(message)
	}
}

func parse(bytes []byte) (*pb.Message, error) {
	if len(bytes) > maxMessage {
		return nil, errors.New("a message of more than 16 KiB")
	}

	length, prefix := binary.Uvarint(bytes)

	if prefix <= 0 || uint64(len(bytes)-prefix) != length {
		return nil, errors.New("a message of another length than its prefix says")
	}

	message := &pb.Message{}

	if err := proto.Unmarshal(bytes[prefix:], message); err != nil {
		return nil, errors.New("a message that is no protobuf")
	}

	return message, nil
}

func (s *stream) onMessage(message *pb.Message) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	defer s.changed.Broadcast()

	if len(message.Message) > 0 {
		s.onData(message.Message)
	}

	if message.Flag == nil {
		return
	}

	switch *message.Flag {
	case pb.Message_FIN:
		s.finished = true
		s.send(pb.Message_FIN_ACK)
	case pb.Message_RESET:
		s.reset = true
	case pb.Message_STOP_SENDING:
		s.stopped = true

		if !s.sentFin && !s.sentReset {
			s.sentReset = true
			s.send(pb.Message_RESET)
		}
	case pb.Message_FIN_ACK:
		if !s.sentFin {
			violation("a FIN_ACK without a FIN", fields{"stream": s.id})
		}

		s.acked = true
	}

	s.endIfOver()
}

func (s *stream) onData(data []byte) {
	if s.finished || s.reset {
		violation("data after the end", fields{"stream": s.id})
		return
	}

	// What nobody takes holds the remote back.
	for len(s.unread) > readAhead && !s.discards {
		s.changed.Wait()
	}

	if !s.discards {
		s.unread = append(s.unread, data...)
	}
}

// send sends a flag, with the lock held.
func (s *stream) send(flag pb.Message_Flag) {
	s.write(&pb.Message{Flag: flag.Enum()})
}

func (s *stream) write(message *pb.Message) error {
	bytes, err := proto.Marshal(message)
	if err != nil {
		return err
	}

	_, err = s.inner.WriteSCTP(append(binary.AppendUvarint(nil, uint64(len(bytes))), bytes...), sctp.PayloadTypeWebRTCBinary)

	return err
}

// endIfOver has whoever opened the stream reset it when both directions are over.
func (s *stream) endIfOver() {
	if (s.finished || s.reset) && (s.acked || s.sentReset) && s.outbound && !s.closing {
		s.closing = true
		s.session.resets <- s.inner
	}
}

// onGone: the remote has reset the SCTP stream, or the association is over.
func (s *stream) onGone(err error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	defer s.changed.Broadcast()

	if !errors.Is(err, io.EOF) {
		s.reset = true
		return
	}

	s.gone = true

	// After a RESET it may be, which takes both directions down.
	if !s.outbound && !s.reset && !(s.finished && (s.acked || s.sentReset)) && s.session.alive() {
		violation("an SCTP stream reset before both directions were over", fields{
			"stream": s.id, "FIN": s.finished, "RESET": s.reset, "FIN_ACK": s.acked, "ourFIN": s.sentFin, "ourRESET": s.sentReset,
		})
	}

	if !s.finished {
		s.reset = true
	}

	if !s.closing {
		s.closing = true
		s.session.resets <- s.inner
	}

	s.session.forget(s)
}

func (s *session) alive() bool {
	select {
	case <-s.ended:
		return false
	default:
		return !s.sniffer.aborted
	}
}

// Read reads what has come; io.EOF after the remote's FIN, errReset after its RESET.
func (s *stream) Read(buffer []byte) (int, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()

	for {
		switch {
		case s.reset:
			return 0, errReset
		case len(s.unread) > 0:
			length := copy(buffer, s.unread)
			s.unread = s.unread[length:]
			s.changed.Broadcast()

			return length, nil
		case s.finished:
			return 0, io.EOF
		}

		s.changed.Wait()
	}
}

// Write writes in messages of the largest size.
func (s *stream) Write(data []byte) (int, error) {
	written := 0

	for written < len(data) {
		piece := data[written:min(len(data), written+maxMessage-overhead)]

		if err := s.writeMessage(&pb.Message{Message: piece}); err != nil {
			return written, err
		}

		written += len(piece)
	}

	return written, nil
}

func (s *stream) writeMessage(message *pb.Message) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()

	for s.inner.BufferedAmount() > sendAhead && !s.stopped && !s.gone {
		s.changed.Wait()
	}

	if s.stopped || s.sentReset {
		return errStopped
	}

	if s.gone {
		return errReset
	}

	return s.write(message)
}

// closeWrite sends FIN.
func (s *stream) closeWrite() {
	s.mutex.Lock()
	defer s.mutex.Unlock()

	if !s.sentFin && !s.sentReset {
		s.sentFin = true
		s.send(pb.Message_FIN)
	}
}

// closeRead sends STOP_SENDING.
func (s *stream) closeRead() {
	s.mutex.Lock()
	defer s.mutex.Unlock()

	if !s.discards && !s.finished && !s.reset {
		s.discards = true
		s.send(pb.Message_STOP_SENDING)
		s.changed.Broadcast()
	}
}

// abandon ends the sending part by RESET.
func (s *stream) abandon() {
	s.mutex.Lock()
	defer s.mutex.Unlock()

	if !s.sentReset {
		s.sentReset = true
		s.send(pb.Message_RESET)
		s.endIfOver()
	}
}

// wait waits until something is so, or the association is over.
func (s *stream) wait(until func() bool) {
	s.mutex.Lock()
	defer s.mutex.Unlock()

	for !until() && s.session.alive() {
		s.changed.Wait()
	}
}
