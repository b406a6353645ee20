use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    time::Instant,
};

use super::*;

#[test]
fn arguments_are_read() {
    let args = ["20", "0.5", "100"].map(str::to_owned);
    let conditions = parse(&args).unwrap();
    assert_eq!(conditions.rtt, Duration::from_millis(20));
    assert_eq!(conditions.loss, 5_000);
    assert_eq!(conditions.rate, Some(12_500_000));
    assert!(parse(&["-1".to_owned()]).is_err());
    assert!(parse(&["x".to_owned()]).is_err());
}

#[test]
fn tcp_and_udp_pass_late_and_nothing_passes_when_all_is_lost() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not run: a network namespace takes a superuser");
        return;
    }
    let rtt = Duration::from_millis(20);
    let path = NetPath::start(Conditions { rtt, ..Conditions::default() }).unwrap();
    let (server, client) = (Side::Server, Side::Client);
    let listener = path.at(server, || TcpListener::bind((server.address(), 0))).unwrap().unwrap();
    let there = listener.local_addr().unwrap();
    let start = Instant::now();
    let mut near = path.at(client, || TcpStream::connect(there)).unwrap().unwrap();
    assert!(start.elapsed() >= rtt);
    let (mut far, peer) = listener.accept().unwrap();
    assert_eq!(peer.ip(), client.address());
    near.write_all(&[7; 100_000]).unwrap();
    let mut received = vec![0; 100_000];
    far.read_exact(&mut received).unwrap();
    assert!(received.iter().all(|byte| *byte == 7));

    let [near, far] = [client, server]
        .map(|side| path.at(side, || UdpSocket::bind((side.address(), 0))).unwrap().unwrap());
    let start = Instant::now();
    near.send_to(b"one", far.local_addr().unwrap()).unwrap();
    assert_eq!(far.recv(&mut received).unwrap(), 3);
    assert!(start.elapsed() >= rtt / 2);

    path.lose(1_000_000);
    near.send_to(b"two", far.local_addr().unwrap()).unwrap();
    far.set_read_timeout(Some(rtt * 5)).unwrap();
    far.recv(&mut received).unwrap_err();
}
