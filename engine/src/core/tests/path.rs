//! How sessions of DTLS get to know what their path carries, and what they make of it.

use super::*;

/// What a session's packet has around a datagram: a record's header and tag, and a byte that says what it is.
const AROUND: u64 = 23;

fn net(carries: usize) -> Net {
    let mut net = Net::of(Scheme::Dtls);
    for end in [&mut net.a, &mut net.b] {
        let keypair = libp2p_identity::Keypair::generate_ed25519();
        let settings = DtlsSettings {
            max_packet_size: 16_000,
            ..dtls_settings()
        };
        let own = own_certificate(&keypair).unwrap();
        let identity = DtlsIdentity::with_certificate(own, settings).unwrap();
        end.identity = Identity::Dtls(Arc::new(identity));
    }
    carry(&mut net, carries);
    net.secure();
    net
}

/// Lose every packet that is larger.
fn carry(net: &mut Net, most: usize) {
    net.change = Box::new(move |_, datagram| {
        if datagram.len() > most {
            datagram.clear();
        }
    });
}

fn transfer(net: &mut Net, stream: u64, bytes: usize, time: Duration) {
    let before = net.b.stream_bytes(stream).len();
    write(net, stream, &vec![7; bytes]);
    let consumed = Command::Consumed {
        session: 9,
        stream,
        bytes,
    };
    net.b.core.handle_command(net.now, consumed);
    net.run(time);
    assert_eq!(net.b.stream_bytes(stream).len(), before + bytes);
}

fn send_datagram(net: &mut Net, size: usize) {
    let command = Command::Datagram {
        session: 1,
        payload: vec![7; size].into(),
    };
    net.a.core.handle_command(net.now, command);
}

fn told_size(net: &Net) -> u64 {
    net.a.records(Kind::Path).last().unwrap()[0]
}

fn sizes_from_a(net: &Net) -> impl Iterator<Item = usize> {
    let from_a = net.sent.iter().filter(|(from, _)| *from == A.into());
    from_a.map(|(_, datagram)| datagram.len())
}

#[test]
fn packets_become_as_large_as_the_path_carries() {
    let mut net = net(9000);
    assert_eq!(told_size(&net), 1452 - AROUND);
    assert!(sizes_from_a(&net).all(|size| size <= 1452));

    let stream = open_stream(&mut net);
    transfer(&mut net, stream, 400_000, Duration::from_secs(2));
    assert_eq!(told_size(&net), 8952 - AROUND);
    net.sent.clear();
    transfer(&mut net, stream, 100_000, Duration::from_secs(2));
    assert!(sizes_from_a(&net).filter(|size| *size > 7000).count() > 10);
    // Of the other side they do not, which has sent nothing to speak of.
    let [at_b, ..] = *net.b.records(Kind::Path).last().unwrap();
    assert_eq!(at_b, 1452 - AROUND);
}

#[test]
fn a_stream_goes_on_over_a_path_that_carries_less_than_before() {
    let mut net = net(9000);
    let stream = open_stream(&mut net);
    transfer(&mut net, stream, 400_000, Duration::from_secs(2));
    carry(&mut net, 1300);
    transfer(&mut net, stream, 100_000, Duration::from_secs(3));
    assert_eq!(told_size(&net), 1232 - AROUND);
}

#[test]
fn datagrams_that_a_path_does_not_carry_any_more_are_noticed() {
    let mut net = net(1500);
    carry(&mut net, 1300);
    send_datagram(&mut net, 1400);
    net.run(Duration::from_secs(20));
    assert_eq!(net.b.records(Kind::Datagram).len(), 0);
    assert_eq!(told_size(&net), 1232 - AROUND);
    send_datagram(&mut net, 1200);
    net.run(Duration::from_secs(1));
    assert_eq!(net.b.records(Kind::Datagram).len(), 1);
}

#[test]
fn small_datagrams_share_a_packet() {
    let mut net = net(1500);
    net.sent.clear();
    for _ in 0..40 {
        send_datagram(&mut net, 100);
    }
    net.run(Duration::from_millis(1));
    assert_eq!(net.b.records(Kind::Datagram).len(), 40);
    // And a heartbeat, and its answer
    assert!(net.sent.len() <= 5);
}

#[test]
fn nothing_larger_than_wanted_is_tried() {
    let mut net = Net::of(Scheme::Dtls);
    net.secure();
    let stream = open_stream(&mut net);
    transfer(&mut net, stream, 400_000, Duration::from_secs(700));
    assert!(net.sent.iter().all(|(_, datagram)| datagram.len() <= 1232));
    assert_eq!(told_size(&net), 1232 - AROUND);
}
