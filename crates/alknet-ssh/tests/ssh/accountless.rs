//! Logins of those who have no account, for what needs none.

use std::sync::Arc;

use alknet_core::{AuditEvent, BoxFuture, Identity};
use alknet_host::AccountMap;
use alknet_ssh::{Asker, ChannelService, Request, ServiceChannel};
use russh::client::Handle;
use tokio::io::AsyncWriteExt as _;

use crate::{
    certificates::Team,
    node::{Node, Outcome, Trust, log_in_as, outcome, run},
    openssh::{finish, text},
};

const NOT_MAPPED: &str = "no account is mapped to them, and the node runs as root";

/// The subsystem `files`: folders that are open to whoever has `files:open`, and all files of an
/// account.
#[derive(Debug)]
struct Files;

/// Takes whatever it is offered.
#[derive(Debug)]
struct Greedy;

impl ChannelService for Files {
    fn name(&self) -> &'static str {
        "files"
    }

    fn needs_no_account(&self, identity: &Identity) -> bool {
        identity.scopes.allow("files:open") && !identity.scopes.allow("ssh:shell")
    }

    fn takes(&self, request: Request<'_>, _: Asker<'_>) -> bool {
        request == Request::Subsystem("files")
    }

    fn serve(&self, mut channel: ServiceChannel) -> BoxFuture<'static, u32> {
        Box::pin(async move {
            let account = channel.account.map(|account| account.name);
            let said = format!("{} {account:?} {:?}", channel.login_name, channel.variables);
            channel.stream.write_all(said.as_bytes()).await.unwrap();
            0
        })
    }
}

impl ChannelService for Greedy {
    fn name(&self) -> &'static str {
        "greedy"
    }

    fn login_name(&self) -> Option<&'static str> {
        Some("parrot")
    }

    fn takes(&self, _: Request<'_>, _: Asker<'_>) -> bool {
        true
    }

    fn serve(&self, mut channel: ServiceChannel) -> BoxFuture<'static, u32> {
        Box::pin(async move {
            channel.stream.write_all(b"mine").await.unwrap();
            0
        })
    }
}

fn node() -> Node {
    Node::unmapped(vec![Arc::new(Files), Arc::new(Greedy)])
}

async fn client(node: &Node, login_name: &str, scopes: &[&str]) -> Option<Handle<Trust>> {
    let key = node.user("guest", scopes);
    let mut client = node.client().await;
    log_in_as(&mut client, login_name, key).await.then_some(client)
}

async fn subsystem(client: &Handle<Trust>, name: &str) -> Outcome {
    let channel = client.channel_open_session().await.unwrap();
    for (name, value) in [("LISTED", "x"), ("LANG", "C"), ("SSH_AUTH_SOCK", "/x")] {
        channel.set_env(false, name, value).await.unwrap();
    }
    channel.request_subsystem(true, name).await.unwrap();
    let (mut read, _write) = channel.split();
    outcome(&mut read).await
}

#[tokio::test]
async fn what_needs_no_account_is_served_under_any_name() {
    let node = node();
    for name in ["guest", "root", "nobody-at-all", &node.account.name] {
        let client = client(&node, name, &["files:open"]).await.expect(name);
        let served = subsystem(&client, "files").await;
        assert_eq!((served.text(), served.status), (&*format!("{name} None []"), Some(0)));
        let event = node.audit.of(AuditEvent::AUTHENTICATED).pop().unwrap();
        assert_eq!((event.identity.as_deref(), event.account), (Some("id-guest"), None));
        assert_eq!(event.reason.unwrap(), format!("login name {name:?}, without an account"));
    }
}

#[tokio::test]
async fn who_may_have_nothing_without_an_account_does_not_log_in() {
    let node = node();
    for scopes in [
        &["ssh"][..],
        &["ssh:shell"],
        &["files"],
        &["files:closed"],
        &["files:open", "ssh"],
        &["greedy"],
        &["forward"],
        &[],
    ] {
        for name in ["guest", &*node.account.name.clone()] {
            // The grant of all of `files` has the open ones within it.
            let within = scopes == ["files"];
            assert_eq!(client(&node, name, scopes).await.is_some(), within, "{scopes:?} {name}");
        }
    }
    let refusals = node.audit.refusals();
    assert!(refusals.iter().any(|it| it.starts_with("no account is mapped to them")));
}

/// Whoever is mapped to accounts logs in as one of them.
#[tokio::test]
async fn who_has_an_account_logs_in_to_no_other_name() {
    let node = node();
    node.accounts.set(AccountMap::from_iter([("guest", [node.account.name.clone()])]));
    assert!(client(&node, "someone-else", &["files:open"]).await.is_none());
    let client = client(&node, &node.account.name, &["files:open"]).await.unwrap();
    let name = &node.account.name;
    assert_eq!(subsystem(&client, "files").await.text(), format!("{name} Some({name:?}) []"));
    // That takes a grant for it.
    assert!(!run(&client, "touch mark").await.text().contains("mark"));
    assert!(!node.file("mark").exists());
}

#[tokio::test]
async fn neither_programs_nor_other_services_are_to_be_had_without_an_account() {
    let node = node();
    let scopes = &["files:open", "forward", "greedy", "call"];
    let client = client(&node, &node.account.name, scopes).await.unwrap();
    assert!(run(&client, "touch mark").await.refused);
    assert!(run(&client, "files").await.refused);
    for name in ["sftp", "other", "greedy", ""] {
        assert!(subsystem(&client, name).await.refused, "{name:?}");
    }
    let channel = client.channel_open_session().await.unwrap();
    channel.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await.unwrap();
    let (mut read, write) = channel.split();
    assert!(outcome(&mut read).await.refused, "a terminal");
    write.agent_forward(true).await.unwrap();
    assert!(outcome(&mut read).await.refused, "the agent");
    write.request_shell(true).await.unwrap();
    assert!(outcome(&mut read).await.refused, "a shell");
    assert!(!node.file("mark").exists());
    let refusals = node.audit.refusals();
    assert_eq!(refusals.iter().filter(|it| *it == NOT_MAPPED).count(), 3, "{refusals:?}");
    assert!(refusals.iter().any(|it| it == "no subsystem \"other\" for this identity"));
    // All of it leaves the login as it was.
    assert_eq!(subsystem(&client, "files").await.status, Some(0));
}

#[tokio::test]
async fn nothing_is_forwarded_without_an_account() {
    let node = node();
    let (port, _tcp) = node.listen().await;
    let (socket, listening) = (node.file("socket"), node.file("listening"));
    let _listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let [socket, listening] = [&socket, &listening].map(|path| path.to_str().unwrap());
    node.allow(&["127.0.0.0/8:*", socket], &["localhost:*", listening]);
    let name = node.account.name.clone();
    let key = node.user("guest", &["files:open", "forward"]);
    let mut without = node.client().await;
    assert!(log_in_as(&mut without, &name, key.clone()).await);
    node.accounts.set(AccountMap::from_iter([("guest", [name.clone()])]));
    let mut with = node.client().await;
    assert!(log_in_as(&mut with, &name, key).await);
    for (client, allowed) in [(&without, false), (&with, true)] {
        let tcp = client.channel_open_direct_tcpip("127.0.0.1", port.into(), "", 0).await;
        assert_eq!(tcp.is_ok(), allowed, "a connection");
        let unix = client.channel_open_direct_streamlocal(socket).await;
        assert_eq!(unix.is_ok(), allowed, "a socket");
        assert_eq!(client.tcpip_forward("localhost", 0).await.is_ok(), allowed, "a listener");
        assert_eq!(client.streamlocal_forward(listening).await.is_ok(), allowed, "another");
        assert_eq!(node.file("listening").exists(), allowed);
    }
    let refusals = node.audit.refusals();
    assert_eq!(refusals, [NOT_MAPPED; 4]);
}

/// A service's login name is for that service.
#[tokio::test]
async fn the_name_of_a_service_is_for_nothing_else() {
    let node = node();
    let client = client(&node, "parrot", &["files:open"]).await.unwrap();
    assert_eq!(subsystem(&client, "files").await.text(), "mine");
    assert_eq!(run(&client, "true").await.text(), "mine");
}

#[tokio::test]
async fn a_login_without_an_account_gets_none_later() {
    let node = Node::unmapped(vec![Arc::new(Files)]);
    let key = node.user("guest", &["files:open"]);
    let name = node.account.name.clone();
    let mut client = node.client().await;
    assert!(log_in_as(&mut client, &name, key.clone()).await);
    node.accounts.set(AccountMap::from_iter([("guest", [name.clone()])]));
    assert_eq!(subsystem(&client, "files").await.text(), format!("{name} None []"));
    node.authorise(key.public_key(), "guest", &["*"]);
    assert!(run(&client, "touch mark").await.refused);
    assert!(subsystem(&client, "files").await.refused, "they have more than needs no account");
    assert!(!node.file("mark").exists());

    let mut anew = node.client().await;
    assert!(log_in_as(&mut anew, &name, key).await);
    assert_eq!(run(&anew, "echo now").await.text(), "now\n");
    // And the other way round.
    node.accounts.set(AccountMap::from_iter([("guest", Vec::<String>::new())]));
    assert!(run(&anew, "echo now").await.refused);
}

#[tokio::test]
async fn what_was_taken_away_is_served_no_more() {
    let node = node();
    let key = node.user("guest", &["files:open"]);
    let mut client = node.client().await;
    assert!(log_in_as(&mut client, "guest", key.clone()).await);
    node.authorise(key.public_key(), "guest", &["files:closed"]);
    assert!(subsystem(&client, "files").await.refused);
    node.authorise(key.public_key(), "guest", &["call"]);
    assert!(client.channel_open_session().await.is_err());
}

/// A certificate for one command is for that, and it takes an account.
#[tokio::test]
async fn a_forced_command_is_not_got_around() {
    let node = Node::unmapped(vec![Arc::new(Files)]);
    let team = Team::of(node, &["files:open"]).await;
    team.certify("ca", &["-n", "team", "-O", "force-command=touch mark"]).await;
    for asked in [&["-s", "files"][..], &["true"]] {
        let output = finish(team.ssh(&[]).args(asked)).await;
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(255), ""), "{asked:?}");
    }
    team.certify("ca", &["-n", "team"]).await;
    let output = finish(team.ssh(&["-s"]).arg("files")).await;
    assert!(text(&output.stdout).contains("None"), "{output:?}");
}
