//! What is no SFTP.

use std::error::Error as _;

use alknet_sftp::{PacketError, Session, SessionError, Shared, View};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::client::{
    BAD_MESSAGE, CREATE, Client, FAILURE, OK, READ, UNSUPPORTED, WRITE, fields, packet,
};

fn session(base: &std::path::Path) -> Session {
    Session::new(View::account(base).unwrap(), Shared::default())
}

#[tokio::test]
async fn a_packet_that_is_too_long_ends_the_session() {
    for length in [256 * 1024 + 1, u32::MAX, 0x8000_0000] {
        let dir = tempfile::tempdir().unwrap();
        let mut client = Client::account(dir.path()).await;
        client.send(&length.to_be_bytes()).await;
        let error = client.ended().await.unwrap_err();
        assert!(
            matches!(error, SessionError::Packet(PacketError::TooLong(n)) if n == length),
            "{error:?}"
        );
        assert!(error.source().unwrap().to_string().contains("the longest has 262144"));
    }
}

#[tokio::test]
async fn the_longest_packet_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = Client::account(dir.path()).await;
    let handle = client.opened("f", WRITE | CREATE).await;
    let data = vec![7; 256 * 1024 - 1 - 4 - 12 - 8 - 4];
    assert_eq!(client.write(&handle, 0, &data).await.status(), OK);
    assert_eq!(client.close(&handle).await.status(), OK);
    assert_eq!(std::fs::read(dir.path().join("f")).unwrap(), data);
}

#[tokio::test]
async fn what_does_not_begin_with_a_version_is_no_session() {
    for bytes in
        [&b"GET / HTTP/1.1\r\n"[..], &[0, 0, 0, 5, 3, 0, 0, 0, 1], &[0; 4], &[0, 0, 0, 1, 1]]
    {
        let dir = tempfile::tempdir().unwrap();
        let mut client = Client::raw(session(dir.path()));
        client.send(bytes).await;
        let error = client.ended().await.unwrap_err();
        assert!(matches!(error, SessionError::Packet(_)), "{error:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let mut client = Client::account(dir.path()).await;
    client.send(&[0, 0, 0, 5, 1, 0, 0, 0, 3]).await;
    let twice = client.ended().await.unwrap_err();
    assert!(matches!(twice, SessionError::Packet(PacketError::NoVersion)), "{twice:?}");
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let client = Client::raw(session(dir.path()));
    assert!(matches!(client.ended().await, Err(SessionError::Silent)));
}

#[tokio::test]
async fn a_stream_that_ends_within_a_packet_is_cut_off_and_one_between_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let whole = Client::account(dir.path()).await;
    whole.end().await.unwrap();
    let mut cut = Client::account(dir.path()).await;
    cut.send(&[0, 0, 0, 9, 17]).await;
    assert!(matches!(cut.end().await, Err(SessionError::CutOff)));
    let nothing = Client::raw(session(dir.path()));
    nothing.end().await.unwrap();
}

/// Lengths within a packet that lead out of it.
#[tokio::test]
async fn a_request_whose_fields_are_not_there_is_a_bad_message_and_the_next_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = Client::account(dir.path()).await;
    let handle = client.opened("f", READ | WRITE | CREATE).await;
    let mut requests = vec![
        (3, fields()),
        (3, fields().u32(u32::MAX)),
        (3, fields().u32(0x8000_0000).u32(0)),
        (3, fields().text("f")),
        (3, fields().text("f").u32(READ).u32(1).u32(0)),
        (5, fields().text(&handle).u64(0)),
        (6, fields().text(&handle).u64(0).u32(u32::MAX)),
        (6, fields().text(&handle).u64(0).u32(10)),
        (18, fields().text("f")),
        (200, fields().u32(9)),
        (200, fields().text("copy-data").text(&handle)),
        (200, fields().text("users-groups-by-id@openssh.com").u32(4)),
    ];
    requests.extend((4..=20).map(|kind| (kind, fields().u32(7))));
    for (kind, fields) in requests {
        assert_eq!(client.ask(kind, fields).await.status(), BAD_MESSAGE, "{kind}");
    }
    for kind in [0, 2, 21, 99, 101, 105, 199, 201, 255] {
        assert_eq!(client.ask(kind, fields().text("x")).await.status(), UNSUPPORTED);
    }
    let unknown = client.extended("nobody@example.org", fields()).await;
    assert_eq!(unknown.status(), UNSUPPORTED);
    assert_eq!(client.write(&handle, 0, b"still here").await.status(), OK);
}

#[tokio::test]
async fn handles_that_nobody_gave_out_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = Client::account(dir.path()).await;
    let real = client.opened("f", READ | WRITE | CREATE).await;
    let folder = Client::handle(&client.ask(11, fields().text(".")).await);
    let long = [1; 4096];
    for handle in [&b""[..], b"0", &[0xff; 8], &[0; 4], &long] {
        for (kind, more) in
            [(4, vec![]), (5, vec![0; 12]), (6, vec![0; 12]), (8, vec![]), (12, vec![])]
        {
            let mut request = fields().text(handle);
            request.0.extend(more);
            assert_eq!(client.ask(kind, request).await.status(), FAILURE, "{handle:?} {kind}");
        }
    }
    // The right handle of the wrong kind.
    assert_eq!(client.read(&folder, 0, 10).await.status(), FAILURE);
    assert_eq!(client.ask(12, fields().text(&real)).await.status(), FAILURE);
    assert_eq!(client.close(&real).await.status(), OK);
    assert_eq!(client.close(&real).await.status(), FAILURE);
    assert_ne!(client.opened("f", READ).await, real);
}

#[tokio::test]
async fn offsets_that_overflow_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = Client::account(dir.path()).await;
    let handle = client.opened("f", READ | WRITE | CREATE).await;
    for offset in [1 << 63, u64::MAX, u64::MAX - 5] {
        assert_eq!(client.read(&handle, offset, 32768).await.status(), BAD_MESSAGE);
        assert_eq!(client.write(&handle, offset, b"0123456789").await.status(), BAD_MESSAGE);
    }
    // The largest that is one: nothing is there.
    assert_eq!(client.read(&handle, i64::MAX as u64 - 32768, 32768).await.status(), 1);
    assert_ne!(client.write(&handle, i64::MAX as u64, b"0123456789").await.status(), OK);
    let copied = fields().text(&handle).u64(u64::MAX).u64(u64::MAX).text(&handle).u64(u64::MAX);
    assert_eq!(client.extended("copy-data", copied).await.status(), FAILURE);
    let size = fields().text(&handle).u32(1).u64(u64::MAX);
    assert_ne!(client.ask(10, size).await.status(), OK);
    // More than is read at once.
    client.write(&handle, 0, &[1; 1000]).await;
    assert_eq!(client.read(&handle, 0, u32::MAX).await.body.len(), 1004);
}

#[tokio::test]
async fn a_hundred_thousand_opens_end_in_an_error_and_no_harm() {
    const OPENS: u32 = 100_000;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), "x").unwrap();
    let client = Client::account(dir.path()).await;
    let (mut reader, mut writer) = tokio::io::split(client.stream);
    let sender = tokio::spawn(async move {
        for id in 0..OPENS {
            let open = fields().text("f").u32(READ).u32(0);
            writer.write_all(&packet(3, id, open)).await.unwrap();
        }
        writer
    });
    let (mut opened, mut refused) = (0, 0);
    for _ in 0..OPENS {
        let length = reader.read_u32().await.unwrap();
        let mut bytes = vec![0; length as usize];
        reader.read_exact(&mut bytes).await.unwrap();
        match bytes[0] {
            102 => opened += 1,
            _ => {
                assert!(String::from_utf8_lossy(&bytes).contains("too many open handles"));
                refused += 1;
            }
        }
    }
    assert_eq!((opened, refused), (512, OPENS - 512));
    drop(sender.await.unwrap());
}

/// The handles of one session are not all there are.
#[tokio::test]
async fn sessions_share_a_limit_and_give_back_what_they_had() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), "x").unwrap();
    let mut limits = alknet_sftp::SftpLimits::default();
    (limits.handles, limits.all_handles) = (2, 3);
    let shared = Shared::new(limits);
    let session = || Session::new(View::account(dir.path()).unwrap(), shared.clone());
    let (mut one, mut two) = (Client::of(session()).await, Client::of(session()).await);
    one.opened("f", READ).await;
    let last = one.opened("f", READ).await;
    assert_eq!(one.open("f", READ).await.message(), "too many open handles");
    two.opened("f", READ).await;
    assert_eq!(two.open("f", READ).await.message(), "too many open handles");
    one.close(&last).await;
    two.opened("f", READ).await;
    two.end().await.unwrap();
    one.opened("f", READ).await;
}

/// A client that asks and asks and reads no answer: the server stops reading. The clock
/// stands still while anything is under way, so that time passes only when all are stuck.
#[tokio::test(start_paused = true)]
async fn answers_that_nobody_reads_are_not_piled_up() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), vec![5; 1 << 20]).unwrap();
    let mut client = Client::limited(dir.path(), |limits| limits.memory = 1 << 20).await;
    let handle = client.opened("f", READ).await;
    let request = |id| packet(5, id, fields().text(&handle).u64(0).u32(255 * 1024));
    let mut sent = 0;
    // Until neither the server nor the pipe takes any more. Were there no bound, all of
    // these would fit: they are small.
    let stuck = loop {
        if sent == 10_000 {
            break false;
        }
        let bytes = request(sent);
        let write = client.stream.write_all(&bytes);
        if tokio::time::timeout(std::time::Duration::from_secs(10), write).await.is_err() {
            break true;
        }
        sent += 1;
    };
    assert!(stuck);
    // The pipe itself holds 64 KiB of requests.
    assert!(sent < 2 * 64 * 1024 / 37, "{sent}");
    client.vanish().await;
}

#[tokio::test]
async fn ten_thousand_requests_ahead_are_all_answered() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), vec![5; 1 << 20]).unwrap();
    let mut client = Client::account(dir.path()).await;
    let handle = client.opened("f", READ).await;
    let (mut reader, mut writer) = tokio::io::split(client.stream);
    let sender = tokio::spawn(async move {
        for id in 0..10_000u32 {
            let read = fields().text(&handle).u64(u64::from(id)).u32(4096);
            writer.write_all(&packet(5, id, read)).await.unwrap();
        }
        writer
    });
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..10_000 {
        let length = reader.read_u32().await.unwrap();
        let mut bytes = vec![0; length as usize];
        reader.read_exact(&mut bytes).await.unwrap();
        assert_eq!((bytes[0], bytes.len()), (103, 9 + 4096));
        seen.insert(u32::from_be_bytes(bytes[1..5].try_into().unwrap()));
    }
    assert_eq!(seen.len(), 10_000);
    drop(sender.await.unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    /// Whatever comes, the session ends, and nothing outside of its folder is touched.
    #[test]
    fn any_bytes_end_a_session_in_good_order(packets in prop::collection::vec(
        (any::<u8>(), prop::collection::vec(any::<u8>(), 0..80)), 0..40,
    ), noise in prop::collection::vec(any::<u8>(), 0..64)) {
        let dir = tempfile::tempdir().unwrap();
        let export = alknet_sftp::Export::new("e", dir.path()).unwrap();
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let grant = alknet_sftp::Grant::new(&export, true, true);
            let session = Session::new(View::exports(grant), Shared::default());
            let mut input = vec![0, 0, 0, 5, 1, 0, 0, 0, 3];
            for (id, (kind, body)) in packets.iter().enumerate() {
                let kind = if *kind == 1 { 17 } else { *kind };
                input.extend(packet(kind, id as u32, crate::client::Fields(body.clone())));
            }
            input.extend(&noise);
            // Whether it fails is its affair; that it ends, and without a panic, is not.
            if let Err(SessionError::Panic(panic)) = session.serve(&input[..], Vec::new()).await {
                panic!("{panic}");
            }
        });
    }
}
