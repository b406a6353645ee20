use std::sync::Arc;

use alknet_core::{Audit, ClosedBy, RecvStream, SendStream, TransportKind};
use alknet_testing::{identities::identity, memory};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::{GitConfig, InstalledGit, Repositories, Request, Service, Settings};

/// Enough for anything that is not meant to take time.
const PATIENCE: Duration = Duration::from_secs(60);
/// A packet line that ends a list.
const FLUSH: &[u8] = b"0000";

/// A node with the repositories `private` and `public`.
struct Node {
    adapter: Arc<GitAdapter>,
    handlers: JoinSet<()>,
    _folder: TempDir,
}

impl Node {
    fn new(exchanges: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let repositories = Repositories::open(folder.path()).unwrap();
        for (name, public) in [("private", false), ("public", true)] {
            let settings = Settings { public, ..Settings::default() };
            repositories.create(&name.parse().unwrap(), &settings).unwrap();
        }
        let engine = InstalledGit::find().unwrap();
        let mut config = GitConfig::new(repositories, engine, Audit::to_log());
        config.limits.exchanges = exchanges;
        let adapter = Arc::new(GitAdapter::new(GitServer::new(config)));
        Self { adapter, handlers: JoinSet::new(), _folder: folder }
    }

    /// The client's end of a connection of somebody with these scopes.
    fn connect(&mut self, scopes: &[&str]) -> Connection {
        let (near, far) = memory::pair();
        let alpn = Alpn::service("git").unwrap();
        let mut auth = AuthContext::anonymous(alpn, TransportKind::Memory, None);
        auth.identity = Some(Arc::new(identity("alice", scopes)));
        let adapter = self.adapter.clone();
        self.handlers.spawn(async move { adapter.handle(far, auth).await.unwrap() });
        near
    }

    async fn ended(&mut self) {
        let all = async { while self.handlers.join_next().await.is_some() {} };
        timeout(PATIENCE, all).await.unwrap();
    }
}

fn request(service: Service, name: &str) -> Vec<u8> {
    Request::new(service, name.parse().unwrap()).version(0).to_line("node")
}

/// Opens a stream with these bytes.
async fn open(connection: &Connection, bytes: &[u8]) -> (SendStream, RecvStream) {
    let mut stream = connection.open_bi().await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.split()
}

/// The next packet line; `None` where there is none.
async fn packet(recv: &mut RecvStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    timeout(PATIENCE, recv.read_exact(&mut length)).await.unwrap().ok()?;
    let length = usize::from_str_radix(std::str::from_utf8(&length).unwrap(), 16).unwrap();
    let mut line = vec![0; length.saturating_sub(4)];
    timeout(PATIENCE, recv.read_exact(&mut line)).await.unwrap().unwrap();
    Some(line)
}

/// All that comes.
async fn rest(mut recv: RecvStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    timeout(PATIENCE, recv.read_to_end(&mut bytes)).await.unwrap().unwrap();
    bytes
}

#[tokio::test]
async fn a_stream_is_an_exchange_and_a_connection_has_several() {
    let mut node = Node::new(4);
    let connection = node.connect(&["git:read:private"]);
    for name in ["private", "public", "private"] {
        let (mut send, mut recv) = open(&connection, &request(Service::UploadPack, name)).await;
        let first = packet(&mut recv).await.unwrap();
        let first = String::from_utf8_lossy(&first).into_owned();
        assert!(first.contains("capabilities^{}\0"), "{first}");
        send.write_all(FLUSH).await.unwrap();
        send.shutdown().await.unwrap();
        assert_eq!(rest(recv).await, FLUSH);
    }
    connection.close(Code::NORMAL, "");
    node.ended().await;
}

#[tokio::test]
async fn what_is_private_is_answered_like_what_is_not_there() {
    let mut node = Node::new(4);
    for scopes in [&["git:read:other"][..], &["git:write:privat"], &["git:create:other"]] {
        let connection = node.connect(scopes);
        for service in [Service::UploadPack, Service::ReceivePack, Service::UploadArchive] {
            let mut answers = Vec::new();
            for name in ["private", "missing"] {
                let (_send, recv) = open(&connection, &request(service, name)).await;
                let answer = String::from_utf8(rest(recv).await).unwrap();
                assert!(answer.get(4..).unwrap().starts_with("ERR there is no"), "{answer}");
                answers.push(answer.replace(name, "*"));
            }
            assert_eq!(answers[0], answers[1]);
        }
    }
    // What they may read and not push to, they hear of.
    let reader = node.connect(&["git:read:private"]);
    let (_send, recv) = open(&reader, &request(Service::ReceivePack, "private")).await;
    let answer = String::from_utf8(rest(recv).await).unwrap();
    assert!(answer.contains("ERR you may not push"), "{answer}");
}

#[tokio::test]
async fn what_is_no_request_is_told_so_and_harms_nothing() {
    let mut node = Node::new(4);
    let connection = node.connect(&["git"]);
    let long = "a".repeat(3000);
    for line in [
        "git-upload-pack /../private\0host=x\0",
        "git-upload-pack --upload-pack=id\0",
        "git-upload-pack /-x\0",
        "git-upload-pack /pri\0vate\0",
        "git-upload-pack private;id\0",
        "git-shell /private\0",
        &format!("git-upload-pack /{long}\0"),
    ] {
        let bytes = format!("{:04x}{line}", line.len() + 4);
        let (_send, recv) = open(&connection, bytes.as_bytes()).await;
        let answer = rest(recv).await;
        assert_eq!(answer.get(4..8), Some(&b"ERR "[..]), "{line:?}");
    }
    for bytes in [&b"GET / HTTP/1.1\r\n"[..], b"0000", b"0003", b"fff0"] {
        let (_send, recv) = open(&connection, bytes).await;
        let length = rest(recv).await.len();
        assert!(length > 8, "{bytes:?}");
    }
    let (mut send, mut recv) = open(&connection, &request(Service::UploadPack, "private")).await;
    assert!(packet(&mut recv).await.is_some());
    send.shutdown().await.unwrap();
}

#[tokio::test]
async fn no_more_exchanges_run_at_once_than_the_limit_says() {
    let mut node = Node::new(2);
    let connection = node.connect(&["git"]);
    let mut first = open(&connection, &request(Service::UploadPack, "private")).await;
    let mut second = open(&connection, &request(Service::UploadPack, "private")).await;
    assert!(packet(&mut first.1).await.is_some() && packet(&mut second.1).await.is_some());
    let (_send, mut third) = open(&connection, &request(Service::UploadPack, "public")).await;
    let begun = packet(&mut third);
    tokio::pin!(begun);
    first.0.write_all(FLUSH).await.unwrap();
    tokio::select! {
        biased;
        _ = &mut begun => panic!("there was no room"),
        _ = rest(first.1) => {}
    }
    assert!(begun.await.is_some());
}

#[tokio::test]
async fn a_node_that_ends_finishes_what_it_has_begun_and_begins_nothing() {
    let mut node = Node::new(4);
    let connection = node.connect(&["git"]);
    let (mut send, mut recv) = open(&connection, &request(Service::UploadPack, "private")).await;
    assert!(packet(&mut recv).await.is_some());
    node.adapter.shutdown().await;
    let (_late, mut refused) = open(&connection, &request(Service::UploadPack, "public")).await;
    send.write_all(FLUSH).await.unwrap();
    assert_eq!(rest(recv).await, FLUSH);
    connection.close(Code::NORMAL, "");
    node.ended().await;
    assert!(packet(&mut refused).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_nothing_is_sent_away() {
    let mut node = Node::new(4);
    let connection = node.connect(&["git"]);
    let closed = connection.closed().await;
    assert_eq!((closed.by, closed.code), (ClosedBy::Peer, Code::TIMEOUT));
    node.ended().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_does_not_come_to_its_end_is_not_waited_for() {
    let mut node = Node::new(4);
    let connection = node.connect(&["git"]);
    let request = request(Service::UploadPack, "private");
    for part in [&b""[..], b"00", &request[..request.len() - 1]] {
        let (_send, mut recv) = open(&connection, part).await;
        let ended = recv.read_to_end(&mut Vec::new()).await;
        assert!(ended.is_err() || part.is_empty(), "{part:?}");
    }
}
