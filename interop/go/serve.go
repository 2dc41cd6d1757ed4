package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// serve does what the first line of a stream asks for. Both sides do the same, see ../README.md.
func serve(s *stream) {
	reader := bufio.NewReader(s)
	line, err := reader.ReadString('\n')
	if err != nil {
		emit("stream", fields{"id": s.id, "what": "", "end": err.Error()})
		s.abandon()
		return
	}

	word, value, _ := strings.Cut(strings.TrimSpace(line), " ")
	count, _ := strconv.Atoi(value)

	switch word {
	case "echo":
		_, err = io.Copy(onlyWriter{s}, reader)
	case "sink":
		err = sink(s, reader)
	case "source":
		err = source(s, count)
	case "reset":
		// the answer begins, and breaks off
		fmt.Fprintf(s, "going")
		s.abandon()
	case "stop":
		s.closeRead()
		fmt.Fprintf(s, "stopped")
	default:
		err = fmt.Errorf("what is %q?", word)
	}

	if err != nil {
		s.abandon()
	} else {
		s.closeWrite()
	}

	// Quietly: there may be thousands.
	if err != nil {
		emit("stream", fields{"id": s.id, "what": word, "end": err.Error()})
	}
}

// onlyWriter hides what else a stream can do from io.Copy.
type onlyWriter struct{ io.Writer }

func sink(s *stream, reader io.Reader) error {
	hash := sha256.New()
	length, err := io.Copy(hash, reader)
	if err != nil {
		return err
	}

	_, err = fmt.Fprintf(s, "%d %s", length, hex.EncodeToString(hash.Sum(nil)))

	return err
}

func source(s *stream, count int) error {
	for sent := 0; sent < count; {
		piece := pattern(sent, min(64<<10, count-sent))

		if _, err := s.Write(piece); err != nil {
			return err
		}

		sent += len(piece)
	}

	return nil
}

// pattern is the same on both sides: the bytes of a file from an offset.
func pattern(offset, length int) []byte {
	bytes := make([]byte, length)

	for i := range bytes {
		at := uint32(offset + i)
		bytes[i] = byte((at*2654435761)>>24) ^ byte(at)
	}

	return bytes
}
