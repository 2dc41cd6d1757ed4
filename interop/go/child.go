package main

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
)

const maxPacket = 1 << 16

// child is another program at the other end of a socket that keeps packets apart, which is the program's standard input and
// output.
type child struct {
	conn    *net.UnixConn
	command *exec.Cmd
}

func startChild(program string, arguments ...string) (*child, error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}

	ours := os.NewFile(uintptr(pair[0]), "ours")
	theirs := os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	defer theirs.Close()

	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, err
	}

	command := exec.Command(program, arguments...)
	command.Stdin = theirs
	command.Stdout = theirs
	command.Stderr = os.Stderr
	// It must not outlive us.
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}

	if err := command.Start(); err != nil {
		return nil, err
	}

	return &child{conn: conn.(*net.UnixConn), command: command}, nil
}

// read returns the next packet; io.EOF when the program has closed its output.
func (c *child) read(buffer []byte) (int, error) {
	length, err := c.conn.Read(buffer)

	// The program has ended without having read everything, which is told before what it had still written.
	if errors.Is(err, syscall.ECONNRESET) {
		length, err = c.conn.Read(buffer)
	}

	if length == 0 {
		return 0, io.EOF
	}

	return length, err
}

func (c *child) write(packet []byte) (int, error) {
	return c.conn.Write(packet)
}

// end closes the program's input, which has it say goodbye and end.
func (c *child) end() error {
	return c.conn.CloseWrite()
}
