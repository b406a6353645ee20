//! The messages, against bytes of the RFCs and bytes of nobody.

use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt as _, duplex},
    net::UdpSocket,
};

use super::{protocol::*, *};
use crate::{DatagramReceiver, DatagramSender};

/// What a server says to these bytes, and what it makes of them.
async fn negotiated(
    sent: &[u8],
    credentials: Option<&Credentials>,
) -> (Vec<u8>, Result<(Command, Address), ProtocolError>) {
    let (mut near, mut far) = duplex(4096);
    near.write_all(sent).await.unwrap();
    near.shutdown().await.unwrap();
    let asked = async {
        authenticate(&mut far, credentials).await?;
        request(&mut far).await
    };
    let asked = asked.await;
    if let Some(code) = asked.as_ref().err().and_then(ProtocolError::reply) {
        reply(&mut far, code, None).await.unwrap();
    }
    drop(far);
    let mut said = Vec::new();
    near.read_to_end(&mut said).await.unwrap();
    (said, asked)
}

const CONNECT: &[u8] = &[5, 1, 0, 1, 192, 0, 2, 1, 0, 80];

#[tokio::test]
async fn requests_are_read_as_in_the_rfc() {
    let cases: [(&[u8], Command, &str); 4] = [
        (CONNECT, Command::Connect, "192.0.2.1:80"),
        (b"\x05\x01\x00\x03\x0bexample.org\x01\xbb", Command::Connect, "example.org:443"),
        (
            &[5, 1, 0, 4, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 22],
            Command::Connect,
            "[2001:db8::1]:22",
        ),
        (&[5, 3, 0, 1, 0, 0, 0, 0, 0, 0], Command::UdpAssociate, "0.0.0.0:0"),
    ];
    for (bytes, command, address) in cases {
        let (said, asked) = negotiated(&[&[5, 2, 1, 0], bytes].concat(), None).await;
        let (found, target) = asked.unwrap();
        assert_eq!((found, target.to_string().as_str()), (command, address));
        assert_eq!(said, [5, 0]);
    }
}

#[tokio::test]
async fn wrong_requests_get_the_reply_that_is_theirs() {
    let cases: [(&[u8], Option<u8>); 9] = [
        (&[5, 2, 0, 1, 192, 0, 2, 1, 0, 80], Some(7)),
        (&[5, 9, 0, 3, 1, b'a', 0, 80], Some(7)),
        (&[5, 1, 0, 2, 192, 0, 2, 1, 0, 80], Some(8)),
        (&[5, 1, 0, 3, 1, 0xff, 0, 80], Some(8)),
        (&[5, 1, 0, 3, 0, 0, 80], Some(8)),
        (&[5, 1, 0, 3, 1, b'\n', 0, 80], Some(8)),
        (&[4, 1, 0, 1, 192, 0, 2, 1, 0, 80], None),
        (&[5, 1, 0, 3, 200, b'a'], None),
        (&[], None),
    ];
    for (bytes, code) in cases {
        let (said, asked) = negotiated(&[&[5, 1, 0], bytes].concat(), None).await;
        assert!(asked.is_err(), "{bytes:?}");
        let expected = code.map(|code| vec![5, code, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap_or_default();
        assert_eq!(said, [&[5, 0], &expected[..]].concat(), "{bytes:?}");
    }
}

#[tokio::test]
async fn a_password_is_held_against_what_was_set() {
    let password = Zeroizing::new("open sesame".to_owned());
    let credentials = Credentials::new("anna", password).unwrap();
    let login = |user: &str, password: &str| {
        let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        [&[5, 2, 0, 2, 1], &text(user)[..], &text(password), CONNECT].concat()
    };
    let (said, asked) = negotiated(&login("anna", "open sesame"), Some(&credentials)).await;
    assert!(asked.is_ok(), "{asked:?}");
    assert_eq!(said, [5, 2, 1, 0]);
    for (user, password) in [
        ("anna", "open sesam"),
        ("anna", "open sesame "),
        ("Anna", "open sesame"),
        ("", ""),
        ("", "open sesame"),
    ] {
        let (said, asked) = negotiated(&login(user, password), Some(&credentials)).await;
        assert!(matches!(asked, Err(ProtocolError::Credentials)), "{user} {password}");
        assert_eq!(said, [5, 2, 1, 1]);
    }
    // Nobody gets by without one, or with a method that is not there.
    for methods in [&[5, 1, 0][..], &[5, 1, 1], &[5, 0], &[5, 2, 1, 3]] {
        let (said, asked) = negotiated(&[methods, CONNECT].concat(), Some(&credentials)).await;
        assert!(matches!(asked, Err(ProtocolError::Methods)), "{methods:?}");
        assert_eq!(said, [5, 0xff]);
    }
    let (said, _) = negotiated(&[5, 1, 2], None).await;
    assert_eq!(said, [5, 0xff]);
    assert!(!format!("{credentials:?}").contains("sesame"));
    for (user, password) in [("", "a"), ("a", ""), ("a", &"b".repeat(256)[..])] {
        assert!(Credentials::new(user, Zeroizing::new(password.to_owned())).is_err());
    }
}

#[test]
fn replies_have_the_numbers_of_the_rfc() {
    let codes = [
        (ErrorCode::NotAllowed, 2),
        (ErrorCode::NetworkUnreachable, 3),
        (ErrorCode::HostUnreachable, 4),
        (ErrorCode::Invalid, 4),
        (ErrorCode::Refused, 5),
        (ErrorCode::TimedOut, 6),
        (ErrorCode::Unsupported, 7),
        (ErrorCode::Limit, 1),
        (ErrorCode::Failed, 1),
    ];
    for (code, number) in codes {
        assert_eq!(reply_of(code) as u8, number, "{code:?}");
    }
}

#[test]
fn datagrams_have_the_header_of_the_rfc() {
    let address = Address::Name("dns.example".into(), 53);
    let bytes = with_header(&address, b"ask");
    assert_eq!(&bytes[..], b"\0\0\0\x03\x0bdns.example\0\x35ask");
    assert_eq!(datagram(&bytes), Some((address, &b"ask"[..])));
    // Fragments, and what is no datagram.
    for bad in
        [&b"\0\0\x01\x01\x7f\0\0\x01\0\x35x"[..], b"\x01\0\0\x01\x7f\0\0\x01\0\x35", b"", b"\0\0\0"]
    {
        assert_eq!(datagram(bad), None, "{bad:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_are_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        datagram(&bytes);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        drop(runtime.block_on(negotiated(&bytes, None)));
        drop(runtime.block_on(negotiated(&[&[5, 1, 0, 5][..], &bytes].concat(), None)));
    }

    #[test]
    fn addresses_round_trip(name in "[a-z.-]{1,255}", port: u16, ip: std::net::IpAddr) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.build().unwrap();
        for address in [Address::Name(name, port), Address::Ip(SocketAddr::new(ip, port))] {
            let mut bytes = bytes::BytesMut::new();
            address.write(&mut bytes);
            prop_assert_eq!(bytes.len(), address.len());
            let mut rest = &bytes[..];
            prop_assert_eq!(Address::parse(&mut rest), Ok(address.clone()));
            prop_assert!(rest.is_empty());
            let read = runtime.block_on(Address::read(&mut &bytes[..])).unwrap();
            prop_assert_eq!(read, Ok(address));
        }
    }
}

/// What others had sent before the socket was connected to the client is in its queue.
#[tokio::test]
async fn only_the_clients_datagrams_are_passed_on() {
    let bind = || UdpSocket::bind("127.0.0.1:0");
    let (relay, client, another) =
        (bind().await.unwrap(), bind().await.unwrap(), bind().await.unwrap());
    let (to, from) = (relay.local_addr().unwrap(), client.local_addr().unwrap());
    let destination: Address = "192.0.2.1:53".parse::<SocketAddr>().unwrap().into();
    for (socket, payload) in [(&another, &b"forged"[..]), (&client, b"own")] {
        socket.send_to(&with_header(&destination, payload), to).await.unwrap();
    }
    relay.readable().await.unwrap();
    relay.connect(from).await.unwrap();
    let (near, far) = alknet_testing::memory::pair();
    let (send, _) = near.open_bi().await.unwrap().split();
    let mut send = DatagramSender::new(send, None);
    let passed = async {
        let (_, recv) = far.accept_bi().await.unwrap().split();
        DatagramReceiver::new(recv, None).recv().await.unwrap().unwrap()
    };
    tokio::select! {
        ended = udp::up(&relay, from, &mut send) => panic!("{ended:?}"),
        datagram = passed => assert_eq!(datagram.payload, b"own"[..]),
    }
}
