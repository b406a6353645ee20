//! Stock HTTP clients, an HTTP/3 one, and what the sign-in link gives.

use std::process::Command;

use serde_json::Value;

use crate::{
    https::{get3, raw, upgrade},
    node::{Home, Node},
    process::{output, output_with, stdout},
};

/// `curl` to a node, whose self-signed certificate it cannot know.
fn curl(node: &Node, path: &str, args: &[&str]) -> String {
    stdout(&output(&mut curl_command(node, path, args)))
}

fn curl_command(node: &Node, path: &str, args: &[&str]) -> Command {
    let port = node.address().port();
    let mut curl = Command::new("curl");
    curl.args([
        "--disable",
        "--silent",
        "--show-error",
        "--insecure",
        "--max-time",
        "30",
        "--resolve",
    ])
    .arg(format!("localhost:{port}:{}", node.address().ip()))
    .args(args)
    .arg(format!("https://localhost:{port}{path}"));
    curl
}

#[tokio::test]
async fn one_page_over_every_version_of_http() {
    let home = Home::new();
    let node = Node::start(&home, &[]);
    const VERSION: [&str; 2] = ["--write-out", "\nhttp %{http_version} status %{response_code}"];
    for path in ["/", "/alknet/app/"] {
        let one = curl(&node, path, &["--http1.1", VERSION[0], VERSION[1]]);
        let two = curl(&node, path, &["--http2", VERSION[0], VERSION[1]]);
        let (page, version) = one.rsplit_once('\n').unwrap();
        assert_eq!(version, "http 1.1 status 200");
        assert!(page.contains("<html"), "{page}");
        assert_eq!(two.rsplit_once('\n').unwrap(), (page, "http 2 status 200"));
        let three = get3(&node, path).await;
        assert_eq!(
            (three.status().as_u16(), std::str::from_utf8(three.body()).unwrap()),
            (200, page)
        );
    }
}

/// What a client hears whose body nobody reads. curl takes an answer for none that comes in
/// one write with the reset after it, or whose connection breaks while it sends.
#[test]
fn posts_are_answered_though_nobody_reads_them() {
    const STATUS: [&str; 2] = ["--write-out", "\n%{response_code}"];
    let home = Home::new();
    let node = Node::start(&home, &["--cover"]);
    let create = ["token", "create", "--scope", "ssh", "--json"];
    let created: Value = serde_json::from_str(&stdout(&output(&mut home.alknet(&create)))).unwrap();
    let bearer = format!("Authorization: Bearer {}", created["token"].as_str().unwrap());
    let post = |version, path, body: &[u8]| {
        // `Expect:` keeps curl from waiting for leave to send.
        let args = [version, "--header", &bearer, "--header", "Expect:", "--data-binary", "@-"];
        let mut curl = curl_command(&node, path, &[&args, &STATUS[..]].concat());
        stdout(&output_with(&mut curl, body)).rsplit_once('\n').unwrap().1.to_owned()
    };
    for version in ["--http1.1", "--http2"] {
        for (path, length, status) in [
            ("/images/cat", 10, "404"),
            ("/images/cat", 1_000, "404"),
            ("/images/cat", 900_000, "404"),
            ("/images/cat", 2_000_000, "413"),
            ("/alknet/ticket", 900_000, "404"),
            ("/alknet/ticket", 2_000_000, "413"),
        ] {
            let body = vec![0; length];
            for round in 0..20 {
                let said = post(version, path, &body);
                assert_eq!(said, status, "{version} {path} {length}, round {round}");
            }
        }
    }
}

#[tokio::test]
async fn a_sign_in_link_works_once_and_its_cookie_for_the_same_origin_only() {
    let home = Home::new();
    let node = Node::start(&home, &[]);
    let link = node.banner().sign_in[0].clone();
    let (path, fragment) = link.split_once('#').unwrap();
    assert_eq!(fragment, node.id().to_string());
    let path = &path[path.find("/alknet/").unwrap()..];

    let nothing = raw(&node, "GET /nothing/here", "Connection: close\r\n", b"").await;
    let anonymous = raw(&node, "GET /alknet/session", "Connection: close\r\n", b"").await;
    assert_eq!(anonymous, nothing);

    // What previews links does not use one up.
    let preview = raw(&node, &format!("HEAD {path}"), "Connection: close\r\n", b"").await;
    assert!(preview.starts_with("HTTP/1.1 404 "), "{preview}");
    let first = raw(&node, &format!("GET {path}"), "Connection: close\r\n", b"").await;
    assert!(first.starts_with("HTTP/1.1 303 "), "{first}");
    let cookie = cookie(&first);
    let again = raw(&node, &format!("GET {path}"), "Connection: close\r\n", b"").await;
    assert_eq!(again, nothing);

    let with = |more: &str| format!("Connection: close\r\nCookie: {cookie}\r\n{more}");
    let session = raw(&node, "GET /alknet/session", &with(""), b"").await;
    let session: Value = serde_json::from_str(session.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(session["node"], node.id().to_string());
    assert_eq!(session["identity"]["id"], "owner");
    assert_eq!(session["ssh_user"], crate::client::account());

    // Another page's request comes with the cookie as well: only its origin tells.
    let body = br#"{"alpn":"alknet/ssh"}"#;
    let length = format!("Content-Length: {}\r\n", body.len());
    let own = format!("{length}Origin: https://localhost:{}\r\n", node.address().port());
    let foreign = format!("{length}Origin: https://evil.example\r\n");
    let ticket = raw(&node, "POST /alknet/ticket", &with(&own), body).await;
    assert!(ticket.starts_with("HTTP/1.1 200 "), "{ticket}");
    for headers in [with(&foreign), with(&length)] {
        let refused = raw(&node, "POST /alknet/ticket", &headers, body).await;
        assert!(refused.starts_with("HTTP/1.1 404 "), "{refused}");
    }
    let upgraded =
        upgrade(&node, "/alknet/ssh", &format!("Cookie: {cookie}\r\nConnection: close\r\n")).await;
    assert!(upgraded.starts_with("HTTP/1.1 404 "), "a cookie opened a WebSocket: {upgraded}");
}

fn cookie(answer: &str) -> String {
    let line =
        answer.lines().find(|line| line.to_ascii_lowercase().starts_with("set-cookie:")).unwrap();
    for attribute in ["Secure", "HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(line.contains(attribute), "{line}");
    }
    let value = line.split_once(':').unwrap().1.trim();
    assert!(value.starts_with("__Host-"), "{line}");
    value.split(';').next().unwrap().to_owned()
}
