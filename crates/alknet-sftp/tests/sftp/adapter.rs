//! `alknet/sftp`: who sees what, and what is in the audit log.

use std::{
    fs,
    sync::{Arc, Mutex},
};

use alknet_core::{
    Alpn, Audit, AuditEvent, AuditSink, AuthContext, AuthMethod, Connection, ProtocolHandler as _,
    TransportKind,
};
use alknet_host::{Account, Accounts};
use alknet_sftp::{Export, SftpAdapter, SftpConfig, SftpLimits, SftpServer};
use alknet_testing::identities::identity;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::client::{CREATE, Fields, READ, WRITE, fields, packet};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<AuditEvent>>>);

impl AuditSink for Log {
    fn record(&self, event: AuditEvent) {
        self.0.lock().unwrap().push(event);
    }
}

impl Log {
    fn lines(&self) -> Vec<String> {
        let events = self.0.lock().unwrap();
        let line = |it: &AuditEvent| {
            assert!(it.identity.is_some() && it.alpn.as_deref() == Some("alknet/sftp"));
            let moved = it.bytes_read.zip(it.bytes_written);
            let moved = moved.map(|(read, written)| format!(" {read}/{written}"));
            let subject = it.subject.as_deref().unwrap_or_default();
            let name = it.name.as_ref().map(|name| format!(" {name}"));
            let reason = it.reason.as_ref().map(|reason| format!(" ({reason})"));
            let more = [name, reason, moved].into_iter().flatten().collect::<String>();
            format!("{} {subject}{more}", it.event)
        };
        events.iter().map(line).collect()
    }
}

fn caller(scopes: &str) -> AuthContext {
    let alpn = Alpn::service("sftp").unwrap();
    let mut auth = AuthContext::anonymous(alpn, TransportKind::Memory, None);
    auth.identity = Some(Arc::new(identity("tester", &scopes.split(',').collect::<Vec<_>>())));
    auth.method = AuthMethod::TlsKey;
    auth
}

fn start(exports: Vec<Export>, scopes: &str) -> (Connection, Log) {
    start_with(exports, scopes, SftpLimits::default())
}

fn start_with(exports: Vec<Export>, scopes: &str, limits: SftpLimits) -> (Connection, Log) {
    let log = Log::default();
    let server = SftpServer::new(SftpConfig {
        accounts: Accounts::own(Account::current().unwrap()),
        exports,
        audit: Audit::new(log.clone()),
        limits,
        helper: None,
    });
    let (near, far) = alknet_testing::memory::pair();
    let auth = caller(scopes);
    tokio::spawn(async move { SftpAdapter::new(server).handle(far, auth).await });
    (near, log)
}

/// A session on a stream of its own, as far as the greeting.
async fn session(connection: &Connection) -> alknet_core::Stream {
    let mut stream = connection.open_bi().await.unwrap();
    stream.write_all(&[0, 0, 0, 5, 1, 0, 0, 0, 3]).await.unwrap();
    assert_eq!(answer(&mut stream).await.0, 2);
    stream
}

async fn answer(stream: &mut alknet_core::Stream) -> (u8, Vec<u8>) {
    let mut bytes = vec![0; stream.read_u32().await.unwrap() as usize];
    stream.read_exact(&mut bytes).await.unwrap();
    (bytes[0], bytes[5..].to_vec())
}

async fn ask(stream: &mut alknet_core::Stream, kind: u8, fields: Fields) -> (u8, Vec<u8>) {
    stream.write_all(&packet(kind, 1, fields)).await.unwrap();
    answer(stream).await
}

#[tokio::test]
async fn what_is_done_is_in_the_audit_log() {
    let dir = tempfile::tempdir().unwrap();
    let export = Export::new("notes", dir.path()).unwrap();
    let (connection, log) = start(vec![export], "sftp:read:notes,sftp:write:notes");
    let mut stream = session(&connection).await;
    let (_, handle) =
        ask(&mut stream, 3, fields().text("notes/f").u32(READ | WRITE | CREATE).u32(0)).await;
    let handle = &handle[4..];
    ask(&mut stream, 6, fields().text(handle).u64(0).text("hello")).await;
    ask(&mut stream, 5, fields().text(handle).u64(1).u32(3)).await;
    ask(&mut stream, 4, fields().text(handle)).await;
    ask(&mut stream, 9, fields().text("/notes/f").u32(4).u32(0o600)).await;
    ask(&mut stream, 14, fields().text("notes/d").u32(0)).await;
    ask(&mut stream, 18, fields().text("notes/f").text("notes/d/g")).await;
    ask(&mut stream, 20, fields().text("d/g").text("notes/l")).await;
    ask(&mut stream, 13, fields().text("notes/l")).await;
    ask(&mut stream, 15, fields().text("notes/d")).await;
    ask(&mut stream, 3, fields().text("notes/d/g").u32(READ).u32(0)).await;
    ask(&mut stream, 20, fields().text("/etc/passwd").text("notes/l")).await;
    let (_, handle) = ask(&mut stream, 3, fields().text("notes/d/g").u32(READ).u32(0)).await;
    ask(&mut stream, 10, fields().text(&handle[4..]).u32(4).u32(0o640)).await;
    ask(&mut stream, 4, fields().text(&handle[4..])).await;
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(
        log.lines(),
        [
            "sftp-open /notes/f (read and write)",
            "sftp-close /notes/f 3/5",
            "sftp-setstat /notes/f",
            "sftp-mkdir /notes/d",
            "sftp-rename /notes/f /notes/d/g",
            "sftp-symlink /notes/l d/g",
            "sftp-remove /notes/l",
            "sftp-open /notes/d/g (read)",
            "refused /notes/l /etc/passwd (sftp-symlink: a link in an export leads down from where it is)",
            "sftp-open /notes/d/g (read)",
            "sftp-setstat /notes/d/g",
            "sftp-close /notes/d/g 0/0",
            "sftp-close /notes/d/g (the session ended) 0/0",
        ]
    );
}

#[tokio::test]
async fn scopes_say_what_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("f"), "x").unwrap();
    let exports = || {
        let export = |name: &str| Export::new(name, dir.path()).unwrap();
        vec![export("notes"), export("music")]
    };
    let list = async |scopes: &str| {
        let (connection, _) = start(exports(), scopes);
        let mut stream = session(&connection).await;
        let (kind, handle) = ask(&mut stream, 11, fields().text("/")).await;
        assert_eq!(kind, 102);
        let (_, names) = ask(&mut stream, 12, fields().text(&handle[4..])).await;
        let text = String::from_utf8_lossy(&names).into_owned();
        (text.contains("notes"), text.contains("music"), text.contains("tmp"))
    };
    assert_eq!(list("sftp:read:notes").await, (true, false, false));
    assert_eq!(list("sftp:*:music").await, (false, true, false));
    assert_eq!(list("sftp:read").await, (true, true, false));
    assert_eq!(list("sftp").await, (false, false, true));
    for scopes in ["sftp:read:other", "ssh", "sftp:list:notes"] {
        let (connection, _) = start(exports(), scopes);
        connection.closed().await;
    }
}

#[tokio::test]
async fn streams_are_sessions_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let (connection, _) = start(vec![Export::new("e", dir.path()).unwrap()], "sftp:write:e");
    let (mut one, mut two) = (session(&connection).await, session(&connection).await);
    let (kind, handle) = ask(&mut one, 3, fields().text("e/f").u32(WRITE | CREATE).u32(0)).await;
    assert_eq!(kind, 102);
    assert_eq!(ask(&mut two, 4, fields().text(&handle[4..])).await.0, 101);
    one.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
    let mut rest = Vec::new();
    let _ = one.read_to_end(&mut rest).await;
    assert_eq!(ask(&mut two, 17, fields().text("e/f")).await.0, 105);
}

#[tokio::test]
async fn an_identity_has_a_share_of_the_handles_over_all_sessions() {
    let dir = tempfile::tempdir().unwrap();
    let mut limits = SftpLimits::default();
    limits.identity_handles = 3;
    let exports = vec![Export::new("e", dir.path()).unwrap()];
    let (connection, _) = start_with(exports, "sftp:read:e", limits);
    let (mut one, mut two) = (session(&connection).await, session(&connection).await);
    let open = || fields().text("/e");
    assert_eq!(ask(&mut one, 11, open()).await.0, 102);
    let (_, handle) = ask(&mut one, 11, open()).await;
    assert_eq!(ask(&mut two, 11, open()).await.0, 102);
    assert_eq!(ask(&mut two, 11, open()).await.0, 101);
    ask(&mut one, 4, fields().text(&handle[4..])).await;
    assert_eq!(ask(&mut two, 11, open()).await.0, 102);
}

#[tokio::test]
async fn refused_requests_do_not_fill_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let exports = vec![Export::new("notes", dir.path()).unwrap()];
    let (connection, log) = start(exports, "sftp:read:notes");
    for _ in 0..10 {
        let mut stream = session(&connection).await;
        for _ in 0..100 {
            let path = format!("/notes/{}", "\u{1}".repeat(4000));
            ask(&mut stream, 18, fields().text(&path).text(&path)).await;
        }
        stream.shutdown().await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
    }
    let events = log.0.lock().unwrap();
    // One more a second, and one at the end of each session.
    assert!(events.len() < 64 + 10 + 60, "{}", events.len());
    for event in events.iter() {
        assert_eq!(event.event, AuditEvent::REFUSED);
        assert!(serde_json::to_vec(event).unwrap().len() < 5000);
    }
}
