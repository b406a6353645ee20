//! No secret gets to where it does not belong, even where everything is logged.
//!
//! One machine's life with every kind of secret in it: a vault and its passphrases, tokens,
//! tickets, sign-in links, cookies, certificates, and what goes through a tunnel. Then all
//! that was written anywhere is searched for each of them, in every form that a careless line
//! would give it.

mod search;

use std::{
    fs,
    io::Write as _,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
};

use alknet_http::h3;
use alknet_vault::{Mnemonic, Purpose, Vault};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};
use serde_json::Value;
use tempfile::TempDir;

use self::search::Search;
use crate::{
    client::{Client, WAYS},
    https::{http3, raw, request, upgrade},
    node::{Home, Node},
    process::{eventually, output, output_with, stdout, text},
    session::Session,
    terminal::Terminal,
};

/// The filter of a log that holds back nothing.
const ALL: &str = "trace";
/// Whose lines show that it does not.
const TALKATIVE: [&str; 4] =
    ["h2::codec::framed_read", "rustls::server::hs", "russh::server::encrypted", "sqlx::query"];

/// A machine that logs all it can, and what it has said.
struct Loud<'a> {
    home: &'a Home,
    search: &'a mut Search,
}

impl Loud<'_> {
    /// Runs a command with an input. What it says is searched; its output, which is returned,
    /// only if `searched`.
    #[track_caller]
    fn run_with(&mut self, args: &[&str], input: &str, searched: bool) -> String {
        let mut command = self.home.alknet(args);
        let done = output_with(command.env("ALKNET_LOG", ALL), input.as_bytes());
        assert!(done.status.success(), "{args:?}: {}", text(&done));
        self.search.place(&format!("stderr of {args:?}"), &done.stderr);
        if searched {
            self.search.place(&format!("stdout of {args:?}"), &done.stdout);
        }
        String::from_utf8(done.stdout).unwrap()
    }

    #[track_caller]
    fn run(&mut self, args: &[&str]) {
        self.run_with(args, "", true);
    }

    /// Runs a command whose input will not do: what is wrong with it must not be told by
    /// showing it.
    #[track_caller]
    fn refuses(&mut self, args: &[&str], input: &str) {
        let mut command = self.home.alknet(args);
        let done = output_with(command.env("ALKNET_LOG", ALL), input.as_bytes());
        assert_eq!(done.status.code(), Some(1), "{args:?}: {}", text(&done));
        self.search.place(&format!("what {args:?} refused"), [done.stdout, done.stderr].concat());
    }

    /// Runs a command whose output is the secret itself.
    #[track_caller]
    fn tells(&mut self, args: &[&str]) -> Value {
        serde_json::from_str(&self.run_with(args, "", false)).unwrap()
    }

    /// Runs a command at a terminal, and types an answer at each prompt; what the terminal
    /// has shown.
    #[track_caller]
    fn answers(&mut self, args: &[&str], dialogue: &[(&str, &str)]) -> String {
        let [out, err] = ["out", "err"].map(|name| self.home.path().join(name));
        let mut shell = Command::new("sh");
        let script = format!("exec \"$@\" >{} 2>{}", out.display(), err.display());
        shell.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_alknet")]).args(args);
        shell.env("ALKNET_HOME", self.home.path()).env("ALKNET_LOG", ALL);
        let mut terminal = Terminal::run(&shell, 40, 120);
        for (prompt, answer) in dialogue {
            terminal.expect(prompt);
            terminal.type_line(answer);
        }
        assert_eq!(terminal.wait(), Some(0), "{args:?}: {}", terminal.shown());
        for (name, file) in [("stdout", out), ("stderr", err)] {
            self.search.place(&format!("{name} of {args:?}"), fs::read(&file).unwrap());
            fs::remove_file(file).unwrap();
        }
        terminal.shown()
    }
}

/// The words of the numbered columns on a screen.
fn words(screen: &str) -> String {
    let numbered = |it: &&str| it.strip_suffix('.').is_some_and(|it| it.parse::<u8>().is_ok());
    let mut text = screen.split_whitespace();
    let mut words = Vec::new();
    while text.any(|it| numbered(&it)) {
        words.extend(text.next());
    }
    words.join(" ")
}

const FIRST: &str = "a passphrase of 3 words";
const SECOND: &str = "another, with a snowman \u{2603}";

/// Makes a vault at a terminal, changes what it is sealed with, and unlocks it.
fn make_vault(machine: &mut Loud<'_>) {
    let sealed = [("new passphrase of the vault:", FIRST), ("the same again:", FIRST)];
    let init = [&sealed[..], &[("Press Enter", "")]].concat();
    let screen = machine.answers(&["vault", "init"], &init);
    let open = ("passphrase of the vault:", FIRST);
    let next = [open, ("new passphrase of the vault:", SECOND), ("the same again:", SECOND)];
    let change = machine.answers(&["vault", "change-passphrase"], &next);
    let open = ("passphrase of the vault:", SECOND);
    let unlock = machine.answers(&["vault", "unlock"], &[open]);
    let search = &mut *machine.search;
    for (name, screen) in [("init", &screen), ("change", &change), ("unlock", &unlock)] {
        assert!(![FIRST, SECOND].iter().any(|it| screen.contains(it)), "{name}: {screen}");
    }

    let phrase = words(&screen);
    assert_eq!(phrase.split(' ').count(), 12, "{screen}");
    let vault = Vault::from_mnemonic(&Mnemonic::parse(&phrase).unwrap(), "");
    search.secret("recovery phrase", &phrase);
    for (i, some) in phrase.split(' ').collect::<Vec<_>>().windows(3).enumerate() {
        search.secret(&format!("words of the recovery phrase from {i}"), some.join(" "));
    }
    search.secret("first passphrase", FIRST);
    search.secret("second passphrase", SECOND);
    let purposes = [Purpose::Identity, Purpose::SshHost, Purpose::WebCertificate];
    for purpose in purposes.into_iter().chain([Purpose::QuicTokens, Purpose::Data(1)]) {
        search.secret(&format!("key {purpose:?}"), vault.key(purpose).unwrap().expose());
    }
    search.secret("key of the vault", agents_key(machine.home));
}

/// What the vault is sealed with, from the agent that holds it.
fn agents_key(home: &Home) -> Vec<u8> {
    let mut agent = UnixStream::connect(home.path().join("run/vault.sock")).unwrap();
    agent.write_all(b"k").unwrap();
    let mut key = Vec::new();
    std::io::Read::read_to_end(&mut agent, &mut key).unwrap();
    assert_eq!(key.len(), 32);
    key
}

/// A certificate for browsers, and its private key among the secrets.
fn certificate(folder: &Path, search: &mut Search) -> (PathBuf, PathBuf) {
    let (chain, key) = (folder.join("chain.pem"), folder.join("key.pem"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-nodes", "-days", "1", "-subj", "/CN=localhost"]);
    openssl.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    stdout(&output(openssl.arg("-keyout").arg(&key).arg("-out").arg(&chain)));
    let der = PrivateKeyDer::from_pem_file(&key).unwrap();
    search.secret("private key of the certificate", der.secret_der());
    // RFC 5915: version 1, then 32 bytes.
    let at = der.secret_der().windows(5).position(|it| it == [2, 1, 1, 4, 32]);
    let scalar = &der.secret_der()[at.unwrap() + 5..][..32];
    search.secret("scalar of the certificate", scalar);
    (chain, key)
}

/// An HTTP/3 connection for requests of which only the status counts.
struct Http3<'a> {
    node: &'a Node,
    client: h3::Client,
}

impl Http3<'_> {
    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> http::Response<Bytes> {
        self.client.request(request(self.node, path, headers, Bytes::new())).await.unwrap()
    }

    async fn opens(&self, path: &str, headers: &[(&str, &str)]) -> bool {
        self.client.connect(request(self.node, path, headers, ())).await.is_ok()
    }
}

/// `curl` by HTTP/2; what it is told goes by its input, since arguments are for all to see.
fn curl(node: &Node, path: &str, header: &str) -> String {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--insecure", "--http2", "--include", "--config", "-"]);
    let url = format!("https://localhost:{}{path}", node.port());
    stdout(&output_with(&mut curl, format!("url = \"{url}\"\nheader = \"{header}\"").as_bytes()))
}

/// The secret of a sign-in link.
fn link_secret(link: &str) -> &str {
    let (_, secret) = link.split_once("/alknet/signin/").unwrap();
    secret.split('#').next().unwrap()
}

fn cookie_of(answer: &str) -> String {
    let (_, cookie) = answer.split_once("__Host-alknet=").unwrap_or_else(|| panic!("{answer}"));
    cookie.split(';').next().unwrap().to_owned()
}

/// Signs in with a link over each version of HTTP, and uses the cookie of each.
async fn sign_in(machine: &mut Loud<'_>, node: &Node, http3: &Http3<'_>) {
    let mut links = vec![node.banner().sign_in[0].clone()];
    for _ in 0..2 {
        let more = machine.tells(&["token", "link", "--json"]);
        links.push(more[0].as_str().unwrap().to_owned());
    }
    let secrets: Vec<&str> = links.iter().map(|link| link_secret(link)).collect();
    secrets.iter().for_each(|it| machine.search.encoded("sign-in link", it, ""));
    let path = |secret: &str| format!("/alknet/signin/{secret}");
    let close = "Connection: close\r\n";
    let one = raw(node, &format!("GET {}", path(secrets[0])), close, b"").await;
    let two = curl(node, &path(secrets[1]), "Accept: text/html");
    let three = http3.get(&path(secrets[2]), &[]).await;
    let three = three.headers()["set-cookie"].to_str().unwrap().to_owned();
    let cookies = [one, two, three].map(|answer| cookie_of(&answer));
    for cookie in &cookies {
        machine.search.encoded("cookie", cookie, "");
        let pair = format!("__Host-alknet={cookie}");
        let fields = format!("Cookie: {pair}\r\n{close}");
        let session = raw(node, "GET /alknet/session", &fields, b"").await;
        assert!(session.starts_with("HTTP/1.1 200 "), "{session}");
        assert!(curl(node, "/alknet/session", &format!("Cookie: {pair}")).contains("\"owner\""));
        assert_eq!(http3.get("/alknet/session", &[("cookie", &pair)]).await.status(), 200);
    }
    // Used up, it is still nobody's business who had it.
    assert!(raw(node, &format!("GET {}", path(secrets[0])), close, b"").await.contains(" 404 "));
}

/// Shows a token, right or wrong, over each version of HTTP.
async fn bearer(node: &Node, http3: &Http3<'_>, token: &str, right: bool) {
    let header = format!("Authorization: Bearer {token}");
    let fields = format!("{header}\r\nConnection: close\r\n");
    let answer = raw(node, "GET /alknet/session", &fields, b"").await;
    assert_eq!(answer.starts_with("HTTP/1.1 200 "), right, "{answer}");
    assert_eq!(curl(node, "/alknet/session", &header).starts_with("HTTP/2 200"), right);
    let value = format!("Bearer {token}");
    let answer = http3.get("/alknet/session", &[("authorization", &value)]).await;
    assert_eq!(answer.status() == 200, right);
}

async fn ticket(search: &mut Search, node: &Node, token: &str) -> String {
    let body = br#"{"alpn":"alknet/echo"}"#;
    let fields = format!(
        "Authorization: Bearer {token}\r\nContent-Length: {}\r\nConnection: close\r\n",
        body.len()
    );
    let answer = raw(node, "POST /alknet/ticket", &fields, body).await;
    let issued: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    let ticket = issued["ticket"].as_str().unwrap().to_owned();
    search.encoded("ticket", &ticket, "");
    ticket
}

/// Opens tunnels by tickets, in each way that a ticket can be given.
async fn tickets(search: &mut Search, node: &Node, http3: &Http3<'_>, token: &str) {
    const PATH: &str = "/alknet/echo";
    let close = "Connection: close\r\n";
    // The second time it is used up, and named in a refusal.
    for expected in [true, false] {
        let mut given = Vec::new();
        for _ in 0..4 {
            given.push(match expected {
                true => ticket(search, node, token).await,
                false => {
                    let wrong = URL_SAFE_NO_PAD.encode(rand());
                    search.encoded("wrong ticket", &wrong, "");
                    wrong
                }
            });
        }
        let protocol =
            format!("Sec-WebSocket-Protocol: alknet.echo, ticket.{}\r\n{close}", given[0]);
        let query = |ticket: &str| format!("{PATH}?ticket={ticket}");
        let upgrades =
            [upgrade(node, PATH, &protocol).await, upgrade(node, &query(&given[1]), close).await];
        assert!(upgrades.iter().all(|it| it.starts_with("HTTP/1.1 101 ") == expected));
        let protocols = format!("\"alknet/echo\", \"ticket.{}\"", given[2]);
        let offer = [("wt-available-protocols", protocols.as_str())];
        assert_eq!(http3.opens(PATH, &offer).await, expected);
        assert_eq!(http3.opens(&query(&given[3]), &[]).await, expected);
    }
}

fn rand() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

/// What people do in their sessions, over every transport.
fn traffic(search: &mut Search, client: &Client, node: &Node) {
    for via in WAYS {
        let content = |what: &str| format!("what {what} {via} {}", hex::encode(rand()));
        let [typed, asked, echoed] = ["is typed over", "is run over", "goes over"].map(content);
        let mut ssh = client.ssh(node, via);
        ssh.env("ALKNET_LOG", ALL).arg(format!("cat; echo '{asked}'"));
        let done = output_with(&mut ssh, typed.as_bytes());
        assert_eq!(stdout(&done), format!("{typed}{asked}\n"), "{via}");
        search.place(&format!("stderr of ssh over {via}"), &done.stderr);
        let (address, id) = (node.address().to_string(), node.id().to_string());
        let mut dial = client.home.alknet(&["dial", &address, "echo", "--via", via, "--pin", &id]);
        let done = output_with(dial.env("ALKNET_LOG", ALL), echoed.as_bytes());
        assert_eq!(stdout(&done), echoed, "{via}");
        search.place(&format!("stderr of dial over {via}"), &done.stderr);
        for secret in [typed, asked, echoed] {
            search.secret(&format!("content over {via}"), secret);
        }
    }
}

/// Secrets that are mistyped are most of a secret.
fn mistakes(search: &mut Search, node: &Node) {
    let home = Home::new();
    let mut machine = Loud { home: &home, search };
    let phrase = "legal winner thank year wave sausage worth useful legal winner thank yelow";
    machine.search.secret("mistyped phrase", phrase);
    machine.search.secret("words of the mistyped phrase", "worth useful legal winner thank");
    machine.search.secret("mistyped word", "thank yelow");
    machine.refuses(&["vault", "import", "--seal", "key-file"], phrase);
    let token = hex::encode(rand());
    machine.search.secret("mistyped token", &token);
    let (address, id) = (node.address().to_string(), node.id().to_string());
    machine.refuses(&["login", &address, "--pin", &id], &format!("alk-{token}"));
}

#[tokio::test]
async fn no_secret_is_written_anywhere() {
    let (home, files, mut search) = (Home::new(), TempDir::new().unwrap(), Search::default());
    let mut machine = Loud { home: &home, search: &mut search };
    make_vault(&mut machine);
    let (chain, key) = certificate(files.path(), machine.search);
    let config = format!("certificate = {{ chain = {chain:?}, key = {key:?} }}");
    fs::write(home.path().join("alknet.toml"), config).unwrap();
    let mut serve = home.example("own_service", &["serve", "--listen", "127.0.0.1:0", "--json"]);
    let mut node = Node::run(&home, {
        serve.args(["--drain", "1"]).env("ALKNET_LOG", ALL);
        serve
    });

    // The owner's side.
    let client = Client::known_to(&home, "alice", "ssh,echo");
    let token = machine.tells(&["token", "create", "--peer", "alice", "--json"]);
    let token = token["token"].as_str().unwrap().to_owned();
    machine.search.encoded("token", &token, "alk_");
    machine.run(&["token", "list", "--all"]);
    machine.run(&["token", "list", "--json"]);
    machine.run(&["status"]);
    let hashed = machine.run_with(&["token", "hash"], &token, true);
    assert!(!hashed.is_empty());
    let data = format!("data of the vault {}", hex::encode(rand()));
    machine.search.secret("data of the vault", &data);
    let sealed = machine.run_with(&["vault", "encrypt", "--text"], &data, true);
    assert_eq!(machine.run_with(&["vault", "decrypt"], &sealed, false), data);
    machine.run(&["vault", "show-path", "ssh-host"]);

    // Browsers.
    let http3 = Http3 { node: &node, client: http3(&node).await };
    sign_in(&mut machine, &node, &http3).await;
    let wrong = format!("alk_{}", URL_SAFE_NO_PAD.encode(rand()));
    machine.search.encoded("wrong token", &wrong, "alk_");
    bearer(&node, &http3, &token, true).await;
    bearer(&node, &http3, &wrong, false).await;
    tickets(machine.search, &node, &http3, &token).await;

    // A machine with its own key, then with the token.
    traffic(machine.search, &client, &node);
    let (address, id) = (node.address().to_string(), node.id().to_string());
    let mut theirs = Loud { home: &client.home, search: machine.search };
    theirs.run_with(&["login", &address, "--pin", &id, "--name", "it"], &token, true);
    theirs.search.secret("key of a vault", fs::read(client.home.path().join("vault.key")).unwrap());
    traffic(theirs.search, &client, &node);
    mistakes(theirs.search, &node);

    // The certificate that the node makes, in the place of the one from files.
    fs::write(home.path().join("alknet.toml"), "").unwrap();
    machine.run(&["reload"]);
    assert!(curl(&node, "/", "Accept: text/html").starts_with("HTTP/2 "));

    let mut session = Session::start(&client, &node, "webtransport", "exec cat");
    session.ready();
    machine.search.processes();
    session.end_input();
    assert_eq!(session.wait(), Some(0));
    drop(http3);
    node.signal(nix::sys::signal::Signal::SIGTERM);
    node.wait(crate::process::SOON);
    machine.run(&["audit", "verify"]);
    machine.run(&["vault", "lock"]);

    let log = eventually("the end of the log", || {
        Some(node.log()).filter(|log| log.contains("shutting down"))
    });
    for target in TALKATIVE {
        assert!(log.contains(&format!(" {target}: ")), "{target} has logged nothing");
    }
    search.place("the node's log", &log);
    search.folder("the node's state", home.path());
    search.folder("the client's run", &client.home.path().join("run"));
    let found = search.found();
    assert!(found.is_empty(), "{found:#?}");
}
