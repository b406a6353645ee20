//! One router behind every version, and who is let through to it.

use alknet_http::h3;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{Node, SESSION, TOKEN, UPGRADE, closing, timeless};

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

async fn h2(node: &Node, request: Request<Empty<Bytes>>) -> http::Response<Bytes> {
    let stream = node.connect("h2").open_bi().await.unwrap();
    let (mut sender, driver) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(driver);
    let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
    http::Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
}

#[tokio::test]
async fn every_version_reaches_the_same_route() {
    let node = Node::new();
    let bearer = format!("Bearer {TOKEN}");
    let h1 = node.raw(&closing("GET /private", &[&format!("Authorization: {bearer}")])).await;
    assert_eq!(body(&h1), "alice by bearer");
    let request = || Request::get("https://node.example/private").header("authorization", &bearer);
    let answer = h2(&node, request().body(Empty::new()).unwrap()).await;
    assert_eq!(answer.body(), "alice by bearer");
    let client = h3::Client::new(node.connect("h3")).await.unwrap();
    let answer = client.request(request().body(Bytes::new()).unwrap()).await.unwrap();
    assert_eq!(answer.body(), "alice by bearer");
}

#[tokio::test]
async fn public_routes_are_for_all_and_private_ones_are_not_there() {
    let node = Node::new();
    assert_eq!(body(&node.raw(&closing("GET /public", &[])).await), "nobody by none");
    let private = timeless(&node.raw(&closing("GET /private", &[])).await);
    let nothing = timeless(&node.raw(&closing("GET /nothing", &[])).await);
    assert_eq!(private, nothing);
    assert!(private.starts_with("HTTP/1.1 404 Not Found\r\nServer: nginx\r\n"), "{private}");
}

#[tokio::test]
async fn a_concealed_answer_and_a_wrong_method_are_the_decoys() {
    let node = Node::new();
    let nothing = timeless(&node.raw(&closing("GET /nothing", &[])).await);
    let link = timeless(&node.raw(&closing("GET /alknet/signin/wrong", &[])).await);
    assert_eq!(link, nothing);
    let bearer = format!("Authorization: Bearer {TOKEN}");
    for (path, fields) in [("/public", &[][..]), ("/private", &[bearer.as_str()][..])] {
        let posted = timeless(&node.raw(&closing(&format!("DELETE {path}"), fields)).await);
        assert_eq!(posted, nothing, "{path}");
    }
}

#[tokio::test]
async fn a_cookie_counts_for_pages_of_the_same_origin() {
    let node = Node::new();
    let cookie = format!("Cookie: theme=dark; __Host-alknet={SESSION}");
    let same = "Origin: https://node.example";
    let foreign = "Origin: https://evil.example";
    let site = "Sec-Fetch-Site: cross-site";
    let sibling = "Sec-Fetch-Site: same-site";
    for (fields, let_in) in [
        (&[cookie.as_str()][..], true),
        (&[&cookie, same], true),
        (&[&cookie, foreign], false),
        (&[&cookie, site], false),
        (&[&cookie, sibling], false),
        (&["Cookie: __Host-alknet=alk_wrong"], false),
    ] {
        let answer = node.raw(&closing("GET /private", fields)).await;
        assert_eq!(answer.contains("alice by cookie"), let_in, "{fields:?}\n{answer}");
    }
    assert_eq!(
        node.log.refusals(),
        [
            "browser session used from another origin",
            "browser session used from another origin",
            "browser session used from another origin",
            "unknown or ended browser session",
        ]
    );
}

/// Nobody can push what happened before out of the log.
#[tokio::test]
async fn what_costs_nothing_is_recorded_once_for_each_connection() {
    let node = Node::new();
    let foreign = format!("{UPGRADE}Origin: https://evil.example");
    let cases = [
        ("/private", "Cookie: __Host-alknet=alk_wrong", "unknown or ended browser session"),
        ("/private", "Authorization: nonsense", "malformed Authorization"),
        ("/alknet/echo", UPGRADE.trim_end(), "no credential"),
        ("/alknet/echo", &foreign, "foreign origin"),
    ];
    for (path, field, reason) in cases {
        let again = format!("GET {path} HTTP/1.1\r\nHost: node.example\r\n{field}\r\n\r\n");
        for _ in 0..2 {
            let last = closing(&format!("GET {path}"), &[field]);
            let answers = node.raw(&(again.repeat(5) + &last)).await;
            assert_eq!(answers.matches("HTTP/1.1 404 ").count(), 6, "{answers}");
            assert_eq!(node.log.refusals(), [reason], "{path} {field}");
        }
    }
}

#[tokio::test]
async fn a_credential_that_does_not_hold_is_none() {
    let node = Node::new();
    for (field, reason) in [
        ("Authorization: Bearer alk_wrong", "unknown bearer token"),
        ("Authorization: Bearer", "malformed Authorization"),
        ("Authorization: Concealed k=AA", "malformed Concealed credential"),
    ] {
        let answer = timeless(&node.raw(&closing("GET /private", &[field])).await);
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        assert_eq!(node.log.refusals(), [reason]);
    }
    let twice = format!("Authorization: Bearer {TOKEN}");
    let answer = node.raw(&closing("GET /private", &[&twice, &twice])).await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
}

#[tokio::test]
async fn a_token_is_a_password_where_that_is_wanted() {
    let node = Node::with(|builder| builder.basic("/priv"));
    let basic = |text: &str| format!("Authorization: Basic {}", STANDARD.encode(text));
    let token = basic(&format!("any name:{TOKEN}"));
    let cross_site = [token.as_str(), "Sec-Fetch-Site: cross-site"];
    let same_site = [token.as_str(), "Sec-Fetch-Site: same-origin"];
    for (fields, let_in, refusals) in [
        (&[token.as_str()][..], true, &[][..]),
        (&same_site, true, &[]),
        (&cross_site, false, &[]),
        (&[&basic(&format!(":{TOKEN}"))], true, &[]),
        (&[&basic(&format!("{TOKEN}:x"))], false, &[]),
        (&[&basic("any:alk_wrong")], false, &["unknown bearer token"]),
        (&[&basic("any:password")], false, &[]),
        (&[&basic(TOKEN)], false, &[]),
        (&["Authorization: Basic %%%"], false, &[]),
    ] {
        let answer = node.raw(&closing("GET /private", fields)).await;
        assert_eq!(answer.contains("alice by bearer"), let_in, "{fields:?}\n{answer}");
        assert_eq!(node.log.refusals(), refusals, "{fields:?}");
    }
    let answer = node.raw(&closing("GET /public", &[&token])).await;
    assert_eq!(body(&answer), "nobody by none", "the path is another");
    let (wrong, ticket) = (basic("any:alk_wrong"), "POST /alknet/ticket");
    assert!(node.raw(&closing(ticket, &[&wrong])).await.starts_with("HTTP/1.1 404"));
    assert!(node.log.refusals().is_empty());
}

#[tokio::test]
async fn a_store_that_fails_lets_nobody_in() {
    let node = Node::new();
    node.identities.set_broken(true);
    let bearer = format!("Authorization: Bearer {TOKEN}");
    let answer = node.raw(&closing("GET /private", &[&bearer])).await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    assert_eq!(node.log.refusals(), ["the identity store failed"]);
}

#[tokio::test]
async fn alt_svc_is_on_every_answer_of_the_older_versions() {
    let node = Node::with(|builder| builder.alt_svc(4433));
    for path in ["/public", "/nothing"] {
        let answer = node.raw(&closing(&format!("GET {path}"), &[])).await;
        assert!(answer.contains("Alt-Svc: h3=\":4433\"; ma=86400\r\n"), "{answer}");
    }
    let client = h3::Client::new(node.connect("h3")).await.unwrap();
    let request = Request::get("https://node.example/public").body(Bytes::new()).unwrap();
    let answer = client.request(request).await.unwrap();
    assert_eq!(answer.headers().get("alt-svc"), None);
}

/// Neither a peer that sends nothing nor one that reads nothing keeps a connection.
#[tokio::test(start_paused = true)]
async fn a_peer_that_does_nothing_is_let_go() {
    let node = Node::new();
    let mut silent = node.connect("http/1.1").open_bi().await.unwrap();
    silent.read_to_end(&mut Vec::new()).await.unwrap();

    let idle = node.connect("http/1.1");
    let mut deaf = idle.open_bi().await.unwrap();
    let request = "GET /public HTTP/1.1\r\nHost: x\r\n\r\n".repeat(60_000);
    let begun = tokio::time::Instant::now();
    // Nothing is read of the answers, so that writing stops, too.
    assert!(deaf.write_all(request.as_bytes()).await.is_err());
    assert_eq!(begun.elapsed().as_secs(), 60);
}
