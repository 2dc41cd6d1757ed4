package main

import (
	"net"

	"github.com/libp2p/go-libp2p/core/peer"
)

// records is a DTLS association once its handshake is over. Each Write is the application data of one record, each Read returns
// that of one; io.EOF is the remote's close_notify.
type records interface {
	Read([]byte) (int, error)
	Write([]byte) (int, error)
	// Close sends close_notify.
	Close() error
}

// secured is what a handshake leads to.
type secured struct {
	records  records
	remote   peer.ID
	protocol string
	details  fields
}

// endpoint says where to, or on which address to wait, and as whom.
type endpoint struct {
	server   bool
	address  *net.UDPAddr
	identity *identity
	mtu      int
}

func (e *endpoint) network() string {
	if e.address.IP.To4() != nil {
		return "udp4"
	}

	return "udp6"
}
