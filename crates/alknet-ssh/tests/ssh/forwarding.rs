//! Forwarded connections: where they go, who may have them, and how they end.

use std::{
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use russh::{ChannelMsg, ChannelOpenFailure, client::Handle};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixListener},
    task::JoinSet,
    time::sleep,
};

use crate::{
    certificates::Team,
    node::{Node, PATIENCE, Trust, run, soon},
    openssh::{finish, text},
};

const BULK: usize = 64 * 1024 * 1024;

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

async fn client(node: &Node, scopes: &[&str]) -> Handle<Trust> {
    let key = node.user("alice", scopes);
    let mut client = node.client().await;
    assert!(node.log_in(&mut client, key).await);
    client
}

type Opened = Result<russh::Channel<russh::client::Msg>, ChannelOpenFailure>;

async fn open(client: &Handle<Trust>, host: &str, port: u16) -> Opened {
    let opening = client.channel_open_direct_tcpip(host, port.into(), "127.0.0.1", 1);
    reason(soon("the answer", opening).await)
}

fn reason(opened: Result<russh::Channel<russh::client::Msg>, russh::Error>) -> Opened {
    opened.map_err(|error| match error {
        russh::Error::ChannelOpenFailure(reason) => reason,
        other => panic!("{other}"),
    })
}

fn assert_refused(opened: Opened, reason: ChannelOpenFailure) {
    assert_eq!(format!("{:?}", opened.err()), format!("{:?}", Some(reason)));
}

#[tokio::test]
async fn each_direction_of_a_connection_ends_on_its_own() {
    let node = Node::new();
    node.allow(&["127.0.0.0/8:*"], &[]);
    let client = client(&node, &["forward:connect"]).await;
    let (listener, port) = listener().await;
    let channel = open(&client, "127.0.0.1", port).await.unwrap();
    let (mut socket, _) = listener.accept().await.unwrap();

    let mut stream = channel.into_stream();
    stream.write_all(b"question").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut asked = String::new();
    soon("the client's end", socket.read_to_string(&mut asked)).await.unwrap();
    assert_eq!(asked, "question");
    socket.write_all(b"answer").await.unwrap();
    drop(socket);
    let mut answered = String::new();
    soon("the socket's end", stream.read_to_string(&mut answered)).await.unwrap();
    assert_eq!(answered, "answer");
}

#[tokio::test]
async fn whoever_asks_and_asks_does_not_fill_the_audit_log() {
    /// As many at once as one transport has room for.
    const AT_ONCE: usize = 100;
    const ASKED: usize = 5 * AT_ONCE;
    let node = Node::new();
    let (key, begun) = (node.user("alice", &["forward:connect"]), Instant::now());
    for _ in 0..2 {
        let mut client = node.client().await;
        assert!(node.log_in(&mut client, key.clone()).await);
        let client = Arc::new(client);
        for _ in 0..ASKED / AT_ONCE {
            let ask =
                |client: Arc<Handle<Trust>>| async move { open(&client, "127.0.0.1", 9).await };
            let asked = JoinSet::from_iter((0..AT_ONCE).map(|_| ask(client.clone())));
            assert!(asked.join_all().await.iter().all(Result::is_err));
        }
    }
    let (counted, told) = loop {
        let refusals = node.audit.refusals();
        let left_out = refusals.iter().filter_map(|why| {
            let (before, _) = why.split_once(" more that are not recorded")?;
            before.rsplit(' ').next()?.parse::<usize>().ok()
        });
        let counted = refusals.iter().filter(|why| why.starts_with("forwarding: ")).count();
        let told = counted + left_out.sum::<usize>();
        if told == 2 * ASKED {
            break (counted, told);
        }
        assert!(begun.elapsed() < PATIENCE, "{told} of {}: {refusals:?}", 2 * ASKED);
        sleep(Duration::from_millis(10)).await;
    };
    let most = 64 + usize::try_from(begun.elapsed().as_secs()).unwrap() + 1;
    assert!((64..=most).contains(&counted), "{counted} of {told}, and at most {most}");
}

#[tokio::test]
async fn nothing_is_forwarded_by_itself() {
    let node = Node::new();
    let client = client(&node, &["*"]).await;
    let (_listener, port) = listener().await;
    use ChannelOpenFailure::AdministrativelyProhibited as Prohibited;
    assert_refused(open(&client, "127.0.0.1", port).await, Prohibited);
    assert_refused(open(&client, "example.org", 443).await, Prohibited);
    let path = client.channel_open_direct_streamlocal("/run/x.sock").await;
    assert_refused(reason(path), Prohibited);
    assert!(client.tcpip_forward("127.0.0.1", 0).await.is_err());
    assert!(client.streamlocal_forward(node.file("s").to_str().unwrap()).await.is_err());
    let refusals = node.audit.refusals();
    assert_eq!(refusals[0], format!("forwarding: connect to 127.0.0.1:{port}: no rule allows it"));
    assert_eq!(refusals.len(), 5, "{refusals:?}");
    assert_eq!(node.audit.of("refused")[0].identity.as_deref(), Some("id-alice"));
}

#[tokio::test]
async fn a_rule_takes_a_grant() {
    let node = Node::new();
    let (_listener, port) = listener().await;
    node.allow(&["127.0.0.0/8:*"], &[]);
    let exactly = format!("forward:connect:127.0.0.1:{port}");
    for (scopes, allowed) in [
        (vec!["ssh"], false),
        (vec!["forward:listen", "ssh"], false),
        (vec!["forward:connect:127.0.0.1:1"], false),
        (vec![exactly.as_str()], true),
        (vec!["forward"], true),
    ] {
        let client = client(&node, &scopes).await;
        assert_eq!(open(&client, "127.0.0.1", port).await.is_ok(), allowed, "{scopes:?}");
    }
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_is_no_refusal() {
    let node = Node::new();
    node.allow(&["127.0.0.0/8:*"], &[]);
    let client = client(&node, &["forward"]).await;
    let port = listener().await.1;
    assert_refused(open(&client, "127.0.0.1", port).await, ChannelOpenFailure::ConnectFailed);
    let beyond = client.channel_open_direct_tcpip("127.0.0.1", 65536 + 22, "", 0).await;
    assert_refused(reason(beyond), ChannelOpenFailure::ConnectFailed);
    assert!(node.audit.refusals().is_empty());
}

#[tokio::test]
async fn a_connection_that_does_not_come_about_holds_up_nothing() {
    let node = Node::new();
    node.allow(&["*:443"], &[]);
    let client = client(&node, &["forward", "ssh"]).await;
    let waiting = client.channel_open_direct_tcpip("never.example", 443, "", 0);
    tokio::select! {
        _ = waiting => panic!("an answer"),
        outcome = run(&client, "echo through") => assert_eq!(outcome.text(), "through\n"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_connection_holds_up_no_other() {
    let node = Node::new();
    node.allow(&["127.0.0.0/8:*"], &[]);
    let client = client(&node, &["forward", "ssh"]).await;
    let (listener, port) = listener().await;
    // One that the client does not read, and one that takes nothing from the client.
    let unread = open(&client, "127.0.0.1", port).await.unwrap();
    let (mut source, _) = listener.accept().await.unwrap();
    let deaf = open(&client, "127.0.0.1", port).await.unwrap();
    let (mut sink, _) = listener.accept().await.unwrap();
    let (mut unread, _unread_write) = unread.split();
    let (_deaf_read, deaf) = deaf.split();

    let flood = async {
        let bulk = vec![7; BULK];
        tokio::join!(
            async {
                source.write_all(&bulk).await.unwrap();
                source.shutdown().await.unwrap();
            },
            async {
                deaf.data_bytes(bulk.clone()).await.unwrap();
                deaf.eof().await.unwrap();
            },
        );
    };
    let others = async {
        let busy = soon("the busy channel", run(&client, "head -c 64M /dev/zero")).await;
        assert_eq!((busy.stdout.len(), busy.status), (BULK, Some(0)));
        let mut received = 0;
        while let Some(ChannelMsg::Data { data }) = unread.wait().await {
            received += data.len();
        }
        assert_eq!(received, BULK);
        let mut taken = Vec::new();
        sink.read_to_end(&mut taken).await.unwrap();
        assert_eq!(taken.len(), BULK);
    };
    soon("all of them", async { tokio::join!(flood, others) }).await;
}

#[tokio::test]
async fn connections_are_counted() {
    let node = Node::with_limits(|limits| limits.forwards = 2);
    node.allow(&["127.0.0.0/8:*"], &[]);
    let client = client(&node, &["forward"]).await;
    let (listener, port) = listener().await;
    let first = open(&client, "127.0.0.1", port).await.unwrap();
    let _second = open(&client, "127.0.0.1", port).await.unwrap();
    assert_refused(open(&client, "127.0.0.1", port).await, ChannelOpenFailure::ResourceShortage);
    let (mut socket, _) = listener.accept().await.unwrap();
    first.close().await.unwrap();
    let _ = soon("the end", socket.read_to_end(&mut Vec::new())).await;
    drop(socket);
    soon("room", async { while open(&client, "127.0.0.1", port).await.is_err() {} }).await;
}

#[tokio::test]
async fn what_was_sent_before_a_close_arrives() {
    let node = Node::new();
    node.allow(&["127.0.0.0/8:*"], &[]);
    let client = client(&node, &["forward"]).await;
    let (listener, port) = listener().await;
    let channel = open(&client, "127.0.0.1", port).await.unwrap();
    let (mut socket, _) = listener.accept().await.unwrap();
    channel.data_bytes(vec![7; 1024 * 1024]).await.unwrap();
    channel.close().await.unwrap();
    let mut taken = Vec::new();
    soon("the end", socket.read_to_end(&mut taken)).await.unwrap();
    assert_eq!(taken.len(), 1024 * 1024);
}

#[tokio::test]
async fn connections_end_with_the_login_and_not_as_if_they_were_whole() {
    let node = Node::new();
    node.allow(&["127.0.0.0/8:*"], &[]);
    let key = node.user("alice", &["forward"]);
    let mut client = node.client().await;
    assert!(node.log_in(&mut client, key.clone()).await);
    let (listener, port) = listener().await;
    let channel = open(&client, "127.0.0.1", port).await.unwrap();
    let (mut socket, _) = listener.accept().await.unwrap();
    channel.data_bytes("half").await.unwrap();
    let mut half = [0; 4];
    socket.read_exact(&mut half).await.unwrap();
    node.revoke(&key).await;
    let end = soon("the end", socket.read_to_end(&mut Vec::new())).await;
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_listener_ends_with_its_transport() {
    let node = Node::new();
    node.allow(&[], &["localhost:*"]);
    let client = client(&node, &["forward"]).await;
    let port = client.tcpip_forward("localhost", 0).await.unwrap();
    let port = u16::try_from(port).unwrap();
    let mut taken = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    drop(client);
    let _ = soon("the end of the connection", taken.read_to_end(&mut Vec::new())).await;
    let gone = async {
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    soon("the end of the listener", gone).await;
}

#[tokio::test]
async fn listening_is_bounded_ends_when_asked_and_looks_nothing_up() {
    let node = Node::with_limits(|limits| limits.listeners = 2);
    node.allow(&[], &["localhost:*", "*:*"]);
    let client = client(&node, &["forward"]).await;
    let first = client.tcpip_forward("localhost", 0).await.unwrap();
    client.tcpip_forward("localhost", 0).await.unwrap();
    assert!(client.tcpip_forward("localhost", 0).await.is_err());
    assert!(client.cancel_tcpip_forward("localhost", first + 1).await.is_err());
    client.cancel_tcpip_forward("localhost", first).await.unwrap();
    assert!(client.tcpip_forward("never.example", 0).await.is_err());
    assert!(client.tcpip_forward("localhost", 65536).await.is_err());
    client.tcpip_forward("localhost", first).await.unwrap();
    let refusals = node.audit.refusals();
    assert_eq!(
        refusals,
        [
            "forwarding: listen on localhost:0: too many at once",
            "forwarding: listen on never.example:0: not an address",
        ]
    );
}

#[tokio::test]
async fn a_unix_socket_is_connected_to() {
    let node = Node::new();
    let path = node.file("service");
    node.allow(&[path.to_str().unwrap()], &[]);
    let listener = UnixListener::bind(&path).unwrap();
    let client = client(&node, &["forward"]).await;
    let channel = client.channel_open_direct_streamlocal(path.to_str().unwrap()).await.unwrap();
    let (mut socket, _) = listener.accept().await.unwrap();
    socket.write_all(b"hello").await.unwrap();
    drop(socket);
    let mut text = String::new();
    channel.into_stream().read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hello");
    let other = client.channel_open_direct_streamlocal("/dev/log").await;
    assert_refused(reason(other), ChannelOpenFailure::AdministrativelyProhibited);
}

#[tokio::test]
async fn forwarding_takes_a_certificate_s_extension() {
    let node = Node::new();
    let (listener, port) = listener().await;
    node.allow(&["127.0.0.0/8:*"], &["localhost:*"]);
    let team = Team::of(node, &["forward", "ssh"]).await;
    let direct = format!("-W127.0.0.1:{port}");
    let remote = format!("-R0:127.0.0.1:{port}");
    team.certify("ca", &["-n", "team", "-O", "no-port-forwarding"]).await;
    let refused = finish(&mut team.ssh(&[&direct])).await;
    assert!(text(&refused.stderr).contains("administratively prohibited"));
    let options = ["-oExitOnForwardFailure=yes", remote.as_str()];
    let refused = finish(team.ssh(&options).arg("true")).await;
    assert_eq!(refused.status.code(), Some(255), "{}", text(&refused.stderr));
    let refusals = team.setup.node.audit.refusals();
    let reason = "the certificate is without permit-port-forwarding; ";
    assert!(refusals.iter().all(|it| it.starts_with(reason)), "{refusals:?}");
    assert_eq!(refusals.len(), 2);

    team.certify("ca", &["-n", "team"]).await;
    let mut ssh = team.ssh(&[&direct]);
    let serve = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(b"hello").await.unwrap();
    };
    let (output, ()) = tokio::join!(finish(&mut ssh), serve);
    assert_eq!(text(&output.stdout), "hello");
}

#[tokio::test]
async fn what_is_not_offered_is_refused_and_the_transport_goes_on() {
    let node = Node::new();
    let client = client(&node, &["ssh"]).await;
    let x11 = client.channel_open_x11("127.0.0.1", 6000).await;
    assert_refused(reason(x11), ChannelOpenFailure::AdministrativelyProhibited);
    // `keepalive@openssh.com`.
    soon("an answer", client.send_ping()).await.unwrap();
    let channel = client.channel_open_session().await.unwrap();
    channel.request_x11(true, false, "MIT-MAGIC-COOKIE-1", "00", 0).await.unwrap();
    channel.request_subsystem(true, "no-such").await.unwrap();
    let (mut read, _write) = channel.split();
    for _ in 0..2 {
        assert!(matches!(soon("an answer", read.wait()).await, Some(ChannelMsg::Failure)));
    }
    assert_eq!(run(&client, "echo on").await.text(), "on\n");
}
