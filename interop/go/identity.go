package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"

	ic "github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
)

// identity is a libp2p key and a certificate that go-libp2p has made for it, or one with a fault.
type identity struct {
	id          peer.ID
	certificate *tls.Certificate
}

var keyTypes = map[string]int{"ed25519": ic.Ed25519, "ecdsa": ic.ECDSA, "secp256k1": ic.Secp256k1, "rsa": ic.RSA}

func newIdentity(keyType string, fault string) (*identity, error) {
	kind, known := keyTypes[keyType]
	if !known {
		return nil, fmt.Errorf("there is no key type %q", keyType)
	}

	key, _, err := ic.GenerateKeyPair(kind, 2048)
	if err != nil {
		return nil, err
	}

	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return nil, err
	}

	certificate, err := newCertificate(key, fault)
	if err != nil {
		return nil, err
	}

	return &identity{id: id, certificate: certificate}, nil
}

func newCertificate(key ic.PrivKey, fault string) (*tls.Certificate, error) {
	switch fault {
	case "":
		return libp2pCertificate(key, nil)
	case "expired":
		return libp2pCertificate(key, &x509.Certificate{
			SerialNumber: big.NewInt(1),
			NotBefore:    time.Now().Add(-2 * time.Hour),
			NotAfter:     time.Now().Add(-time.Hour),
		})
	case "none":
		return nil, nil
	case "no-extension":
		return selfSigned()
	case "foreign-signature":
		other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}

		// The libp2p key vouches for another key than the certificate's.
		extension, err := libp2ptls.GenerateSignedExtension(key, other.Public())
		if err != nil {
			return nil, err
		}

		return selfSigned(extension)
	default:
		return nil, fmt.Errorf("there is no fault %q", fault)
	}
}

func libp2pCertificate(key ic.PrivKey, template *x509.Certificate) (*tls.Certificate, error) {
	var options []libp2ptls.IdentityOption

	if template != nil {
		options = append(options, libp2ptls.WithCertTemplate(template))
	}

	made, err := libp2ptls.NewIdentity(key, options...)
	if err != nil {
		return nil, err
	}

	config, _ := made.ConfigForPeer("")

	return &config.Certificates[0], nil
}

func selfSigned(extensions ...pkix.Extension) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}

	template := &x509.Certificate{
		SerialNumber:    big.NewInt(1),
		NotBefore:       time.Now().Add(-time.Hour),
		NotAfter:        time.Now().Add(time.Hour),
		ExtraExtensions: extensions,
	}

	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}

	return &tls.Certificate{Certificate: [][]byte{certificate}, PrivateKey: key}, nil
}

// write puts certificate and key where a program that wants files finds them.
func (i *identity) write(folder string) (certificate string, key string, err error) {
	private, err := x509.MarshalPKCS8PrivateKey(i.certificate.PrivateKey)
	if err != nil {
		return "", "", err
	}

	certificate = filepath.Join(folder, "certificate.pem")
	key = filepath.Join(folder, "key.pem")
	blocks := map[string]*pem.Block{
		certificate: {Type: "CERTIFICATE", Bytes: i.certificate.Certificate[0]},
		key:         {Type: "PRIVATE KEY", Bytes: private},
	}

	for path, block := range blocks {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			return "", "", err
		}
	}

	return certificate, key, nil
}

// verify is go-libp2p's judgement of a remote's certificates.
func verify(rawCertificates [][]byte) (peer.ID, error) {
	chain := make([]*x509.Certificate, len(rawCertificates))

	for i, raw := range rawCertificates {
		certificate, err := x509.ParseCertificate(raw)
		if err != nil {
			return "", err
		}

		chain[i] = certificate
	}

	key, err := libp2ptls.PubKeyFromCertChain(chain)
	if err != nil {
		return "", err
	}

	return peer.IDFromPublicKey(key)
}
