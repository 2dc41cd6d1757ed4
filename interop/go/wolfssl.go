package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
)

// wolfsslRecords speaks DTLS 1.3 by wolfSSL, in the program of ../wolfssl.
func wolfsslRecords(ctx context.Context, program string, more []string, to *endpoint) (*secured, error) {
	folder, err := os.MkdirTemp("", "psec-interop-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)

	certificate, key, err := to.identity.write(folder)
	if err != nil {
		return nil, err
	}

	arguments := []string{"--cert", certificate, "--key", key, "--mtu", strconv.Itoa(to.mtu)}

	if to.server {
		arguments = append(arguments, "--server", "--bind", to.address.String())
	} else {
		arguments = append(arguments, "--remote", to.address.String(), "--bind", net.JoinHostPort(to.address.IP.String(), "0"))
	}

	child, err := startChild(program, append(arguments, more...)...)
	if err != nil {
		return nil, err
	}

	stop := context.AfterFunc(ctx, func() { child.command.Process.Kill() })
	defer stop()
	result := &secured{records: &wolfsslChild{child}}

	for buffer := make([]byte, maxPacket); ; {
		length, err := child.read(buffer)
		if err != nil {
			return nil, fmt.Errorf("wolfSSL has ended before the handshake: %w", err)
		}

		switch kind, packet := buffer[0], buffer[1:length]; kind {
		case 'J':
			if err := wolfsslEvent(packet, to.server, result); err != nil {
				return nil, err
			}
		case 'C':
			result.remote, err = verify([][]byte{packet})
			if err != nil {
				child.end()
				return nil, err
			}

			return result, nil
		default:
			return nil, fmt.Errorf("wolfSSL says %q before the handshake is over", kind)
		}
	}
}

func wolfsslEvent(packet []byte, server bool, result *secured) error {
	var event struct {
		Event, Message, Version, Protocol, Cipher, Group string
		Port                                             int
	}

	if err := json.Unmarshal(packet, &event); err != nil {
		return err
	}

	switch event.Event {
	case "port":
		if server {
			emit("listening", fields{"port": event.Port, "version": event.Version})
		}
	case "secured":
		result.protocol = event.Protocol
		result.details = fields{"cipher": event.Cipher, "group": event.Group}
	case "failed":
		return errors.New(event.Message)
	}

	return nil
}

type wolfsslChild struct{ *child }

func (w *wolfsslChild) Read(buffer []byte) (int, error) {
	packet := make([]byte, maxPacket)

	for {
		length, err := w.read(packet)
		if err != nil {
			// It says so if the remote has closed.
			return 0, errors.New("wolfSSL has ended")
		}

		switch packet[0] {
		case 'R':
			return copy(buffer, packet[1:length]), nil
		case 'E':
			return 0, io.EOF
		case 'J':
			emit("wolfssl", fields{"message": string(packet[1:length])})
		}
	}
}

func (w *wolfsslChild) Write(record []byte) (int, error) { return w.write(record) }

func (w *wolfsslChild) Close() error { return w.end() }
