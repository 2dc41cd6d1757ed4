package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/p2p/transport/webrtc/pb"
)

// scenario is something that the opener of streams does, with the remote serving as in serve.go.
type scenario func(s *session, size int) (fields, error)

var scenarios = map[string]scenario{
	"echo":      echoScenario,
	"upload":    uploadScenario,
	"download":  downloadScenario,
	"many":      manyScenario,
	"reset":     resetScenario,
	"be-reset":  beResetScenario,
	"stop":      stopScenario,
	"shapes":    shapesScenario,
	"datagrams": datagramsScenario,
}

var names = []string{"echo", "shapes", "upload", "download", "many", "reset", "be-reset", "stop", "datagrams"}

func run(s *session, name string, size int) (fields, error) {
	scenario, known := scenarios[name]
	if !known {
		return nil, fmt.Errorf("there is no scenario %q", name)
	}

	type result struct {
		details fields
		err     error
	}
	done := make(chan result, 1)
	go func() {
		details, err := scenario(s, size)
		done <- result{details, err}
	}()

	select {
	case result := <-done:
		return result.details, result.err
	case <-s.ended:
		return nil, errors.New("the session has ended")
	case <-time.After(60 * time.Second):
		return nil, errors.New("nothing more happens")
	}
}

// echo: everything comes back, and the other direction goes on after ours has ended.
func echoScenario(s *session, size int) (fields, error) {
	size = defaulted(size, 300_000)
	stream, err := s.open()
	if err != nil {
		return nil, err
	}

	go func() {
		fmt.Fprintf(stream, "echo\n")
		stream.Write(pattern(0, size))
		stream.closeWrite()
	}()

	back, err := io.ReadAll(stream)
	if err != nil {
		return nil, err
	}

	if !bytes.Equal(back, pattern(0, size)) {
		return nil, fmt.Errorf("%d bytes came back, and not those that were sent", len(back))
	}

	return fields{"bytes": size}, waitGone(stream)
}

func uploadScenario(s *session, size int) (fields, error) {
	size = defaulted(size, 10_000_000)
	stream, err := s.open()
	if err != nil {
		return nil, err
	}

	begin := time.Now()
	fmt.Fprintf(stream, "sink\n")

	if err := source(stream, size); err != nil {
		return nil, err
	}

	stream.closeWrite()
	told, err := io.ReadAll(stream)
	if err != nil {
		return nil, err
	}

	hash := sha256.Sum256(pattern(0, size))

	if expected := fmt.Sprintf("%d %s", size, hex.EncodeToString(hash[:])); string(told) != expected {
		return nil, fmt.Errorf("the remote got %s, not %s", told, expected)
	}

	return fields{"bytes": size, "ms": time.Since(begin).Milliseconds()}, waitGone(stream)
}

func downloadScenario(s *session, size int) (fields, error) {
	size = defaulted(size, 10_000_000)
	stream, err := s.open()
	if err != nil {
		return nil, err
	}

	begin := time.Now()
	fmt.Fprintf(stream, "source %d\n", size)
	stream.closeWrite()
	hash := sha256.New()
	length, err := io.Copy(hash, stream)
	if err != nil {
		return nil, err
	}

	if expected := sha256.Sum256(pattern(0, size)); length != int64(size) || !bytes.Equal(hash.Sum(nil), expected[:]) {
		return nil, fmt.Errorf("%d bytes came, not the %d asked for", length, size)
	}

	return fields{"bytes": size, "ms": time.Since(begin).Milliseconds()}, waitGone(stream)
}

// many: streams opened and closed, far fewer ids than streams.
func manyScenario(s *session, size int) (fields, error) {
	size = defaulted(size, 1000)
	const atATime = 20
	errs := make(chan error, size)
	var workers sync.WaitGroup

	for worker := range atATime {
		workers.Go(func() {
			for i := worker; i < size; i += atATime {
				if _, err := echoScenario(s, 100+i); err != nil {
					errs <- err
					return
				}
			}
		})
	}

	workers.Wait()
	close(errs)

	if err := <-errs; err != nil {
		return nil, err
	}

	s.mutex.Lock()
	defer s.mutex.Unlock()
	ids := int(s.next+1) / 2

	if ids > 4*atATime+restingIDs {
		return nil, fmt.Errorf("%d streams took %d ids", size, ids)
	}

	return fields{"streams": size, "ids": ids}, nil
}

// reset: the remote breaks its direction off, and ours is not touched by that.
func resetScenario(s *session, _ int) (fields, error) {
	stream, err := s.open()
	if err != nil {
		return nil, err
	}

	fmt.Fprintf(stream, "reset\n")

	if _, err := io.ReadAll(stream); !errors.Is(err, errReset) {
		return nil, fmt.Errorf("no reset but %v", err)
	}

	stream.closeWrite()

	return nil, waitGone(stream)
}

// be-reset: we break our direction off, the remote's ends by itself.
func beResetScenario(s *session, _ int) (fields, error) {
	stream, err := s.open()
	if err != nil {
		return nil, err
	}

	fmt.Fprintf(stream, "echo\nabc")

	if _, err := io.ReadFull(stream, make([]byte, 3)); err != nil {
		return nil, err
	}

	stream.abandon()
	rest, err := io.ReadAll(stream)

	if len(rest) > 0 || (err != nil && !errors.Is(err, errReset)) {
		return nil, fmt.Errorf("after our reset: %q, %v", rest, err)
	}

	return nil, waitGone(stream)
}

// stop: the remote reads no more, and still has something to say.
func stopScenario(s *session, _ int) (fields, error) {
	stream, err := s.open()
	if err != nil {
		return nil, err
	}

	fmt.Fprintf(stream, "stop\n")
	told, err := io.ReadAll(stream)
	if err != nil {
		return nil, err
	}

	if string(told) != "stopped" {
		return nil, fmt.Errorf("the remote says %q", told)
	}

	stream.mutex.Lock()
	stopped := stream.stopped
	stream.mutex.Unlock()

	if !stopped {
		return nil, errors.New("no STOP_SENDING has come")
	}

	return nil, waitGone(stream)
}

// shapes: messages that a sender may make, if few do.
func shapesScenario(s *session, _ int) (fields, error) {
	stream, err := s.open()
	if err != nil {
		return nil, err
	}

	whole := pattern(0, 40_000)
	// Of exactly 16 KiB with the prefix: tag and length of the field take four bytes, the prefix three.
	largest := whole[:maxMessage-7]
	errorCode := uint32(7)

	messages := []*pb.Message{
		{Message: []byte("ec")},
		{Message: []byte("ho\n")},
		// nothing at all, and an empty one
		{},
		{Message: []byte{}},
		{Message: largest},
		// a field that not everybody knows
		{Message: whole[len(largest):20_000], ErrorCode: &errorCode},
		{Message: whole[20_000:20_001]},
		{Message: whole[20_001:30_000]},
	}

	for _, message := range messages {
		if err := stream.writeMessage(message); err != nil {
			return nil, err
		}
	}

	// The last bytes and the end in one
	stream.mutex.Lock()
	stream.sentFin = true
	err = stream.write(&pb.Message{Message: whole[30_000:], Flag: pb.Message_FIN.Enum()})
	stream.mutex.Unlock()

	if err != nil {
		return nil, err
	}

	back, err := io.ReadAll(stream)
	if err != nil {
		return nil, err
	}

	if !bytes.Equal(back, whole) {
		return nil, fmt.Errorf("%d bytes came back, and not those that were sent", len(back))
	}

	return nil, waitGone(stream)
}

// datagrams: each is answered, whatever its size.
func datagramsScenario(s *session, size int) (fields, error) {
	size = defaulted(size, 1100)
	sizes := []int{0, 1, 100, 500, 1000, size}
	most := size
	lost := 0

	for _, size := range sizes {
		if size > most {
			continue
		}

		payload := append([]byte{0x40, 0x04, request}, pattern(0, size)...)
		answered := false

		for attempt := 0; attempt < 20 && !answered; attempt++ {
			if err := s.sendDatagram(append([]byte{}, payload...)); err != nil {
				return nil, err
			}

			select {
			case back := <-s.datagrams:
				payload[2] = answer
				answered = bytes.Equal(back, payload)
				payload[2] = request
			case <-time.After(500 * time.Millisecond):
				lost++
			}
		}

		if !answered {
			return nil, fmt.Errorf("no answer to datagrams of %d bytes", len(payload))
		}
	}

	return fields{"datagrams": len(sizes), "lost": lost}, nil
}

// waitGone waits until the id can be used again: both sides have reset the SCTP stream.
func waitGone(stream *stream) error {
	done := make(chan struct{})
	go func() {
		stream.wait(func() bool { return stream.gone && stream.closing })
		close(done)
	}()

	select {
	case <-done:
		return nil
	case <-time.After(30 * time.Second):
		stream.mutex.Lock()
		defer stream.mutex.Unlock()

		return fmt.Errorf("the SCTP stream %d is not reset by the remote (FIN %t, RESET %t, FIN_ACK %t, ours reset %t)",
			stream.id, stream.finished, stream.reset, stream.acked, stream.closing)
	}
}

func defaulted(value, otherwise int) int {
	if value == 0 {
		return otherwise
	}

	return value
}
