//! Whoever may not have something sees what stands at any other path.

use std::io::Write as _;

use alknet_core::{Alpn, Secret};
use alknet_http::{Decoy, h3};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::ext::Protocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
};

use crate::harness::{Node, POOR_TOKEN, SESSION, TOKEN, UPGRADE, alice, alpn, closing, timeless};

const PAGE: &str = "<html>\r\n<head><title>404 Not Found</title></head>\r\n<body>\r\n\
    <center><h1>404 Not Found</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n";

/// A way to be refused at a service's path, and what the audit log says of it.
struct Refused {
    path: &'static str,
    fields: Vec<String>,
    reason: &'static str,
}

/// One of each.
fn refusals(node: &Node) -> Vec<Refused> {
    let echo = alpn("alknet/echo");
    let bearer = |token: &str| format!("Authorization: Bearer {token}");
    let ticket = |ticket: &Secret| {
        format!("Sec-WebSocket-Protocol: alknet.echo, ticket.{}", ticket.expose())
    };
    let issue = |alpn: &Alpn| node.identities.ticket(&alice(), alpn);
    let (used, expired) = (issue(&echo), issue(&echo));
    node.identities.expire_ticket(&expired);
    let wrong = issue(&alpn("alknet/abrupt"));
    let case = |path, fields: Vec<String>, reason| Refused { path, fields, reason };
    vec![
        case("/alknet/nothere", vec![bearer(TOKEN)], "no such service"),
        case("/alknet/h2", vec![bearer(TOKEN)], "no such service"),
        case("/alknet/echo", vec![], "no credential"),
        case("/alknet/echo", vec![format!("Cookie: __Host-alknet={SESSION}")], "no credential"),
        case("/alknet/echo", vec![bearer(POOR_TOKEN)], "outside the caller's scopes"),
        case(
            "/alknet/echo",
            vec![bearer(TOKEN), "Origin: https://evil.example".into()],
            "foreign origin",
        ),
        case("/alknet/echo", vec![ticket(&expired)], "expired ticket"),
        case("/alknet/echo", vec![ticket(&wrong)], "ticket for another ALPN"),
        case("/alknet/echo", vec![ticket(&Secret::new("unheard-of"))], "unknown ticket"),
        case("/alknet/echo", vec![ticket(&expired)], "used ticket"),
        case("/alknet/echo", vec![ticket(&used)], ""),
        case("/alknet/echo", vec![ticket(&used)], "used ticket"),
    ]
}

/// Asks for a WebSocket over HTTP/1.1.
async fn upgrade(node: &Node, path: &str, fields: &[String]) -> String {
    let mut all = vec![UPGRADE.trim_end()];
    all.extend(fields.iter().map(String::as_str));
    timeless(&node.raw(&closing(&format!("GET {path}"), &all)).await)
}

async fn every_refusal_looks_like_any_other_path(node: &Node) {
    for Refused { path, fields, reason } in refusals(node) {
        if reason.is_empty() {
            spend(node, path, &fields).await;
            continue;
        }
        node.log.refusals();
        let refused = upgrade(node, path, &fields).await;
        assert_eq!(node.log.refusals().last().map(String::as_str), Some(reason), "{fields:?}");
        assert!(!refused.starts_with("HTTP/1.1 101"), "{refused}");
        // As long as the real one, for decoys that show the path.
        let elsewhere = format!("/{}", "q".repeat(path.len() - 1));
        assert_eq!(refused, upgrade(node, &elsewhere, &fields).await, "{path} {fields:?}");
    }
}

/// Uses a ticket up by opening the WebSocket it is for.
async fn spend(node: &Node, path: &str, fields: &[String]) {
    let mut stream = node.connect("http/1.1").open_bi().await.unwrap();
    let fields = fields.join("\r\n");
    let request = format!("GET {path} HTTP/1.1\r\nHost: node.example\r\n{UPGRADE}{fields}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 101");
}

#[tokio::test]
async fn nothing_found() {
    every_refusal_looks_like_any_other_path(&Node::new()).await;
}

#[tokio::test]
async fn a_folder() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("index.html"), "welcome").unwrap();
    let path = folder.path().to_owned();
    let node = Node::with(|builder| builder.decoy(Decoy::Folder(path)));
    every_refusal_looks_like_any_other_path(&node).await;
    let index = node.raw(&closing("GET /", &[])).await;
    assert!(index.ends_with("\r\n\r\nwelcome"), "{index}");
    assert!(index.starts_with("HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: "), "{index}");
    for outside in ["/../Cargo.toml", "/%2e%2e/Cargo.toml", "/..%2fCargo.toml", "//etc/passwd"] {
        let answer = timeless(&node.raw(&closing(&format!("GET {outside}"), &[])).await);
        assert!(answer.contains("<hr><center>nginx</center>"), "{outside}: {answer}");
        assert!(answer.starts_with("HTTP/1.1 40"), "{outside}: {answer}");
    }
}

#[tokio::test]
async fn a_redirect() {
    let to = "https://example.org/".parse().unwrap();
    let node = Node::with(|builder| builder.decoy(Decoy::Redirect(to)));
    every_refusal_looks_like_any_other_path(&node).await;
    let answer = timeless(&node.raw(&closing("GET /x", &[])).await);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(
        head,
        "HTTP/1.1 301 Moved Permanently\r\nServer: nginx\r\nDate: now\r\n\
         Content-Type: text/html\r\nContent-Length: 162\r\nConnection: close\r\n\
         Location: https://example.org/"
    );
    assert_eq!(body.len(), 162);
}

/// A site that answers with the head that it was sent, path aside.
async fn upstream() -> (TcpListener, http::Uri) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    (listener, uri)
}

async fn mirror(listener: TcpListener) {
    loop {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let fields = head.split_once("\r\n").unwrap().1.trim_end();
        let len = fields.len();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nServer: real\r\nContent-Length: {len}\r\nX-Real: yes\r\n\
             Keep-Alive: timeout=5\r\nConnection: close\r\n\r\n{fields}"
        );
        socket.write_all(answer.as_bytes()).await.unwrap();
    }
}

#[tokio::test]
async fn a_real_site_behind() {
    let (listener, uri) = upstream().await;
    let mut tasks = JoinSet::new();
    tasks.spawn(mirror(listener));
    let node = Node::with(|builder| builder.decoy(Decoy::Proxy(uri)));
    every_refusal_looks_like_any_other_path(&node).await;
    let bearer = "Authorization: Bearer alk_wrong";
    let cookie = "Cookie: __Host-alknet=alk_wrong";
    let hop = "Connection: X-Hop\r\nX-Hop: 1\r\nX-End: 1";
    let answer = node.raw(&closing("GET /x", &[bearer, cookie, hop])).await;
    let (head, seen) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: "), "{head}");
    assert!(head.contains("\r\nX-Real: yes") && !head.contains("Keep-Alive"), "{head}");
    let seen = seen.to_ascii_lowercase();
    assert!(seen.contains("x-end: 1"), "{seen}");
    for secret in ["alk_", "x-hop", "upgrade", "node.example"] {
        assert!(!seen.contains(secret), "{secret} in {seen}");
    }
}

#[tokio::test]
async fn a_real_site_that_is_down() {
    let (listener, uri) = upstream().await;
    drop(listener);
    let node = Node::with(|builder| builder.decoy(Decoy::Proxy(uri)));
    let answer = node.raw(&closing("GET /x", &[])).await;
    assert!(answer.starts_with("HTTP/1.1 502 Bad Gateway\r\nServer: nginx\r\n"), "{answer}");
    assert!(answer.contains("<title>502 Bad Gateway</title>"), "{answer}");
}

/// As nginx 1.22 with `server_tokens off` writes it.
#[tokio::test]
async fn the_page_is_nginxs() {
    let node = Node::new();
    let answer = timeless(&node.raw(&closing("GET /x", &[])).await);
    let head = "HTTP/1.1 404 Not Found\r\nServer: nginx\r\nDate: now\r\nContent-Type: text/html\r\n\
        Content-Length: 146\r\nConnection: close\r\n\r\n";
    assert_eq!(answer, format!("{head}{PAGE}"));
    let answer = timeless(&node.raw(&closing("HEAD /x", &[])).await);
    assert_eq!(answer, head);
    let chrome = node.raw(&closing("GET /x", &["User-Agent: Mozilla/5.0 Chrome/140"])).await;
    assert!(chrome.contains("Content-Length: 548\r\n"), "{chrome}");
}

/// What nginx 1.22 was seen to answer before it looks for a site.
#[tokio::test]
async fn odd_requests_are_answered_as_nginx_does() {
    let node = Node::new();
    let host = "Host: node.example";
    let long = format!("GET /{} HTTP/1.1\r\n{host}\r\n\r\n", "a".repeat(9000));
    let wide = format!("GET / HTTP/1.1\r\n{host}\r\nX: {}\r\n\r\n", "a".repeat(9000));
    let simple = |start: &str| format!("{start} HTTP/1.1\r\n{host}\r\n\r\n");
    for (request, status, title) in [
        (simple("TRACE /x"), "405 Not Allowed", "405 Not Allowed"),
        (simple("CONNECT x:443"), "400 Bad Request", "400 Bad Request"),
        (simple("get /x"), "400 Bad Request", "400 Bad Request"),
        (simple("OPTIONS *"), "400 Bad Request", "400 Bad Request"),
        (simple("GET /a/../../x"), "400 Bad Request", "400 Bad Request"),
        (simple("GET /%2E%2e/x"), "400 Bad Request", "400 Bad Request"),
        ("GET /x HTTP/1.1\r\n\r\n".into(), "400 Bad Request", "400 Bad Request"),
        (
            format!("GET /x HTTP/1.1\r\n{host}\r\n{host}\r\n\r\n"),
            "400 Bad Request",
            "400 Bad Request",
        ),
        ("GET /x HTTP/1.1\r\nHost: a/b\r\n\r\n".into(), "400 Bad Request", "400 Bad Request"),
        (long, "414 Request-URI Too Large", "414 Request-URI Too Large"),
        (wide, "400 Bad Request", "400 Request Header Or Cookie Too Large"),
    ] {
        let answer = node.raw(&request).await;
        let start = format!("HTTP/1.1 {status}\r\nServer: nginx\r\n");
        assert!(answer.starts_with(&start), "{request}\n{answer}");
        assert!(answer.contains("\r\nConnection: close\r\n"), "{request}\n{answer}");
        assert!(answer.contains(&format!("<title>{title}</title>")), "{request}\n{answer}");
    }
}

#[tokio::test]
async fn a_connection_is_kept_alive_as_nginx_says() {
    let node = Node::new();
    let mut stream = node.connect("http/1.1").open_bi().await.unwrap();
    for _ in 0..2 {
        stream.write_all(b"GET /x HTTP/1.1\r\nHost: node.example\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(PAGE.as_bytes()) {
            answer.push(stream.read_u8().await.unwrap());
        }
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.contains("\r\nConnection: keep-alive\r\n"), "{answer}");
    }
}

/// What hyper answers by itself.
#[tokio::test]
async fn under_cover_malformed_requests_are_answered_as_nginx_does() {
    let node = Node::with(|builder| builder.cover(true));
    let wide = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(40_000));
    for (request, title) in [
        ("\x16\x03\x01 hello\r\n\r\n", "400 Bad Request"),
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n", "400 Bad Request"),
        (wide.as_str(), "400 Request Header Or Cookie Too Large"),
    ] {
        let answer = timeless(&node.raw(request).await);
        let (head, page) = answer.split_once("\r\n\r\n").unwrap();
        let expected = format!(
            "HTTP/1.1 400 Bad Request\r\nServer: nginx\r\nDate: now\r\n\
             Content-Type: text/html\r\nContent-Length: {}\r\nConnection: close",
            page.len()
        );
        assert_eq!(head, expected);
        assert!(page.contains(&format!("<title>{title}</title>")), "{page}");
    }
}

/// Status, header fields in their order, and body.
type Seen = (u16, Vec<(String, String)>, Bytes);

fn seen(response: Response<Bytes>) -> Seen {
    let (parts, body) = response.into_parts();
    let fields = parts.headers.iter().map(|(name, value)| {
        let value = if name == "date" { "now" } else { value.to_str().unwrap() };
        (name.to_string(), value.to_owned())
    });
    (parts.status.as_u16(), fields.collect(), body)
}

fn with_fields<B>(path: &str, fields: &[String], body: B) -> Request<B> {
    let mut request = Request::get(format!("https://node.example{path}"));
    for (name, value) in fields.iter().filter_map(|field| field.split_once(": ")) {
        request = request.header(name, value);
    }
    request.body(body).unwrap()
}

async fn over_h2(node: &Node, path: &str, fields: &[String]) -> Seen {
    let stream = node.connect("h2").open_bi().await.unwrap();
    let io = TokioIo::new(stream);
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (mut sender, driver) =
        builder.timer(hyper_util::rt::TokioTimer::new()).handshake(io).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(driver);
    let mut request = with_fields(path, fields, Empty::<Bytes>::new());
    *request.method_mut() = Method::CONNECT;
    request.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    // The server's settings must have arrived before an extended CONNECT.
    let plain = with_fields("/warm-up", &[], Empty::<Bytes>::new());
    sender.send_request(plain).await.unwrap();
    let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
    seen(Response::from_parts(parts, body.collect().await.unwrap().to_bytes()))
}

async fn over_h3(node: &Node, path: &str, fields: &[String]) -> Seen {
    let client = h3::Client::new(node.connect("h3")).await.unwrap();
    match client.connect(with_fields(path, fields, ())).await {
        Err(h3::ConnectError::Refused(response)) => seen(response.map(|()| Bytes::new())),
        other => panic!("{other:?}"),
    }
}

async fn get_over_h3(node: &Node, path: &str, fields: &[String]) -> Seen {
    let client = h3::Client::new(node.connect("h3")).await.unwrap();
    seen(client.request(with_fields(path, fields, Bytes::new())).await.unwrap())
}

#[tokio::test]
async fn over_http2_and_http3_too() {
    let node = Node::new();
    for Refused { path, fields, reason } in refusals(&node) {
        let elsewhere = format!("/{}", "q".repeat(path.len() - 1));
        if !fields.iter().any(|field| field.starts_with("Sec-WebSocket")) && !reason.is_empty() {
            node.log.refusals();
            let refused = over_h3(&node, path, &fields).await;
            assert_eq!(node.log.refusals(), [reason], "{path} {fields:?}");
            assert_eq!(refused, over_h3(&node, &elsewhere, &fields).await, "{path} {fields:?}");
            let refused = over_h2(&node, path, &fields).await;
            assert_eq!(node.log.refusals().last().map(String::as_str), Some(reason));
            assert_eq!(refused, over_h2(&node, &elsewhere, &fields).await, "{path} {fields:?}");
        }
        let plain = get_over_h3(&node, path, &fields).await;
        assert_eq!(plain, get_over_h3(&node, &elsewhere, &fields).await, "{path} {fields:?}");
        assert_eq!(plain.2, PAGE);
    }
}

/// A file beside the folder, for the test of paths that lead out of it.
#[tokio::test]
async fn a_link_out_of_the_folder_needs_the_owner_to_make_it() {
    let outer = tempfile::tempdir().unwrap();
    let mut secret = std::fs::File::create(outer.path().join("secret")).unwrap();
    secret.write_all(b"planted").unwrap();
    let folder = outer.path().join("site");
    std::fs::create_dir(&folder).unwrap();
    let node = Node::with(|builder| builder.decoy(Decoy::Folder(folder)));
    for path in ["/../secret", "/%2e%2e/secret", "/..%5csecret", "/./../secret", "/x/../../secret"]
    {
        let answer = node.raw(&closing(&format!("GET {path}"), &[])).await;
        assert!(!answer.contains("planted"), "{path}");
    }
}
