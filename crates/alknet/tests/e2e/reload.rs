//! A configuration that changes under a node with sessions.

use std::{
    fs::{self, Permissions},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::Command,
    sync::Arc,
};

use alknet_core::Stream;
use nix::sys::signal::Signal;
use rustls::{
    ClientConfig,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    client::{Client, WAYS},
    https::{dial, raw, upgrade},
    node::{Home, Node},
    process::{Deadline, SOON, eventually, output, signal, stdout, text},
    session::Session,
    terminal::Terminal,
};

fn configure(home: &Home, text: &str) {
    fs::write(home.path().join("alknet.toml"), text).unwrap();
}

#[track_caller]
fn reload(home: &Home) -> Value {
    serde_json::from_str(&stdout(&output(&mut home.alknet(&["reload", "--json"])))).unwrap()
}

/// The node answers that these hold now.
#[track_caller]
fn changes(home: &Home, keys: &[&str]) {
    assert_eq!(reload(home), json!({"changed": keys, "restart": [], "overridden": []}));
}

async fn get(node: &Node, path: &str) -> String {
    raw(node, &format!("GET {path}"), "Connection: close\r\n", b"").await
}

/// An HTTP/1.1 connection that stays.
async fn keep_alive(node: &Node) -> Stream {
    dial("http/1.1").tls(node.address()).await.unwrap().connection.open_bi().await.unwrap()
}

/// Its next answer's status line.
async fn status(stream: &mut Stream) -> String {
    stream.write_all(b"HEAD /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap().lines().next().unwrap().to_owned()
}

fn site(home: &Home, name: &str, page: &str) {
    fs::create_dir_all(home.path().join(name)).unwrap();
    fs::write(home.path().join(name).join("index.html"), page).unwrap();
}

#[tokio::test]
async fn sessions_go_on_and_the_decoy_changes_at_once() {
    let home = Home::new();
    site(&home, "one", "the first site");
    let node = Node::start(&home, &[]);
    let client = Client::known_to(&home, "tester", "ssh");
    let mut sessions = WAYS.map(|via| Session::start(&client, &node, via, "exec cat"));
    sessions.iter_mut().for_each(Session::ready);
    let mut open = keep_alive(&node).await;
    assert_eq!(status(&mut open).await, "HTTP/1.1 404 Not Found");
    assert!(get(&node, "/").await.contains("alknet"), "it should say what it is");

    configure(&home, "decoy = 'one'");
    changes(&home, &["decoy"]);
    assert!(get(&node, "/").await.ends_with("the first site"));
    sessions.iter_mut().for_each(|session| session.echoes("after a reload"));

    configure(&home, "decoy = 'redirect:https://example.org/'");
    node.signal(Signal::SIGHUP);
    eventually("the answer to SIGHUP", || {
        node.log().contains("read the configuration again: decoy: changed").then_some(())
    });
    assert!(get(&node, "/").await.contains("Location: https://example.org/"));
    assert_eq!(status(&mut open).await, "HTTP/1.1 301 Moved Permanently");
    sessions.iter_mut().for_each(|session| session.echoes("after a signal"));

    // Without the line it shows itself again.
    configure(&home, "");
    changes(&home, &["decoy"]);
    assert!(get(&node, "/").await.contains("alknet"));
    changes(&home, &[]);
    assert_eq!(stdout(&output(&mut home.alknet(&["reload"]))), "nothing changed\n");
    for mut session in sessions {
        session.echoes("to the end");
        session.end_input();
        assert_eq!(session.wait(), Some(0));
    }
}

#[tokio::test]
async fn origins_and_who_may_enter_change_at_once() {
    let home = Home::new();
    let node = Node::start(&home, &[]);
    let token = stdout(&output(&mut home.alknet(&["token", "create", "--scope", "ssh"])));
    let connects = async || {
        let fields = format!(
            "Authorization: Bearer {}\r\nOrigin: https://app.example\r\nConnection: close\r\n",
            token.trim()
        );
        upgrade(&node, "/alknet/ssh", &fields).await.starts_with("HTTP/1.1 101 ")
    };
    // A stranger but for the key in a file.
    let client = Client::new();
    fs::write(home.path().join("keys"), client.public_key()).unwrap();
    let logs_in = || output(client.ssh(&node, "tls").arg("true")).status.success();
    assert!(!connects().await && !logs_in());
    configure(&home, "origins = ['https://app.example']\nauthorized_keys = 'keys'");
    changes(&home, &["authorized_keys", "origins"]);
    assert!(connects().await && logs_in());
    configure(&home, "");
    changes(&home, &["authorized_keys", "origins"]);
    assert!(!connects().await && !logs_in());

    let person = format!("[people.alice]\nscopes = ['ssh']\nkeys = ['{}']", client.public_key());
    fs::write(home.path().join("people.toml"), person).unwrap();
    fs::write(home.path().join("revoked"), client.public_key()).unwrap();
    configure(&home, "identities = 'people.toml'");
    changes(&home, &["identities"]);
    assert!(logs_in());
    configure(&home, "identities = 'people.toml'\nssh.revoked_keys = 'revoked'");
    changes(&home, &["ssh.revoked_keys"]);
    assert!(!logs_in());
    configure(&home, "identities = 'people.toml'");
    changes(&home, &["ssh.revoked_keys"]);
    assert!(logs_in());
}

#[tokio::test]
async fn a_broken_file_changes_nothing() {
    let home = Home::new();
    site(&home, "one", "the first site");
    configure(&home, "decoy = 'one'");
    let node = Node::start(&home, &[]);
    for (wrong, words) in [
        ("decoy = '404'\norigins = ['nonsense']", "origins: write an origin"),
        ("decoy = '404'\nlistne = 1", "there is no key \"listne\""),
        ("decoy = '404'\ncertificate = { chain = 'a', key = 'b' }", "certificate.chain: "),
        ("decoy = ", "line 1: "),
    ] {
        configure(&home, wrong);
        let refused = output(&mut home.alknet(&["reload"]));
        assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
        assert!(refused.stdout.is_empty() && text(&refused).contains(words), "{}", text(&refused));
        assert!(text(&refused).contains("the node goes on as it was"), "{}", text(&refused));
        assert!(get(&node, "/").await.ends_with("the first site"), "{wrong}");
    }
    node.signal(Signal::SIGHUP);
    eventually("the failure in the log", || {
        node.log().contains("the old one still holds").then_some(())
    });
    assert!(get(&node, "/").await.ends_with("the first site"));
    configure(&home, "decoy = '404'");
    changes(&home, &["decoy"]);
}

#[tokio::test]
async fn what_needs_a_restart_or_has_a_flag_is_named() {
    let home = Home::new();
    site(&home, "one", "the first site");
    let node = Node::start(&home, &["--decoy", "404"]);
    configure(&home, "listen = '[::]:1'\ncover = true\ndecoy = 'one'\n[limits]\nsessions = 7");
    let expected = json!({
        "changed": [],
        "restart": ["cover", "limits.sessions"],
        "overridden": ["decoy", "listen"],
    });
    assert_eq!(reload(&home), expected);
    assert!(get(&node, "/").await.starts_with("HTTP/1.1 404 "), "the flag stands first");
    let said = stdout(&output(&mut home.alknet(&["reload"])));
    assert!(said.contains("cover: needs a restart\nlimits.sessions: needs a restart\n"), "{said}");
    // Put back, it needs none.
    configure(&home, "decoy = 'one'\norigins = ['https://app.example']");
    changes(&home, &["origins"]);
}

/// Takes any certificate, for its hash is what is asked for.
#[derive(Debug)]
struct Any(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// The certificate that a new TLS connection is shown.
fn shown(node: &Node) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Any(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut tcp = std::net::TcpStream::connect(node.address()).unwrap();
    while tls.is_handshaking() {
        tls.complete_io(&mut tcp).unwrap();
    }
    tls.peer_certificates().unwrap()[0].to_vec()
}

/// Writes a new certificate and its key; gives the certificate.
fn issue(folder: &Path) -> Vec<u8> {
    let pair = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
    fs::write(folder.join("key.pem"), pair.signing_key.serialize_pem()).unwrap();
    fs::write(folder.join("chain.pem"), pair.cert.pem()).unwrap();
    pair.cert.der().to_vec()
}

#[tokio::test]
async fn renewed_certificates_are_shown_to_new_connections() {
    let home = Home::new();
    let first = issue(home.path());
    configure(&home, "certificate = { chain = 'chain.pem', key = 'key.pem' }");
    let node = Node::start(&home, &[]);
    assert_eq!(shown(&node), first);
    let mut open = keep_alive(&node).await;
    assert_eq!(status(&mut open).await, "HTTP/1.1 404 Not Found");

    // The file names stay, as they do after a renewal.
    let second = issue(home.path());
    assert_eq!(shown(&node), first, "nobody has asked for it yet");
    changes(&home, &["certificate"]);
    assert_eq!(shown(&node), second);
    assert_eq!(status(&mut open).await, "HTTP/1.1 404 Not Found");

    // A key of another certificate is refused, and the good pair stays.
    let good = fs::read(home.path().join("chain.pem")).unwrap();
    issue(home.path());
    fs::write(home.path().join("chain.pem"), good).unwrap();
    let refused = output(&mut home.alknet(&["reload"]));
    assert!(text(&refused).contains("the certificate and its key"), "{}", text(&refused));
    assert_eq!(shown(&node), second);

    // From files to the node's own, and back.
    configure(&home, "");
    changes(&home, &["certificate"]);
    let own = shown(&node);
    assert!(own != second && own != first);
    let third = issue(home.path());
    configure(&home, "certificate = { chain = 'chain.pem', key = 'key.pem' }");
    changes(&home, &["certificate"]);
    assert_eq!(shown(&node), third);
    assert_eq!(status(&mut open).await, "HTTP/1.1 404 Not Found");
}

/// SIGHUP is a request while there is a terminal, and its end when there is none.
#[test]
fn a_node_in_a_terminal_ends_with_it() {
    let home = Home::new();
    let serve = home.alknet(&["serve", "--listen", "127.0.0.1:0", "--drain", "1"]);
    let mut shell = Command::new("sh");
    // The shell is the head of the terminal's session: its end hangs the terminal up.
    shell.args(["-c", r#""$0" "$@" & read line"#]).arg(serve.get_program()).args(serve.get_args());
    shell.env("ALKNET_HOME", home.path()).env_remove("ALKNET_LOG");
    let mut terminal = Terminal::run(&shell, 24, 200);
    terminal.expect("listens");
    let lock = fs::read_to_string(home.path().join("run/lock")).unwrap();
    let pid: u32 = lock.trim().parse().unwrap();
    let guard = Deadline::kill(pid, SOON);
    signal(pid, Signal::SIGHUP);
    terminal.expect("read the configuration again: nothing changed");
    terminal.type_line("bye");
    assert_eq!(terminal.wait(), Some(0));
    let address = home.path().join("run/address");
    eventually("an orderly end", || (!address.exists()).then_some(()));
    assert!(!guard.passed());
}

/// Even where the folders were opened to everybody, the node answers its own account alone.
#[test]
fn another_user_is_not_answered() {
    const NOBODY: u32 = 65534;
    if !nix::unistd::geteuid().is_root() {
        // Nobody else can be somebody else.
        return;
    }
    let home = Home::new();
    let node = Node::start(&home, &[]);
    let socket = home.path().join("run/control");
    let open = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    open(home.path(), 0o711);
    open(&home.path().join("run"), 0o711);
    open(&socket, 0o666);
    let ask = |user: u32| {
        let mut curl = Command::new("curl");
        curl.args(["--disable", "--silent", "--max-time", "30", "--http0.9", "--unix-socket"]);
        output(curl.arg(&socket).arg("http://node/").uid(user).current_dir("/"))
    };
    assert!(stdout(&ask(0)).contains("does not know this request"));
    let refused = ask(NOBODY);
    assert!(!refused.status.success() && refused.stdout.is_empty(), "{}", text(&refused));
    eventually("the refusal in the log", || {
        node.log().contains("refused another user at the control socket").then_some(())
    });
}
