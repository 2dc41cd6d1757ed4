// A peer of the scheme /dtls/1.0.0 without the negotiation, of nothing but other people's parts: DTLS by pion, wolfSSL or OpenSSL,
// SCTP by pion, certificates and messages by go-libp2p. See ../README.md for what it prints and takes.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

func main() {
	listen := flag.String("listen", "", "be the DTLS server on this address, port 0 for any")
	connect := flag.String("connect", "", "be the DTLS client of this address")
	dtls := flag.String("dtls", "pion", "whose DTLS: pion, openssl (both 1.2), wolfssl (1.3)")
	wolfssl := flag.String("wolfssl", "", "the program of ../wolfssl")
	more := flag.String("more", "", "options for wolfssl or openssl, between spaces")
	keyType := flag.String("key", "ed25519", "the libp2p key: ed25519, ecdsa, secp256k1, rsa")
	fault := flag.String("fault", "", "what is wrong with the certificate: none (it is missing), no-extension, foreign-signature, expired")
	mtu := flag.Int("mtu", 1232, "the most bytes of a datagram in the handshake")
	runs := flag.String("run", "", "scenarios to run at once, \"all\" for all of them, then close and end")
	patience := flag.Duration("timeout", 20*time.Second, "for the handshake")
	flag.Parse()

	ctx, cancel := context.WithTimeout(context.Background(), *patience)
	defer cancel()

	address := *listen + *connect
	to := &endpoint{server: *listen != "", mtu: *mtu}
	var err error

	if to.address, err = net.ResolveUDPAddr("udp", address); err != nil {
		fail(err)
	}

	if to.identity, err = newIdentity(*keyType, *fault); err != nil {
		fail(err)
	}

	emit("identity", fields{"peerId": to.identity.id.String()})
	secured, err := handshake(ctx, *dtls, *wolfssl, *more, to)
	if err != nil {
		fail(err)
	}

	emit("secured", merge(fields{"remotePeer": secured.remote.String(), "protocol": secured.protocol}, secured.details))
	session, err := newSession(secured, to.server)
	if err != nil {
		fail(fmt.Errorf("SCTP: %w", err))
	}

	emit("connected", nil)

	if *runs != "" {
		runAll(session, *runs)
		session.close()
	} else {
		go obey(session)
	}

	<-session.ended
	// what it still has to say
	time.Sleep(50 * time.Millisecond)
}

func handshake(ctx context.Context, dtls, wolfssl, more string, to *endpoint) (*secured, error) {
	var options []string

	for _, option := range strings.FieldsFunc(more, func(r rune) bool { return r == ' ' }) {
		options = append(options, option)
	}

	switch dtls {
	case "pion":
		return pionRecords(ctx, to)
	case "wolfssl":
		return wolfsslRecords(ctx, wolfssl, options, to)
	case "openssl":
		return opensslRecords(ctx, options, to)
	default:
		return nil, fmt.Errorf("there is no DTLS of %q", dtls)
	}
}

func runAll(session *session, list string) {
	if list == "all" {
		list = strings.Join(names, ",")
	}

	for _, name := range strings.Split(list, ",") {
		report(session, name, 0)
	}
}

func report(session *session, name string, size int) {
	details, err := run(session, name, size)
	result := merge(fields{"scenario": name, "ok": err == nil}, details)

	if err != nil {
		result["message"] = err.Error()
	}

	emit("result", result)
}

// obey takes commands from standard input, a line of JSON each; its end is a command to close.
func obey(session *session) {
	lines := bufio.NewScanner(os.Stdin)

	for lines.Scan() {
		var command struct {
			Do       string
			Scenario string
			Size     int
		}

		if err := json.Unmarshal(lines.Bytes(), &command); err != nil {
			fail(err)
		}

		switch command.Do {
		case "run":
			report(session, command.Scenario, command.Size)
		case "streams":
			emit("streams", fields{"open": session.openStreams()})
		case "close":
			session.close()
		case "abort":
			session.abort()
		default:
			fail(fmt.Errorf("there is no command %q", command.Do))
		}
	}

	session.close()
}
