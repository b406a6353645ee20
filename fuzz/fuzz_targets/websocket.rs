//! Whatever bytes follow the opening handshake, the WebSocket ends, and what the server sends
//! is frames as RFC 6455 has them.
#![no_main]

use alknet_fuzz::{TOKEN, ends, http, run};
use libfuzzer_sys::{
    arbitrary::{self, Arbitrary},
    fuzz_target,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[derive(Debug, Arbitrary)]
enum Piece<'a> {
    /// Bytes as they are.
    Raw(&'a [u8]),
    /// A masked frame with this first byte.
    Frame(u8, &'a [u8]),
    /// One whose length is in more bytes than it needs.
    Padded(u8, &'a [u8]),
    /// The head of one that announces so much.
    Head(u8, u64),
}

fn bytes(pieces: &[Piece]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Raw(raw) => bytes.extend(*raw),
            Piece::Frame(first, payload) if payload.len() < 126 => {
                let length = 0x80 | u8::try_from(payload.len()).unwrap();
                bytes.extend([*first, length, 0, 0, 0, 0]);
                bytes.extend(*payload);
            }
            Piece::Frame(first, payload) | Piece::Padded(first, payload) => {
                bytes.extend([*first, 0xfe]);
                bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
                bytes.extend([0; 4]);
                bytes.extend(*payload);
            }
            Piece::Head(first, announced) => {
                bytes.extend([*first, 0xff]);
                bytes.extend(announced.to_be_bytes());
                bytes.extend([0; 4]);
            }
        }
    }
    bytes
}

/// Checks the server's frames: none is masked or has reserved bits, control frames are short
/// and whole, no message is text, and a close frame is the last.
fn check(mut sent: &[u8]) {
    while let [first, second, rest @ ..] = sent {
        let (length, rest) = match second {
            126 => (u64::from(u16::from_be_bytes(*rest.first_chunk().unwrap())), &rest[2..]),
            127 => (u64::from_be_bytes(*rest.first_chunk().unwrap()), &rest[8..]),
            short => (u64::from(*short), rest),
        };
        assert!(length <= 1 << 20);
        let (payload, rest) = rest.split_at(usize::try_from(length).unwrap());
        match first {
            0x82 => {}
            0x88 => {
                assert!(payload.len() != 1 && payload.len() < 126 && rest.is_empty());
                assert!(std::str::from_utf8(payload.get(2..).unwrap_or_default()).is_ok());
            }
            0x89 | 0x8a => assert!(payload.len() < 126),
            other => panic!("a frame that begins with {other:#x}"),
        }
        sent = rest;
    }
}

fuzz_target!(|input: (u8, Vec<Piece>)| {
    let (chunk, bytes) = (usize::from(input.0) + 1, bytes(&input.1));
    run(async {
        let (stream, serving) = http();
        let (mut send, mut recv) = stream.split();
        let request = format!(
            "GET /alknet/echo HTTP/1.1\r\nHost: node.example\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
        );
        send.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(ends("the answer", recv.read_u8()).await.unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 101"));
        let writing = async {
            for chunk in bytes.chunks(chunk) {
                send.write_all(chunk).await?;
            }
            send.shutdown().await
        };
        let mut sent = Vec::new();
        let reading = recv.read_to_end(&mut sent);
        // The server may be gone before it has everything.
        let _ = ends("the stream", async { tokio::join!(writing, reading) }).await;
        ends("the server", serving).await.unwrap();
        check(&sent);
    });
});
