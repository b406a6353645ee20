//! A private repository looks like none, to whoever has no right to it.

use std::{process::Output, time::Instant};

use super::*;
use crate::https::raw;

/// A repository that is there, and one that is not. Of one length, so that whatever repeats
/// the name is of one length, too.
const NAMES: [&str; 2] = ["notes", "seton"];

/// What is the same for every name: the name itself is what was asked.
fn anonymous(answer: &[u8], name: &str) -> String {
    String::from_utf8_lossy(answer).replace(name, "NAME")
}

/// Answers for the two names, several times each, and how long they took.
#[track_caller]
fn alike(what: &str, [private, missing]: [&[(String, Duration)]; 2]) {
    let all = private.iter().chain(missing);
    let first = &private[0].0;
    for (answer, _) in all {
        assert_eq!(answer, first, "{what}");
    }
    let spread = |answers: &[(String, Duration)]| {
        let mut times = Vec::from_iter(answers.iter().map(|(_, took)| *took));
        times.sort();
        (times[0], times[times.len() / 2], times[times.len() - 1])
    };
    eprintln!("{what}: private {:?}, missing {:?}", spread(private), spread(missing));
}

/// Asks for both names in turn.
async fn both(what: &str, rounds: usize, mut ask: impl AsyncFnMut(&str) -> Vec<u8>) -> String {
    let mut answers = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (name, answers) in NAMES.iter().zip(&mut answers) {
            let start = Instant::now();
            let answer = ask(name).await;
            answers.push((anonymous(&answer, name), start.elapsed()));
        }
    }
    alike(what, [&answers[0], &answers[1]]);
    answers[0].remove(0).0
}

/// Somebody of whom the node knows that they may use some other repository.
fn outsider(rig: &Rig, seed: u8, scopes: &str) -> Dial {
    let key = NodeIdentity::from_seed(&[seed; 32]).unwrap();
    let (name, id) = (format!("outsider-{seed}"), key.id().to_string());
    let add = ["peer", "add", &name, "--key", &id, "--scope", scopes];
    stdout(&output(&mut rig.home.alknet(&add)));
    Dial { key: Some(Arc::new(key)), ..dial("alknet/git") }
}

const LINES: [&str; 3] = ["git-upload-pack", "git-receive-pack", "git-upload-archive"];

#[tokio::test]
async fn by_a_stream_of_the_nodes_own() {
    let rig = Rig::new();
    for (seed, scopes) in [(8, "git:read:other"), (9, "git:write:other/*:refs/heads/x")] {
        let call = outsider(&rig, seed, scopes);
        for service in LINES {
            for version in [0, 2] {
                let what = format!("{service}, version {version}, {scopes}");
                let answer = both(&what, 5, async |name| {
                    let request = format!("{service} /{name}\0host=x\0\0version={version}\0");
                    let call = call.clone().tls(rig.node.address()).await.unwrap();
                    exchange(call.connection.open_bi().await.unwrap(), &line(&request)).await
                })
                .await;
                assert!(answer[4..].starts_with("ERR "), "{answer}");
            }
        }
    }
    rig.unharmed();
}

/// A stranger's connection to the service ends for both names before any is said.
#[tokio::test]
async fn by_a_stream_as_a_stranger() {
    let rig = Rig::new();
    for key in [None, Some(Arc::new(NodeIdentity::from_seed(&[11; 32]).unwrap()))] {
        let call = Dial { key, ..dial("alknet/git") };
        let what = format!("a stranger with a key: {}", call.key.is_some());
        both(&what, 3, async |name| {
            let Ok(dialled) = call.clone().tls(rig.node.address()).await else {
                return b"no connection".to_vec();
            };
            let Ok(stream) = dialled.connection.open_bi().await else {
                return b"no stream".to_vec();
            };
            let request = format!("git-upload-pack /{name}\0host=x\0\0version=2\0");
            exchange(stream, &line(&request)).await
        })
        .await;
    }
}

#[tokio::test]
async fn by_ssh() {
    let rig = Rig::new();
    let outsider = Client::known_to(&rig.home, "outsider", "git:read:other");
    for service in LINES {
        for quote in ["'/", "'"] {
            let said = both(&format!("ssh, {service}, {quote}"), 3, async |name| {
                let command = format!("{service} {quote}{name}'");
                let mut ssh = outsider.ssh_as(&rig.node, "tls", "git");
                said(&output(ssh.arg(command)))
            })
            .await;
            assert!(!said.contains("status: 0"), "{said}");
        }
    }
    rig.unharmed();
}

/// How a command ended and all that it said.
fn said(output: &Output) -> Vec<u8> {
    let status = format!("{:?}\n", output.status.code());
    [status.as_bytes(), &output.stdout, b"\n", &output.stderr].concat()
}

const REQUESTS: [(&str, &str); 9] = [
    ("GET", "info/refs?service=git-upload-pack"),
    ("GET", "info/refs?service=git-receive-pack"),
    ("GET", "info/refs"),
    ("GET", "HEAD"),
    ("POST", "git-upload-pack"),
    ("POST", "git-receive-pack"),
    ("POST", "info/lfs/objects/batch"),
    ("GET", "info/lfs/locks"),
    ("GET", "bundles"),
];

#[tokio::test]
async fn by_https() {
    let rig = Rig::new();
    let create = ["token", "create", "--scope", "git:read:other"];
    let token = stdout(&output(&mut rig.home.alknet(&create))).trim().to_owned();
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let basic = |password: &str| STANDARD.encode(format!("anybody:{password}"));
    let unknown = "alk_00000000000000000000000000000000000000000000000000000000000000000000";
    let credentials = [
        ("nobody", String::new(), "401"),
        ("unknown", format!("Authorization: Basic {}\r\n", basic(unknown)), "401"),
        ("outsider", format!("Authorization: Basic {}\r\n", basic(&token)), "404"),
        ("bearer", format!("Authorization: Bearer {token}\r\n"), "404"),
    ];
    for (who, credential, status) in credentials {
        for suffix in ["", ".git"] {
            for (method, end) in REQUESTS {
                let what = format!("{who}: {method} {suffix}/{end}");
                let answer = both(&what, 2, async |name| {
                    let kind = match end.contains("lfs") {
                        true => "application/vnd.git-lfs+json".to_owned(),
                        false => format!("application/x-{end}-request"),
                    };
                    let accept = "Accept: application/vnd.git-lfs+json\r\n";
                    let headers = format!(
                        "Connection: close\r\n{credential}Content-Type: {kind}\r\n{accept}\
                         Content-Length: 4\r\n"
                    );
                    let target = format!("{method} /alknet/git/{name}{suffix}/{end}");
                    raw(&rig.node, &target, &headers, b"0000").await.into_bytes()
                })
                .await;
                assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {answer}");
            }
        }
    }
    rig.unharmed();
}

/// A session over WebTransport or a WebSocket is refused before a repository is named.
#[tokio::test]
async fn by_a_session_inside_https() {
    let rig = Rig::new();
    let outsider = Client::known_to(&rig.home, "outsider", "git:read:other");
    for via in ["webtransport", "websocket"] {
        let answer = both(via, 2, async |name| {
            let address = rig.node.address().to_string();
            let id = rig.node.id().to_string();
            let mut dial =
                outsider.home.alknet(&["dial", &address, "git", "--via", via, "--pin", &id]);
            let request = line(&format!("git-upload-pack /{name}\0host=x\0\0version=2\0"));
            said(&crate::process::output_with(&mut dial, &request))
        })
        .await;
        assert!(answer.contains("ERR "), "{answer}");
    }
}

/// What operations answer about repositories, for those who may not see them.
#[test]
fn by_calls() {
    let rig = Rig::new();
    let outsider = Client::known_to(&rig.home, "outsider", "git:read:other,call");
    let (address, id) = (rig.node.address().to_string(), rig.node.id().to_string());
    for (operation, more) in [
        ("git/refs", ""),
        ("git/log", r#","rev":"main""#),
        ("git/tree", r#","rev":"main""#),
        ("git/blob", r#","rev":"main","path":"file""#),
        ("git/diff", r#","to":"main""#),
        ("git/archive", r#","rev":"main","format":"tar""#),
        ("git/events", ""),
    ] {
        let [private, missing] = NAMES.map(|name| {
            let input = format!(r#"{{"repository":"{name}"{more}}}"#);
            let call = ["call", &address, operation, &input, "--pin", &id];
            let outcome = output(&mut outsider.home.alknet(&call));
            assert!(!outcome.status.success(), "{operation} of {name}");
            anonymous(&said(&outcome), name)
        });
        assert_eq!(private, missing, "{operation}");
    }
    for operation in ["git/rename", "git/delete", "git/gc", "git/configure"] {
        let [private, missing] = NAMES.map(|name| {
            let input = format!(r#"{{"name":"{name}","to":"other"}}"#);
            let call = ["call", &address, operation, &input, "--pin", &id];
            anonymous(&said(&output(&mut outsider.home.alknet(&call))), name)
        });
        assert_eq!(private, missing, "{operation}");
    }
    rig.unharmed();
}
