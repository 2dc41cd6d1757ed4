//! wolfSSL's DTLS 1.3 between a UDP port and a socket of packets: every packet on standard input becomes the application data of
//! one DTLS record, and every record that arrives a packet on standard output, each behind a byte that tells what it is.
//! Whoever starts this program does everything else: it makes the certificate, and judges the remote's.
//!
//! Out: `J` an event as JSON, `C` the remote's certificate in DER (the handshake is over), `R` a record, `E` the remote has
//! closed orderly. In: records without a byte before; the end of the input closes orderly.
use std::cell::RefCell;
use std::env;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::process::exit;
use std::time::{Duration, Instant};

const INPUT: c_int = 0;
const OUTPUT: c_int = 1;
const MAX_PACKET: usize = 65_536;

#[repr(C)]
struct Io {
    io: *mut c_void,
    receive: extern "C" fn(*mut c_void, *mut c_char, c_int) -> c_int,
    send: extern "C" fn(*mut c_void, *const c_char, c_int) -> c_int,
}

enum Ssl {}

unsafe extern "C" {
    fn psec_version() -> *const c_char;
    fn psec_new(
        server: c_int,
        certificate: *const c_char,
        key: *const c_char,
        groups: *const c_char,
        cookie: c_int,
        mtu: c_int,
        io: *mut Io,
    ) -> *mut Ssl;
    fn psec_negotiate(ssl: *mut Ssl) -> c_int;
    fn psec_read(ssl: *mut Ssl, buffer: *mut u8, size: c_int) -> c_int;
    fn psec_write(ssl: *mut Ssl, record: *const u8, length: c_int) -> c_int;
    fn psec_shutdown(ssl: *mut Ssl);
    fn psec_timeout(ssl: *mut Ssl) -> c_int;
    fn psec_quick_timeout(ssl: *mut Ssl) -> c_int;
    fn psec_on_timeout(ssl: *mut Ssl) -> c_int;
    fn psec_protocol(ssl: *mut Ssl) -> *const c_char;
    fn psec_cipher(ssl: *mut Ssl) -> *const c_char;
    fn psec_group(ssl: *mut Ssl) -> *const c_char;
    fn psec_error(error: c_int, buffer: *mut c_char) -> *const c_char;
    fn psec_peer_certificate(certificate: *mut *const u8) -> c_int;
}

/// What wolfSSL's callbacks work on: the datagram at hand, if it has not been taken, and the way out
struct Network {
    socket: UdpSocket,
    datagram: RefCell<Option<Vec<u8>>>,
}

extern "C" fn receive(io: *mut c_void, buffer: *mut c_char, size: c_int) -> c_int {
    let network = unsafe { &*io.cast::<Network>() };
    let Some(datagram) = network.datagram.take() else {
        return -1;
    };
    let length = datagram.len().min(size as usize);
    unsafe { std::ptr::copy_nonoverlapping(datagram.as_ptr(), buffer.cast(), length) };

    length as c_int
}

extern "C" fn send(io: *mut c_void, buffer: *const c_char, size: c_int) -> c_int {
    let network = unsafe { &*io.cast::<Network>() };
    let datagram = unsafe { std::slice::from_raw_parts(buffer.cast::<u8>(), size as usize) };

    // The network may lose what can't be sent.
    let _ = network.socket.send(datagram);

    size
}

fn main() {
    let options = Options::parse();
    let socket = UdpSocket::bind(&options.bind)
        .unwrap_or_else(|err| fail(&format!("bind {}: {err}", options.bind)));
    event(&format!(
        r#"{{"event":"port","port":{},"version":"wolfSSL {}"}}"#,
        socket.local_addr().unwrap().port(),
        text(unsafe { psec_version() })
    ));

    let network: &Network = Box::leak(Box::new(Network {
        socket,
        datagram: RefCell::default(),
    }));

    if options.server {
        let mut buffer = vec![0; MAX_PACKET];
        let (length, remote) = network
            .socket
            .recv_from(&mut buffer)
            .unwrap_or_else(|err| fail(&format!("receive: {err}")));
        network
            .socket
            .connect(remote)
            .unwrap_or_else(|err| fail(&format!("connect: {err}")));
        network.datagram.replace(Some(buffer[..length].to_vec()));
    } else {
        network
            .socket
            .connect(&options.remote)
            .unwrap_or_else(|err| fail(&format!("connect: {err}")));
    }

    network.socket.set_nonblocking(true).unwrap();
    let udp = network.socket.as_raw_fd();
    let io = Box::leak(Box::new(Io {
        io: std::ptr::from_ref(network).cast_mut().cast(),
        receive,
        send,
    }));
    let ssl = unsafe {
        psec_new(
            options.server.into(),
            options.certificate.as_ptr(),
            options.key.as_ptr(),
            options.groups.as_ptr(),
            options.cookie.into(),
            options.mtu,
            io,
        )
    };

    if ssl.is_null() {
        fail("wolfSSL refuses the certificate, the key or the groups");
    }

    run(ssl, udp, network, &options)
}

fn run(ssl: *mut Ssl, udp: c_int, network: &Network, options: &Options) -> ! {
    let mut secured = false;
    let mut buffer = vec![0_u8; MAX_PACKET];
    let mut deadline = None;
    advance(ssl, &mut secured);

    loop {
        // Before it is secured, and after that while the last flight may have been lost
        let due = *deadline.get_or_insert_with(|| Instant::now() + timeout(ssl));
        let wait = due.saturating_duration_since(Instant::now()).as_millis() as c_int + 1;
        let mut polled = [
            libc::pollfd {
                fd: udp,
                events: libc::POLLIN,
                revents: 0,
            },
            libc::pollfd {
                fd: if secured { INPUT } else { -1 },
                events: libc::POLLIN,
                revents: 0,
            },
        ];
        unsafe { libc::poll(polled.as_mut_ptr(), 2, wait) };

        if Instant::now() >= due {
            if unsafe { psec_on_timeout(ssl) } < 0 && !secured {
                fail("the handshake timed out");
            }
            deadline = None;
        }

        while let Ok(length) = network.socket.recv(&mut buffer) {
            network.datagram.replace(Some(buffer[..length].to_vec()));
            deadline = None;
            advance(ssl, &mut secured);

            if secured {
                read(ssl, &mut buffer);
            }

            network.datagram.take();

            // Fairness: the other side may be waiting for us to send.
            if polled[1].revents != 0 {
                break;
            }
        }

        if polled[1].revents != 0 {
            let length = unsafe { libc::recv(INPUT, buffer.as_mut_ptr().cast(), MAX_PACKET, 0) };

            if length <= 0 {
                if options.goodbye {
                    unsafe { psec_shutdown(ssl) };
                }
                exit(0);
            }

            let written = unsafe { psec_write(ssl, buffer.as_ptr(), length as c_int) };

            if written < 0 {
                event(&format!(
                    r#"{{"event":"write-failed","bytes":{length},"message":"{}"}}"#,
                    error(written)
                ));
            }
        }
    }
}

fn timeout(ssl: *mut Ssl) -> Duration {
    let timeout = Duration::from_secs(unsafe { psec_timeout(ssl) }.max(1) as u64);

    if unsafe { psec_quick_timeout(ssl) } != 0 {
        timeout / 4
    } else {
        timeout
    }
}

fn advance(ssl: *mut Ssl, secured: &mut bool) {
    if *secured {
        return;
    }

    match unsafe { psec_negotiate(ssl) } {
        0 => {}
        1 => {
            *secured = true;
            event(&format!(
                r#"{{"event":"secured","protocol":"{}","cipher":"{}","group":"{}"}}"#,
                text(unsafe { psec_protocol(ssl) }),
                text(unsafe { psec_cipher(ssl) }),
                text(unsafe { psec_group(ssl) })
            ));
            let mut certificate = std::ptr::null();
            let length = unsafe { psec_peer_certificate(&mut certificate) };
            put(b'C', unsafe {
                std::slice::from_raw_parts(certificate, length as usize)
            });
        }
        code => fail(&format!("handshake: {}", error(code))),
    }
}

fn read(ssl: *mut Ssl, buffer: &mut [u8]) {
    loop {
        match unsafe { psec_read(ssl, buffer.as_mut_ptr(), buffer.len() as c_int) } {
            0 => return,
            -1 => {
                put(b'E', &[]);
                exit(0);
            }
            length if length > 0 => put(b'R', &buffer[..length as usize]),
            code => fail(&format!("read: {}", error(code))),
        }
    }
}

fn put(kind: u8, bytes: &[u8]) {
    let packet = [&[kind], bytes].concat();

    if unsafe {
        libc::send(
            OUTPUT,
            packet.as_ptr().cast(),
            packet.len(),
            libc::MSG_NOSIGNAL,
        )
    } < 0
    {
        exit(1);
    }
}

fn event(json: &str) {
    put(b'J', json.as_bytes());
}

fn fail(message: &str) -> ! {
    event(&format!(
        r#"{{"event":"failed","message":"{}"}}"#,
        message.replace('"', "'")
    ));
    exit(1)
}

fn error(code: c_int) -> String {
    let mut buffer = [0; 256];

    format!(
        "{code} {}",
        text(unsafe { psec_error(code, buffer.as_mut_ptr()) })
    )
}

fn text(string: *const c_char) -> String {
    if string.is_null() {
        String::new()
    } else {
        unsafe { CStr::from_ptr(string) }
            .to_string_lossy()
            .into_owned()
    }
}

struct Options {
    server: bool,
    bind: String,
    remote: String,
    certificate: CString,
    key: CString,
    groups: CString,
    cookie: bool,
    goodbye: bool,
    mtu: c_int,
}

impl Options {
    fn parse() -> Self {
        let mut options = Options {
            server: false,
            bind: "127.0.0.1:0".into(),
            remote: String::new(),
            certificate: CString::default(),
            key: CString::default(),
            groups: CString::default(),
            cookie: true,
            goodbye: true,
            mtu: 1232,
        };
        let mut arguments = env::args().skip(1);

        while let Some(name) = arguments.next() {
            let mut value = || {
                arguments
                    .next()
                    .unwrap_or_else(|| fail(&format!("{name} needs a value")))
            };

            match name.as_str() {
                "--server" => options.server = true,
                "--bind" => options.bind = value(),
                "--remote" => options.remote = value(),
                "--cert" => options.certificate = CString::new(value()).unwrap(),
                "--key" => options.key = CString::new(value()).unwrap(),
                "--groups" => options.groups = CString::new(value()).unwrap(),
                "--no-cookie" => options.cookie = false,
                "--no-goodbye" => options.goodbye = false,
                "--mtu" => {
                    options.mtu = value()
                        .parse()
                        .unwrap_or_else(|_| fail("--mtu takes a number"))
                }
                _ => fail(&format!("there is no option {name}")),
            }
        }

        options
    }
}
