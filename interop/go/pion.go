package main

import (
	"context"
	"crypto/x509"
	"net"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/pion/dtls/v3"
)

// pionRecords speaks DTLS 1.2 by pion.
func pionRecords(ctx context.Context, to *endpoint) (*secured, error) {
	var remote peer.ID
	shared := []dtls.Option{
		dtls.WithInsecureSkipVerify(true),
		dtls.WithExtendedMasterSecret(dtls.RequireExtendedMasterSecret),
		dtls.WithFlightInterval(250 * time.Millisecond),
		dtls.WithMTU(to.mtu),
		dtls.WithVerifyPeerCertificate(func(rawCertificates [][]byte, _ [][]*x509.Certificate) (err error) {
			remote, err = verify(rawCertificates)
			return err
		}),
	}

	if to.identity.certificate != nil {
		shared = append(shared, dtls.WithCertificates(*to.identity.certificate))
	}

	conn, err := pionConn(to, shared)
	if err != nil {
		return nil, err
	}

	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}

	state, _ := conn.ConnectionState()

	return &secured{
		records:  conn,
		remote:   remote,
		protocol: "DTLSv1.2",
		details:  fields{"cipher": dtls.CipherSuiteName(state.CipherSuiteID)},
	}, nil
}

func pionConn(to *endpoint, shared []dtls.Option) (*dtls.Conn, error) {
	if to.server {
		options := []dtls.ServerOption{
			dtls.WithClientAuth(dtls.RequireAnyClientCert),
			// dimpl's ClientHello offers use_srtp. Who does without ignores that (RFC 5764, section 4.1.1), but pion, if it has
			// no profile in common, ends the handshake with insufficient_security.
			dtls.WithSRTPProtectionProfiles(dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AES128_CM_HMAC_SHA1_80),
		}

		for _, option := range shared {
			options = append(options, option)
		}

		listener, err := dtls.ListenWithOptions(to.network(), to.address, options...)
		if err != nil {
			return nil, err
		}

		emit("listening", fields{"port": listener.Addr().(*net.UDPAddr).Port})
		conn, err := listener.Accept()
		if err != nil {
			return nil, err
		}

		return conn.(*dtls.Conn), nil
	}

	options := []dtls.ClientOption{}

	for _, option := range shared {
		options = append(options, option)
	}

	return dtls.DialWithOptions(to.network(), to.address, options...)
}
