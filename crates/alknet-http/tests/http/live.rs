//! Settings that change while connections are open.

use alknet_core::Stream;
use alknet_http::{Decoy, DecoyError};
use axum::{Router, routing::get};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{HOST, Node, TOKEN, UPGRADE, closing, timeless};

/// One answer on a connection that stays.
async fn ask(stream: &mut Stream, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    loop {
        stream.read_buf(&mut answer).await.unwrap();
        let text = String::from_utf8(answer.clone()).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok()
        });
        if body.len() == length.unwrap() {
            return text;
        }
    }
}

#[tokio::test]
async fn a_decoy_is_exchanged_on_connections_old_and_new() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("index.html"), "welcome").unwrap();
    let node = Node::new();
    let mut old = node.connect("http/1.1").open_bi().await.unwrap();
    assert!(ask(&mut old, "/").await.starts_with("HTTP/1.1 404"));

    node.live.set_decoy(Decoy::Folder(folder.path().into())).unwrap();
    assert!(ask(&mut old, "/").await.ends_with("welcome"));
    assert!(node.raw(&closing("GET /", &[])).await.ends_with("welcome"));
    // What is refused shows the new one as well.
    let [refused, elsewhere] = ["DELETE /public", "DELETE /qublic"].map(|it| closing(it, &[]));
    let refused = timeless(&node.raw(&refused).await);
    assert_eq!(refused, timeless(&node.raw(&elsewhere).await));
    assert!(!refused.contains(" 404 "), "{refused}");

    let wrong = Decoy::Proxy("https://secure.example/".parse().unwrap());
    assert!(matches!(wrong.check(), Err(DecoyError::Upstream(_))));
    assert!(matches!(node.live.set_decoy(wrong), Err(DecoyError::Upstream(_))));
    assert!(ask(&mut old, "/").await.ends_with("welcome"), "a wrong decoy changed something");
}

#[tokio::test]
async fn an_origin_is_allowed_and_forbidden_again() {
    let node = Node::new();
    let upgrade = async || {
        let mut stream = node.connect("http/1.1").open_bi().await.unwrap();
        let fields =
            format!("{UPGRADE}Authorization: Bearer {TOKEN}\r\nOrigin: https://app.example");
        let request = format!("GET /alknet/echo HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut start = [0; 12];
        stream.read_exact(&mut start).await.unwrap();
        String::from_utf8(start.to_vec()).unwrap()
    };
    assert_ne!(upgrade().await, "HTTP/1.1 101");
    node.live.set_allowed_origins(vec!["https://App.example:443".into()]);
    assert_eq!(upgrade().await, "HTTP/1.1 101");
    node.live.set_allowed_origins(Vec::new());
    assert_ne!(upgrade().await, "HTTP/1.1 101");
}

/// The other routes vanish without a trace.
#[tokio::test]
async fn routes_are_exchanged_whole() {
    let node = Node::new();
    let mut old = node.connect("http/1.1").open_bi().await.unwrap();
    assert!(ask(&mut old, "/public").await.starts_with("HTTP/1.1 200"));
    let routes = Router::new().route("/other", get(async || "other"));
    node.live.set_routes(routes, Router::new());
    assert!(ask(&mut old, "/other").await.ends_with("other"));
    let gone = ask(&mut old, "/public").await;
    assert!(gone.starts_with("HTTP/1.1 404"), "{gone}");
    let method = node.raw(&closing("DELETE /other", &[])).await;
    assert!(method.starts_with("HTTP/1.1 404") && !method.contains("Allow"), "{method}");
    let bearer = format!("Authorization: Bearer {TOKEN}");
    let private = node.raw(&closing("GET /private", &[&bearer])).await;
    assert!(private.starts_with("HTTP/1.1 404"), "{private}");
}
