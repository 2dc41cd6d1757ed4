package main

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// opensslRecords speaks DTLS 1.2 by the command `openssl`, whose s_client and s_server write each record that they receive as
// one packet, and send each packet that they read as one record. What else they write is text.
func opensslRecords(ctx context.Context, more []string, to *endpoint) (*secured, error) {
	folder, err := os.MkdirTemp("", "psec-interop-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)

	// Without "-nbio" a record that OpenSSL drops, since it came twice, has it wait for the next one, and send nothing until then. So no
	// "-listen" either, which undoes it; then only a HelloVerifyRequest must not be lost, see `lossy-relay.ts`.
	arguments := []string{}

	if to.server {
		arguments = append(arguments, "s_server", "-accept", to.address.String(), "-naccept", "1", "-Verify", "1")
	} else {
		arguments = append(arguments, "s_client", "-connect", to.address.String(), "-verify", "1")
	}

	if to.identity.certificate != nil {
		certificate, key, err := to.identity.write(folder)
		if err != nil {
			return nil, err
		}

		arguments = append(arguments, "-cert", certificate, "-key", key)
	}

	arguments = append(arguments, "-dtls1_2", "-nbio", "-mtu", strconv.Itoa(to.mtu))
	child, err := startChild("openssl", append(arguments, more...)...)
	if err != nil {
		return nil, err
	}

	stop := context.AfterFunc(ctx, func() { child.command.Process.Kill() })
	defer stop()
	openssl := &opensslChild{child: child, server: to.server}

	return openssl.handshake(to)
}

type opensslChild struct {
	*child
	server bool
	text   bytes.Buffer
	// a record that was read while looking for more of another
	ahead []byte
}

var (
	acceptLine = regexp.MustCompile(`ACCEPT \S+:(\d+)`)
	cipherLine = regexp.MustCompile(`(?:Cipher is|CIPHER is) (\S+)`)
)

// handshake reads what s_client and s_server print up to where they begin to pass records on.
func (o *opensslChild) handshake(to *endpoint) (*secured, error) {
	listening := false
	buffer := make([]byte, maxPacket)

	for {
		length, err := o.read(buffer)
		if err != nil {
			return nil, fmt.Errorf("openssl has ended before the handshake: %s", lastLines(o.text.String()))
		}

		o.text.Write(buffer[:length])
		text := o.text.String()

		if port := acceptLine.FindStringSubmatch(text); to.server && !listening && port != nil {
			listening = true
			number, _ := strconv.Atoi(port[1])
			emit("listening", fields{"port": number, "version": opensslVersion()})
		}

		if (to.server && strings.Contains(text, "Secure Renegotiation IS")) || (!to.server && strings.HasSuffix(text, "---\n") && strings.Contains(text, "SSL-Session:")) {
			return o.secured(text)
		}
	}
}

func (o *opensslChild) secured(text string) (*secured, error) {
	begin := strings.Index(text, "-----BEGIN CERTIFICATE-----")
	if begin < 0 {
		return nil, errors.New("openssl has seen no certificate")
	}

	block, _ := pem.Decode([]byte(text[begin:]))
	remote, err := verify([][]byte{block.Bytes})
	if err != nil {
		o.end()
		return nil, err
	}

	details := fields{"text": text}
	if cipher := cipherLine.FindStringSubmatch(text); cipher != nil {
		details["cipher"] = cipher[1]
	}

	return &secured{records: o, remote: remote, protocol: "DTLSv1.2", details: details}, nil
}

// s_client reads a record in pieces of this size.
const clientPiece = 1024

func (o *opensslChild) Read(buffer []byte) (int, error) {
	for {
		length, err := o.next(buffer)
		if err != nil {
			return 0, o.reason(err)
		}

		if !isRecord(buffer[:length]) {
			o.text.Write(buffer[:length])
			continue
		}

		for !o.server && length%clientPiece == 0 {
			more := o.rest(buffer[length:])
			if more == 0 {
				break
			}

			length += more
		}

		return length, nil
	}
}

// rest reads the next piece of a record, if there is one: it comes at once.
func (o *opensslChild) rest(buffer []byte) int {
	o.conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	defer o.conn.SetReadDeadline(time.Time{})
	length, err := o.read(buffer)

	if err != nil {
		return 0
	}

	if beginsSCTP(buffer[:length]) {
		o.ahead = append([]byte{}, buffer[:length]...)
		return 0
	}

	return length
}

func (o *opensslChild) next(buffer []byte) (int, error) {
	if o.ahead != nil {
		length := copy(buffer, o.ahead)
		o.ahead = nil

		return length, nil
	}

	return o.read(buffer)
}

// reason tells an orderly end from another one, by what the commands print before they end.
func (o *opensslChild) reason(err error) error {
	text := strings.TrimSpace(o.text.String())
	orderly := !strings.Contains(text, "\nERROR\n")

	if !o.server {
		orderly = strings.HasSuffix(text, "\nclosed")
	}

	if errors.Is(err, io.EOF) && orderly {
		return io.EOF
	}

	return fmt.Errorf("openssl has ended: %s", lastLines(text))
}

func (o *opensslChild) Write(record []byte) (int, error) { return o.write(record) }

func (o *opensslChild) Close() error { return o.end() }

func isRecord(packet []byte) bool {
	return packet[0] <= 1 || beginsSCTP(packet)
}

// beginsSCTP looks for both ports.
func beginsSCTP(packet []byte) bool {
	return len(packet) >= sctpHeader && packet[0] == 0x13 && packet[1] == 0x88 && packet[2] == 0x13 && packet[3] == 0x88
}

func lastLines(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")

	return strings.Join(lines[max(0, len(lines)-6):], " | ")
}

func opensslVersion() string {
	version, err := exec.Command("openssl", "version").Output()
	if err != nil {
		return ""
	}

	return strings.TrimSpace(string(version))
}
