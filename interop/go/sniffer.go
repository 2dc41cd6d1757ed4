package main

import (
	"encoding/binary"
	"iter"
	"sync/atomic"
)

// Types of chunks (RFC 9260, section 3.2; RFC 8260, section 2.1; RFC 6525, section 3.1)
const (
	chunkData      = 0
	chunkInit      = 1
	chunkHeartbeat = 4
	chunkAbort     = 6
	chunkShutdown  = 7
	chunkIData     = 64
	chunkReconfig  = 130
)

const (
	sctpPort   = 5000
	sctpHeader = 12
	binaryPPID = 53
)

type chunk struct {
	kind, flags byte
	body        []byte
	// where the next begins
	end int
}

func chunks(packet []byte) iter.Seq[chunk] {
	return func(yield func(chunk) bool) {
		for at := sctpHeader; at+4 <= len(packet); {
			length := int(binary.BigEndian.Uint16(packet[at+2:]))
			padded := (length + 3) &^ 3

			if length < 4 || at+length > len(packet) {
				return
			}

			if !yield(chunk{packet[at], packet[at+1], packet[at+4 : at+length], at + padded}) {
				return
			}

			at += padded
		}
	}
}

// sniffer looks at the SCTP packets of the remote for what a library does not tell: who begins, what a message is labelled as, how
// an association ends.
type sniffer struct {
	server     bool
	counts     map[byte]int
	results    map[uint32]int
	largest    int
	largestOf  []int
	streams    map[uint16]bool
	aborted    bool
	abortCause int
	// the number of our last request to reset streams, -1 while there is none, and that it has been answered
	request  atomic.Int64
	answered chan struct{}
}

func newSniffer(server bool) *sniffer {
	return &sniffer{server: server, counts: map[byte]int{}, results: map[uint32]int{}, streams: map[uint16]bool{}, answered: make(chan struct{}, 1)}
}

func (s *sniffer) packet(packet []byte) {
	if len(packet) > s.largest {
		s.largest = len(packet)
		s.largestOf = nil

		for chunk := range chunks(packet) {
			s.largestOf = append(s.largestOf, int(chunk.kind))
		}
	}

	if len(packet) < sctpHeader {
		violation("a record that is neither a datagram nor a packet of SCTP", fields{"bytes": len(packet)})
		return
	}

	from, to := binary.BigEndian.Uint16(packet), binary.BigEndian.Uint16(packet[2:])

	if from != sctpPort || to != sctpPort {
		violation("SCTP ports", fields{"from": from, "to": to})
	}

	for chunk := range chunks(packet) {
		s.counts[chunk.kind]++

		switch chunk.kind {
		case chunkInit:
			if !s.server {
				violation("an INIT from the DTLS server", nil)
			}
		case chunkData:
			s.data(chunk, 12, 8)
		case chunkIData:
			s.data(chunk, 16, 12)
		case chunkReconfig:
			s.reconfig(chunk)
		case chunkAbort:
			s.aborted = true

			if len(chunk.body) >= 4 {
				s.abortCause = int(binary.BigEndian.Uint16(chunk.body))
			}
		}
	}
}

// data is given where the label of the message stands: in its first fragment
func (s *sniffer) data(chunk chunk, header int, label int) {
	const first, unordered = 2, 4

	if len(chunk.body) < header {
		return
	}

	stream := binary.BigEndian.Uint16(chunk.body[4:])
	ppid := binary.BigEndian.Uint32(chunk.body[label:])
	s.streams[stream] = true

	if chunk.flags&first != 0 && ppid != binaryPPID {
		violation("a payload protocol identifier", fields{"stream": stream, "ppid": ppid})
	}

	if chunk.flags&unordered != 0 {
		violation("an unordered message", fields{"stream": stream})
	}
}

// Parameters of a RE-CONFIG chunk (RFC 6525, section 4)
const (
	reconfigRequest    = 13
	reconfigResponse   = 16
	reconfigInProgress = 6
)

func (s *sniffer) reconfig(chunk chunk) {
	for rest := chunk.body; len(rest) >= 4; {
		kind, length := binary.BigEndian.Uint16(rest), int(binary.BigEndian.Uint16(rest[2:]))

		if length < 4 || length > len(rest) {
			return
		}

		if kind == reconfigResponse && length >= 12 {
			s.reconfigResponse(binary.BigEndian.Uint32(rest[4:]), binary.BigEndian.Uint32(rest[8:]))
		}

		rest = rest[min(len(rest), (length+3)&^3):]
	}
}

func (s *sniffer) reconfigResponse(number, result uint32) {
	s.results[result]++

	// The network may have doubled the answer to an earlier one.
	if result == reconfigInProgress || int64(number) != s.request.Load() {
		return
	}

	select {
	case s.answered <- struct{}{}:
	default:
	}
}

// sent is given our own packets.
func (s *sniffer) sent(packet []byte) {
	for chunk := range chunks(packet) {
		if chunk.kind == chunkReconfig && len(chunk.body) >= 8 && binary.BigEndian.Uint16(chunk.body) == reconfigRequest {
			s.request.Store(int64(binary.BigEndian.Uint32(chunk.body[4:])))
		}
	}
}
