//! Services that take the place of programs.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use alknet_core::BoxFuture;
use alknet_ssh::{Asker, ChannelService, Request, ServiceChannel};
use russh::{ChannelMsg, client::Handle};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    certificates::Team,
    node::{Node, Outcome, Trust, log_in_as, outcome, run, soon},
    openssh::{finish, text},
};

const STALLED: usize = 64 * 1024 * 1024;

/// Takes the subsystem `echo` and every command that begins with `echo-`. It gives back
/// what it gets; its exit status is 7.
#[derive(Debug, Default)]
struct Echo {
    running: Arc<AtomicUsize>,
}

struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl ChannelService for Echo {
    fn name(&self) -> &'static str {
        "echo"
    }

    fn login_name(&self) -> Option<&'static str> {
        Some("parrot")
    }

    fn variables(&self) -> &'static [&'static str] {
        &["ECHO_WORD"]
    }

    fn takes(&self, request: Request<'_>, asker: Asker<'_>) -> bool {
        asker.identity.scopes.admit("echo")
            && match request {
                Request::Subsystem(name) => name == "echo",
                Request::Command(command) => command.starts_with(b"echo-"),
                Request::Shell => asker.account.is_none(),
            }
    }

    fn serve(&self, channel: ServiceChannel) -> BoxFuture<'static, u32> {
        self.running.fetch_add(1, Ordering::SeqCst);
        let running = Running(self.running.clone());
        Box::pin(async move {
            let _running = running;
            let mut stream = channel.stream;
            match channel.command.as_deref() {
                Some(b"echo-panic") => panic!("as asked"),
                Some(b"echo-bulk") => stream.write_all(&vec![7; STALLED]).await.unwrap(),
                Some(b"echo-deaf") => std::future::pending().await,
                Some(b"echo-complain") => {
                    let mut stderr = channel.stderr;
                    stderr.write_all(b"as asked").await.unwrap();
                    stderr.shutdown().await.unwrap();
                    return 3;
                }
                Some(b"echo-variables") => {
                    let text = format!("{:?}", channel.variables);
                    stream.write_all(text.as_bytes()).await.unwrap();
                }
                Some(b"echo-end") => stream.shutdown().await.unwrap(),
                Some(command) => stream.write_all(command).await.unwrap(),
                None => {}
            }
            let mut buffer = vec![0; 8192];
            while let Ok(len @ 1..) = stream.read(&mut buffer).await {
                if stream.write_all(&buffer[..len]).await.is_err() {
                    return 1;
                }
            }
            7
        })
    }
}

fn node() -> (Node, Arc<AtomicUsize>) {
    let echo = Echo::default();
    let running = echo.running.clone();
    (Node::with_services(vec![Arc::new(echo)]), running)
}

async fn client(node: &Node, scopes: &[&str]) -> Handle<Trust> {
    let key = node.user("alice", scopes);
    let mut client = node.client().await;
    assert!(node.log_in(&mut client, key).await);
    client
}

async fn subsystem(client: &Handle<Trust>, name: &str, input: &[u8]) -> Outcome {
    let channel = client.channel_open_session().await.unwrap();
    channel.request_subsystem(true, name).await.unwrap();
    let (mut read, write) = channel.split();
    write.data_bytes(input.to_vec()).await.unwrap();
    write.eof().await.unwrap();
    outcome(&mut read).await
}

#[tokio::test]
async fn a_subsystem_is_served_and_its_status_comes_last() {
    let (node, running) = node();
    let client = client(&node, &["echo"]).await;
    let outcome = subsystem(&client, "echo", b"hello").await;
    assert_eq!((outcome.text(), outcome.status, outcome.ordered), ("hello", Some(7), true));
    assert_eq!(running.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_command_that_no_service_takes_is_a_program() {
    let (node, _) = node();
    let client = client(&node, &["echo", "ssh"]).await;
    assert_eq!(run(&client, "echo-1").await.text(), "echo-1");
    assert_eq!(run(&client, "echo program").await.text(), "program\n");
    assert!(subsystem(&client, "other", b"").await.refused);
}

#[tokio::test]
async fn a_grant_for_a_service_is_none_for_programs_nor_the_other_way_round() {
    let (node, _) = node();
    let served = client(&node, &["echo"]).await;
    assert!(run(&served, "echo program").await.refused);
    let programs = client(&node, &["ssh"]).await;
    assert!(subsystem(&programs, "echo", b"").await.refused);
    assert_eq!(run(&programs, "echo program").await.text(), "program\n");
    let refusals = node.audit.refusals();
    assert!(refusals.iter().any(|it| it == "outside the identity's scopes: ssh:shell"));
    assert!(refusals.iter().any(|it| it == "no subsystem \"echo\" for this identity"));
}

#[tokio::test]
async fn who_may_do_nothing_here_does_not_log_in() {
    let (node, _) = node();
    for scopes in [&["call"][..], &["ech"], &["sftp"], &[]] {
        let key = node.user("mallory", scopes);
        assert!(!node.log_in(&mut node.client().await, key).await, "{scopes:?}");
    }
    let key = node.user("alice", &["forward:connect:db:5432"]);
    let mut client = node.client().await;
    assert!(node.log_in(&mut client, key).await);
    assert!(run(&client, "true").await.refused);
}

/// An account of the machine has no part in it.
#[tokio::test]
async fn a_services_own_login_name_is_good_for_that_service_alone() {
    let (node, _) = node();
    let key = node.user("alice", &["echo", "ssh"]);
    let mut client = node.client().await;
    assert!(log_in_as(&mut client, "parrot", key).await);
    assert_eq!(run(&client, "echo-1").await.text(), "echo-1");
    assert!(run(&client, "true").await.refused);
    assert!(subsystem(&client, "other", b"").await.refused);
    let shell = client.channel_open_session().await.unwrap();
    shell.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await.unwrap();
    let (mut read, write) = shell.split();
    assert!(outcome(&mut read).await.refused, "there is no terminal");
    write.request_shell(true).await.unwrap();
    write.data_bytes(&b"id"[..]).await.unwrap();
    write.eof().await.unwrap();
    assert_eq!(outcome(&mut read).await.text(), "id");
    let refusals = node.audit.refusals();
    assert!(refusals.iter().any(|it| it == "the login name \"parrot\" is for a service alone"));

    let stranger = node.user("mallory", &["sftp"]);
    assert!(!log_in_as(&mut node.client().await, "parrot", stranger).await);
}

#[tokio::test]
async fn a_service_complains_and_is_told_its_variables_alone() {
    let (node, _) = node();
    let client = client(&node, &["echo", "ssh"]).await;
    let complained = run(&client, "echo-complain").await;
    assert_eq!((complained.stderr.as_slice(), complained.status), (&b"as asked"[..], Some(3)));
    assert!(complained.stdout.is_empty() && complained.ordered);

    let long = "x".repeat(257);
    let set = [
        ("ECHO_WORD", "a word=1"),
        ("ECHO_WORD", "a\0b"),
        ("ECHO_WORD", "\u{e4}"),
        ("ECHO_WORD", &long),
        ("ECHO_OTHER", "x"),
        ("LISTED", "x"),
    ];
    for (command, expected) in
        [("echo-variables", r#"[("ECHO_WORD", "a word=1")]"#), ("echo $ECHO_WORD$LISTED", "x\n")]
    {
        let channel = client.channel_open_session().await.unwrap();
        for (name, value) in set {
            channel.set_env(false, name, value).await.unwrap();
        }
        channel.exec(false, command).await.unwrap();
        let (mut read, write) = channel.split();
        write.eof().await.unwrap();
        assert_eq!(outcome(&mut read).await.text(), expected);
    }
}

#[tokio::test]
async fn a_service_that_panics_ends_its_channel_alone() {
    let (node, _) = node();
    let client = client(&node, &["echo"]).await;
    assert_eq!(run(&client, "echo-panic").await.status, Some(255));
    assert_eq!(run(&client, "echo-1").await.status, Some(7));
}

#[tokio::test]
async fn the_end_of_output_is_told_once() {
    let (node, _) = node();
    let client = client(&node, &["echo"]).await;
    let channel = client.channel_open_session().await.unwrap();
    channel.exec(true, "echo-end").await.unwrap();
    let (mut read, write) = channel.split();
    let mut ends = 0;
    let reading = async {
        while let Some(message) = read.wait().await {
            match message {
                ChannelMsg::Eof => {
                    ends += 1;
                    write.eof().await.unwrap();
                }
                ChannelMsg::Close => break,
                _ => {}
            }
        }
    };
    soon("the end", reading).await;
    assert_eq!(ends, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_not_read_stops_no_other() {
    let (node, running) = node();
    let client = client(&node, &["echo"]).await;
    let stalled = client.channel_open_session().await.unwrap();
    stalled.exec(true, "echo-bulk").await.unwrap();
    let deaf = client.channel_open_session().await.unwrap();
    deaf.exec(true, "echo-deaf").await.unwrap();
    let flood = async {
        let _ = deaf.data_bytes(vec![0; STALLED]).await;
        std::future::pending::<()>().await;
    };
    let others = async {
        assert_eq!(run(&client, "echo-1").await.text(), "echo-1");
        let (mut read, write) = stalled.split();
        write.eof().await.unwrap();
        assert_eq!(outcome(&mut read).await.stdout.len(), STALLED);
    };
    tokio::select! {
        () = soon("the others", others) => {}
        () = flood => {}
    }
    assert_eq!(running.load(Ordering::SeqCst), 1);
    deaf.close().await.unwrap();
    while running.load(Ordering::SeqCst) > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_service_ends_with_its_login() {
    let (node, running) = node();
    let key = node.user("alice", &["echo"]);
    let mut client = node.client().await;
    assert!(node.log_in(&mut client, key.clone()).await);
    let channel = client.channel_open_session().await.unwrap();
    channel.exec(true, "echo-deaf").await.unwrap();
    let (mut read, _write) = channel.split();
    assert!(matches!(read.wait().await, Some(ChannelMsg::Success)));
    assert_eq!(running.load(Ordering::SeqCst), 1);
    node.revoke(&key).await;
    let end = async { while read.wait().await.is_some() {} };
    soon("the end of the transport", end).await;
    while running.load(Ordering::SeqCst) > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_forced_command_is_offered_and_what_was_asked_for_is_not() {
    let (node, _) = node();
    let team = Team::of(node, &["echo", "ssh"]).await;
    team.certify("ca", &["-n", "team", "-O", "force-command=echo-forced"]).await;
    assert_eq!(text(&team.run("echo-asked").await.stdout), "echo-forced");
    let output = finish(team.ssh(&["-s"]).arg("echo")).await;
    assert_eq!(text(&output.stdout), "echo-forced");

    team.certify("ca", &["-n", "team", "-O", "force-command=echo program"]).await;
    for asked in [&["echo-asked"][..], &["-s", "echo"]] {
        let mut ssh = team.ssh(&[]);
        let output = finish(ssh.args(asked)).await;
        assert_eq!(text(&output.stdout), "program\n", "{asked:?}");
    }
}
