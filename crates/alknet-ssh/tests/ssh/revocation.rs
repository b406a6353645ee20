//! What ends a login: keys and authorities taken away, lists of revoked keys, time.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use alknet_core::AuditEvent;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::sleep,
};

use crate::{
    certificates::Team,
    node::{Node, soon},
    openssh::{Setup, finish, start, text},
};

/// What ends at once has nothing else to wait for: the other deadlines are longer.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A client that runs a program, and the process ids of that.
struct Running {
    ssh: Child,
    pids: String,
}

impl Running {
    async fn start(ssh: &mut Command) -> Self {
        // The hangup is for the whole group.
        let mut ssh = start(ssh.arg("sleep 1000 & echo $$ $!; wait"));
        let mut output = BufReader::new(ssh.stdout.take().unwrap()).lines();
        let line = soon("the program", output.next_line()).await.unwrap();
        Self { ssh, pids: line.expect("the program's process ids") }
    }

    /// Waits for the end of the client and of all it ran.
    async fn ends(mut self) {
        let began = Instant::now();
        let status = soon("the end of ssh", self.ssh.wait()).await.unwrap();
        assert_eq!(status.code(), Some(255));
        let runs = |pid: &str| Path::new("/proc").join(pid).exists();
        soon("the end of the processes", async {
            while self.pids.split_whitespace().any(runs) {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    }
}

/// Makes or extends a key revocation list as `ssh-keygen` does, and puts it in place.
async fn revoke(setup: &Setup, options: &[&str], specification: &str) {
    let (new, list) = (setup.path("krl.new"), setup.path("krl"));
    let source = setup.path("specification");
    fs::write(&source, specification).unwrap();
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-k", "-f"]).arg(&new).args(options).arg(source);
    let output = finish(&mut command).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    fs::rename(new, list).unwrap();
}

fn ended(node: &Node) -> Vec<String> {
    let ended = node.audit.of(AuditEvent::SESSION_END).into_iter();
    ended.filter(|it| it.session.is_none()).filter_map(|it| it.reason).collect()
}

#[tokio::test]
async fn a_key_taken_away_ends_what_runs() {
    let setup = Setup::new().await;
    let running = Running::start(&mut setup.ssh(&[])).await;
    let node = &setup.node;
    assert_eq!(node.dispatcher.recheck(&*node.identities).await, 0);
    let line = fs::read_to_string(setup.path("id.pub")).unwrap();
    let key = alknet_ssh::UserKey::parse(&line).unwrap().fingerprint();
    node.identities.revoke_key(&key);
    assert_eq!(node.dispatcher.recheck(&*node.identities).await, 1);
    running.ends().await;
    assert_eq!(ended(node), ["the credential was revoked or has expired"]);
    let end = node.audit.of(AuditEvent::SESSION_END);
    let end = end.iter().find(|it| it.session.is_none()).unwrap();
    assert_eq!(end.identity.as_deref(), Some("id-alice"));
    assert_eq!((end.method, &end.key), (Some("publickey"), &Some(key.to_string())));
}

#[tokio::test]
async fn an_authority_taken_away_ends_what_runs() {
    let team = Team::new().await;
    team.certify("ca", &["-n", "team"]).await;
    let running = Running::start(&mut team.ssh(&[])).await;
    let node = &team.setup.node;
    node.identities.revoke_authority(&team.authority, "team");
    assert_eq!(node.dispatcher.recheck(&*node.identities).await, 1);
    running.ends().await;
}

#[tokio::test]
async fn an_expired_certificate_ends_what_runs() {
    let team = Team::new().await;
    // Long enough for a busy machine to log in.
    team.certify("ca", &["-n", "team", "-V", "-1m:+12s"]).await;
    let running = Running::start(&mut team.ssh(&[])).await;
    let dispatcher = &team.setup.node.dispatcher;
    soon("the expiry", async {
        while dispatcher.end_expired() == 0 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    running.ends().await;
    assert_eq!(ended(&team.setup.node), ["the credential was revoked or has expired"]);
    team.assert_refused("certificate has expired").await;
}

/// A client that does not read what it is told does not stay either.
#[tokio::test]
async fn a_client_that_reads_nothing_is_cut_off() {
    let node = Node::new();
    let client = node.session().await;
    let channel = client.channel_open_session().await.unwrap();
    channel.exec(true, "cat /dev/zero").await.unwrap();
    assert_eq!(node.dispatcher.end_identity("id-alice"), 1);
    drop(soon("the end", client).await);
    assert_eq!(ended(&node), ["the credential was revoked or has expired"]);
}

#[tokio::test]
async fn a_revocation_list_refuses_serials_names_and_keys() {
    let team = Team::new().await;
    let setup = &team.setup;
    team.certify("ca", &["-n", "team"]).await;
    setup.node.revoked.set_file(Some(setup.path("krl")));
    let missing = format!(
        "the list of revoked keys {} could not be read: No such file or directory (os error 2)",
        setup.path("krl").display()
    );
    team.assert_refused(&missing).await;

    let ca = setup.path("ca.pub");
    let of_ca = ["-s", ca.to_str().unwrap()];
    revoke(setup, &of_ca, "serial: 6\nid: desktop\n").await;
    assert!(team.run("true").await.status.success());
    revoke(setup, &of_ca, "serial: 5-7\n").await;
    team.assert_refused("revoked (serial 7)").await;
    revoke(setup, &of_ca, "id: laptop\n").await;
    team.assert_refused("revoked (serial 7)").await;
    for revoked in ["id.pub", "ca.pub"] {
        let key = fs::read_to_string(setup.path(revoked)).unwrap();
        revoke(setup, &[], &key).await;
        team.assert_refused("revoked (serial 7)").await;
        fs::write(setup.path("krl"), &key).unwrap();
        team.assert_refused("revoked (serial 7)").await;
    }
    let other = fs::read_to_string(setup.path("other.pub")).unwrap();
    fs::write(setup.path("krl"), &other).unwrap();
    assert!(team.run("true").await.status.success());
    fs::write(setup.path("krl"), b"SSHKRL\n\0 and so on").unwrap();
    let output = team.run("true").await;
    assert_eq!(output.status.code(), Some(255));
    let refusals = setup.node.audit.refusals();
    assert!(refusals.last().unwrap().starts_with("ssh-keygen cannot check against "));
    setup.node.revoked.set_file(None);
    assert!(team.run("true").await.status.success());
}

#[tokio::test]
async fn a_revocation_list_refuses_plain_keys() {
    let setup = Setup::new().await;
    let key = fs::read_to_string(setup.path("id.pub")).unwrap();
    revoke(&setup, &[], &key).await;
    setup.node.revoked.set_file(Some(setup.path("krl")));
    let output = setup.run("true").await;
    assert!(text(&output.stderr).contains("Permission denied (publickey)"));
    assert_eq!(setup.node.audit.refusals(), ["revoked"]);
    let refused = setup.node.audit.of(AuditEvent::REFUSED);
    assert_eq!(refused[0].method, Some("publickey"));
}

#[tokio::test]
async fn a_serial_revoked_while_a_program_runs_ends_it() {
    let team = Team::new().await;
    let setup = &team.setup;
    let ca = setup.path("ca.pub");
    let of_ca = ["-s", ca.to_str().unwrap()];
    revoke(setup, &of_ca, "serial: 6\n").await;
    setup.node.revoked.set_file(Some(setup.path("krl")));
    team.certify("ca", &["-n", "team"]).await;
    let running = Running::start(&mut team.ssh(&[])).await;
    revoke(setup, &of_ca, "serial: 7\n").await;
    running.ends().await;
    assert_eq!(ended(&setup.node), ["revoked (serial 7)"]);
}

/// Half a file is how a new one looks while it is written.
#[tokio::test]
async fn a_list_that_cannot_be_read_ends_no_session() {
    let team = Team::new().await;
    let setup = &team.setup;
    team.certify("ca", &["-n", "team"]).await;
    let running = Running::start(&mut team.ssh(&[])).await;
    setup.node.revoked.set_file(Some(setup.path("missing")));
    assert_eq!(team.run("true").await.status.code(), Some(255));
    assert!(ended(&setup.node).is_empty());
    // A file that appears, and one that is put in another's place, are looked at both.
    fs::copy(setup.path("ca.pub"), setup.path("list")).unwrap();
    setup.node.revoked.set_file(Some(setup.path("list")));
    running.ends().await;
    assert_eq!(ended(&setup.node), ["revoked (serial 7)"]);
}

#[tokio::test]
async fn a_login_registers_with_the_node_and_leaves_with_its_transport() {
    let node = Node::with_node_limits(|limits| limits.sessions_per_identity = 1);
    let key = node.user("alice", &["ssh"]);
    let mut first = node.client().await;
    assert!(node.log_in(&mut first, key.clone()).await);
    let mut second = node.client().await;
    assert!(!node.log_in(&mut second, key.clone()).await);
    assert_eq!(node.audit.refusals(), ["the identity's session limit is reached"]);
    assert_eq!(node.audit.of(AuditEvent::AUTHENTICATED).len(), 1);
    drop((first, second));
    soon("the end of the first session", async {
        while node.dispatcher.session_count() > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let mut third = node.client().await;
    assert!(node.log_in(&mut third, key).await);
}

#[tokio::test]
async fn a_key_given_to_somebody_else_opens_no_further_channel() {
    let node = Node::new();
    let key = node.user("alice", &["ssh"]);
    let mut client = node.client().await;
    assert!(node.log_in(&mut client, key.clone()).await);
    // The same credential, somebody else's by now.
    node.authorise(key.public_key(), "eve", &["ssh"]);
    assert!(client.channel_open_session().await.is_err());
    assert_eq!(node.audit.refusals(), ["unknown key"]);
}
