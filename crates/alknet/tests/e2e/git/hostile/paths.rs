//! Names that lead out of the folder of repositories, and options in the place of names.

use super::*;
use crate::https::raw;

const SERVICES: [&str; 3] = ["git-upload-pack", "git-receive-pack", "git-upload-archive"];

/// Names that no repository has. `SECRET` is the path of the one outside.
const NAMES: &[&str] = &[
    "",
    "/",
    ".",
    "..",
    "/..",
    "/../secret",
    "/../secret.git",
    "../secret",
    "/notes/../../secret",
    "/notes.git/../../secret.git",
    "/./notes",
    "//notes",
    "///../secret",
    "/notes//",
    "/a//b",
    "/.../secret",
    "~/secret",
    "/~root/secret",
    "/~/secret",
    "SECRET",
    "/SECRET",
    "/proc/self/cwd/../secret.git",
    "/etc/../etc",
    "/notes.git/hooks",
    "/notes.git/objects",
    "/notes/.git",
    "/notes.git.git",
    "/NOTES",
    "/notes.lock",
    "/notes\\..\\..\\secret",
    "/%2e%2e/secret",
    "/..%2fsecret",
    "/notes%00",
    "/\u{ff0e}\u{ff0e}/secret",
    "/notes\u{202e}",
    "/no\ntes",
    "/notes\r",
    "/notes\t",
    " /notes ",
    "/notes ",
    "-notes",
    "/-notes",
    "/--help",
    "--upload-pack=touch /alknet-e2e-canary",
    "--exec=touch /alknet-e2e-canary",
    "-c core.hooksPath=/",
    "-ccore.fsmonitor=touch /alknet-e2e-canary",
    "/notes;touch /alknet-e2e-canary",
    "/notes|touch /alknet-e2e-canary",
    "/notes&touch /alknet-e2e-canary&",
    "/`touch /alknet-e2e-canary`",
    "/$(touch /alknet-e2e-canary)",
    "/${IFS}notes",
    "ext::touch /alknet-e2e-canary",
    "/notes*",
    "/no?es",
    "/a/b/c/d/e/f/g/h",
];

fn names(rig: &Rig) -> Vec<String> {
    let secret = rig.home.path().join("secret.git").display().to_string();
    let mut names = Vec::from_iter(NAMES.iter().map(|name| name.replace("SECRET", &secret)));
    names.push(format!("/{}", "a".repeat(300)));
    names.push(format!("/{}secret", "../".repeat(300)));
    names
}

/// Neither tip is in an answer: the one of `notes` has not been asked for by its name.
#[track_caller]
fn tells_nothing(rig: &Rig, asked: &str, answer: &[u8]) {
    let text = String::from_utf8_lossy(answer);
    assert!(!text.contains(&rig.secret), "{asked:?}: {text}");
    assert!(!text.contains(&rig.tip), "{asked:?}: {text}");
    assert!(!text.contains("repositoryformatversion"), "{asked:?}: {text}");
}

#[tokio::test]
async fn a_request_line_cannot_lead_out() {
    let rig = Rig::new();
    let connection = rig.connect("quic").await;
    for service in SERVICES {
        for name in names(&rig) {
            let request = line(&format!("{service} {name}\0host=x\0\0version=2\0"));
            let answer = exchange(connection.open_bi().await.unwrap(), &request).await;
            tells_nothing(&rig, &name, &answer);
            let refused = answer.is_empty() || answer.get(4..).unwrap().starts_with(b"ERR ");
            assert!(refused, "{name:?}: {}", String::from_utf8_lossy(&answer));
        }
    }
    rig.unharmed();
}

/// What else a request line can have: other programs, and parameters that become a variable.
#[tokio::test]
async fn a_request_line_cannot_choose_what_runs() {
    let rig = Rig::new();
    for request in [
        "git-shell /notes\0",
        "git-daemon /notes\0",
        "git-upload-pack\0/notes\0",
        "git-upload-pack --version /notes\0",
        "upload-pack /notes\0",
        "../git-upload-pack /notes\0",
        "git-upload-pack\t/notes\0",
        "sh -c 'touch /alknet-e2e-canary'\0",
        "\0\0\0",
    ] {
        let answer = rig.ask("tls", &line(request)).await;
        tells_nothing(&rig, request, &answer);
    }
    for parameters in [
        "host=$(touch /alknet-e2e-canary)\0",
        "host=../../secret\0",
        "host=x\0\0version=2:core.fsmonitor=touch\0",
        "host=x\0\0version=2\nversion=1\0",
        "host=x\0\0GIT_DIR=../secret.git\0",
        "host=x\0\0object-format=sha1:core.hooksPath=/\0version=99999999999999999999\0",
        "host=x\0\0version=2\0version=2\0version=2\0",
    ] {
        let mut request = line(&format!("git-upload-pack /notes\0{parameters}"));
        request.extend(b"0000");
        let answer = rig.ask("tls", &request).await;
        assert!(!String::from_utf8_lossy(&answer).contains(&rig.secret), "{parameters:?}");
    }
    rig.unharmed();
}

#[test]
fn a_command_by_ssh_cannot_lead_out() {
    let rig = Rig::new();
    let ssh = |command: &str| output(rig.client.ssh_as(&rig.node, "tls", "git").arg(command));
    let names = Vec::from_iter(names(&rig).into_iter().filter(|name| !name.contains('\u{202e}')));
    let quoted = names.iter().step_by(3).map(|name| format!("git-upload-pack '{name}'"));
    // Where nothing is quoted, spaces are between words.
    let bare = names.iter().skip(1).step_by(3).filter(|name| !name.ends_with(' '));
    let bare = bare.map(|name| format!("git-upload-pack {name}"));
    let pushes = names.iter().skip(2).step_by(3).map(|name| format!("git-receive-pack '{name}'"));
    let others = [
        "sh -c 'touch /alknet-e2e-canary'",
        "git-shell -c 'git-upload-pack notes'",
        "git --exec-path=/ upload-pack 'notes'",
        "git -c core.pager=touch upload-pack 'notes'",
        "git-upload-pack --strict 'notes'",
        "git-upload-pack 'notes' 'notes'",
        "git-upload-pack 'notes'; touch /alknet-e2e-canary",
        "git-upload-pack 'notes' && touch /alknet-e2e-canary",
        "git-upload-pack 'notes",
        "git-upload-pack",
        "git-upload-pack ''\\''notes'\\'''",
        "scp -t /",
        "true",
    ];
    let others = others.map(str::to_owned).into_iter();
    for command in quoted.chain(bare).chain(pushes).chain(others) {
        let outcome = ssh(&command);
        assert!(!outcome.status.success(), "{command:?}: {}", crate::process::text(&outcome));
        tells_nothing(&rig, &command, &outcome.stdout);
        tells_nothing(&rig, &command, &outcome.stderr);
    }
    assert!(!ssh("").status.success());
    rig.unharmed();
}

/// What is asked for below a name of a repository by HTTP.
const ENDS: [&str; 3] =
    ["/info/refs?service=git-upload-pack", "/git-receive-pack", "/info/lfs/objects/batch"];

#[tokio::test]
async fn a_path_by_https_cannot_lead_out() {
    let rig = Rig::new();
    let encoded = |name: &String| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-~%".contains(&byte);
        let text = name.bytes().map(|byte| match plain(byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02x}"),
        });
        text.collect::<String>()
    };
    let mut paths = Vec::from_iter(names(&rig).iter().map(encoded));
    paths.extend(
        [
            "/%2e%2e/secret",
            "/%2e%2e%2fsecret",
            "/..%2f..%2fsecret",
            "/notes%2f..%2f..%2fsecret",
            "/notes/%2e%2e/%2e%2e/secret",
            "/%252e%252e/secret",
            "/%c0%ae%c0%ae/secret",
            "/notes%00.git",
            "/..;/secret",
            "/%ff",
            "/notes%0d%0aX-Injected:%201",
        ]
        .map(str::to_owned),
    );
    for path in paths {
        let path = if path.starts_with('/') { path } else { format!("/{path}") };
        for end in ENDS {
            let (method, target) =
                (if end.contains('?') { "GET" } else { "POST" }, path.clone() + end);
            let answer = request(&rig, method, &target, b"{}").await;
            tells_nothing(&rig, &target, answer.as_bytes());
            assert!(answer.starts_with("HTTP/1.1 4"), "{target}: {answer}");
            assert!(!answer.contains("\nX-Injected"), "{answer}");
        }
    }
    rig.unharmed();
}

/// No file of a repository is a page of the node, and services are those of git.
#[tokio::test]
async fn https_serves_nothing_but_the_protocol() {
    let rig = Rig::new();
    for file in [
        "config",
        "alknet.toml",
        "HEAD",
        "description",
        "packed-refs",
        "objects/info/packs",
        "info/refs",
        "info/refs?service=",
        "info/refs?service=git-shell",
        "info/refs?service=upload-pack",
        "info/refs?service=git-upload-pack%20--help",
        "info/refs?service=../git-upload-pack",
        "info/refs?service=git-upload-archive",
        "git-upload-archive",
        "git-shell",
    ] {
        for (repository, method) in
            [("/notes/", "GET"), ("/notes.git/", "GET"), ("/notes/", "POST")]
        {
            let target = format!("{repository}{file}");
            let answer = request(&rig, method, &target, b"").await;
            assert!(answer.starts_with("HTTP/1.1 4"), "{method} {target}: {answer}");
            tells_nothing(&rig, &target, answer.as_bytes());
        }
    }
    for version in
        ["version=2:x=$(touch /alknet-e2e-canary)", "version=1\0", "-c", "version=\u{7f}"]
    {
        let header = format!("Git-Protocol: {version}\r\n");
        let get = "GET /alknet/git/notes/info/refs?service=git-upload-pack";
        let headers = format!("Connection: close\r\n{}{header}", credential(&rig));
        let answer = raw(&rig.node, get, &headers, b"").await;
        assert!(!answer.contains(&rig.secret), "{version:?}");
    }
    rig.unharmed();
}

fn credential(rig: &Rig) -> String {
    format!("Authorization: Bearer {}\r\n", rig.token)
}

async fn request(rig: &Rig, method: &str, target: &str, body: &[u8]) -> String {
    let kind = match target.rsplit('/').next() {
        Some("batch") => "application/vnd.git-lfs+json",
        _ => "application/x-git-receive-pack-request",
    };
    let headers = format!(
        "Connection: close\r\n{}Content-Type: {kind}\r\nContent-Length: {}\r\n",
        credential(rig),
        body.len()
    );
    raw(&rig.node, &format!("{method} /alknet/git{target}"), &headers, body).await
}

/// Whoever may administer repositories chooses names and addresses, and neither leads out.
#[test]
fn what_an_administrator_says_cannot_lead_out() {
    let rig = Rig::new();
    let refused = |args: &[&str]| {
        let outcome = output(&mut rig.home.alknet(args));
        assert!(!outcome.status.success(), "{args:?}: {}", crate::process::text(&outcome));
    };
    for name in names(&rig).iter().filter(|name| !name.contains('\0')) {
        refused(&["git", "create", "--", name]);
        refused(&["git", "rename", "--", "notes", name]);
    }
    let admin = Client::known_to(&rig.home, "admin", "git,call");
    let (address, id) = (rig.node.address().to_string(), rig.node.id().to_string());
    for name in ["../secret", "/../secret.git", "--help", "a/../../secret", "notes\0"] {
        for (operation, key) in [("git/create", "name"), ("git/rename", "to")] {
            let input = serde_json::json!({ "name": "notes", key: name }).to_string();
            let call = ["call", &address, operation, &input, "--pin", &id];
            assert!(!output(&mut admin.home.alknet(&call)).status.success(), "{operation} {name}");
        }
    }
    for url in [
        "ext::sh -c touch% /alknet-e2e-canary",
        "fd::3",
        "file:///etc",
        "/etc",
        "../secret.git",
        "--upload-pack=touch /alknet-e2e-canary",
        "-u",
        "alknet::node/notes",
        "alknet://me@node/notes",
        "alknet://-x/notes",
        "alknet://node/../secret",
        "alknet://node/--upload-pack=x",
        "https://user:password@example.org/x",
        "https://example.org/x\ny",
        "https://example.org/x?y#z",
        "https://-oProxyCommand=touch/x",
        "ssh://-oProxyCommand=touch/x",
        "ssh://-oProxyCommand=touch@example.org/x",
        "ssh://example.org/$(touch /alknet-e2e-canary)",
        "example.org:notes",
        "git://example.org:99999/x",
    ] {
        refused(&["git", "mirror", "--", "copies/x", url]);
    }
    rig.unharmed();
}
