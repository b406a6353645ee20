//! Whoever has no credential, comes from another site, or sends too much.

use http::StatusCode;
use serde_json::{Value, json};

use super::{
    client::{Client, message},
    fixture::{CAROL, Fixture},
};
use crate::harness::{closing, timeless};

const METADATA: &str = "/.well-known/oauth-protected-resource/alknet/mcp";

#[tokio::test]
async fn a_node_that_hides_has_no_mcp_for_strangers() {
    let fixture = Fixture::new();
    for method in ["GET", "POST", "DELETE", "OPTIONS"] {
        let nothing = fixture.node.raw(&closing(&format!("{method} /nothing"), &[])).await;
        for (path, fields) in [
            ("/alknet/mcp", &[][..]),
            ("/alknet/mcp", &["Authorization: Bearer alk_wrong"]),
            ("/alknet/mcp", &["Mcp-Session-Id: 1", "Accept: text/event-stream"]),
            (METADATA, &[]),
        ] {
            let answer = fixture.node.raw(&closing(&format!("{method} {path}"), fields)).await;
            assert_eq!(timeless(&answer), timeless(&nothing), "{method} {path} {fields:?}");
        }
    }
}

#[tokio::test]
async fn a_node_that_shows_itself_says_what_to_bring() {
    let fixture = Fixture::with(|builder, mcp| builder.public(mcp.challenge()));
    let challenge = format!(
        "Www-Authenticate: Bearer resource_metadata=\"https://node.example{METADATA}\"\r\n"
    );
    for fields in [&[][..], &["Authorization: Bearer alk_wrong"]] {
        let answer = fixture.node.raw(&closing("POST /alknet/mcp", fields)).await;
        assert!(answer.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{answer}");
        assert!(answer.contains(&challenge), "{answer}");
    }
    let answer = fixture.node.raw(&closing(&format!("GET {METADATA}"), &[])).await;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let metadata: Value = serde_json::from_str(body).unwrap();
    assert_eq!(metadata["resource"], "https://node.example/alknet/mcp");
    assert_eq!(metadata["bearer_methods_supported"], json!(["header"]));
    // Whoever is known is not challenged.
    let carol = Client::new(&fixture.node, CAROL).await;
    assert_eq!(carol.call("test_plain", json!({})).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_page_of_another_site_is_refused() {
    let fixture =
        Fixture::with(|builder, _| builder.allowed_origins(vec!["https://app.example".into()]));
    let carol = Client::new(&fixture.node, CAROL).await;
    let params = json!({
        "protocolVersion": super::client::LEGACY,
        "capabilities": {},
        "clientInfo": { "name": "page", "version": "1" },
    });
    let initialize = message(0, "initialize", &params);
    for (origin, status) in [
        ("https://node.example", StatusCode::OK),
        ("https://app.example", StatusCode::OK),
        ("https://evil.example", StatusCode::FORBIDDEN),
        ("http://node.example", StatusCode::FORBIDDEN),
        ("null", StatusCode::FORBIDDEN),
    ] {
        assert_eq!(carol.post(&[("origin", origin)], &initialize).await.status, status, "{origin}");
    }
    assert_eq!(fixture.mcp.sessions(), 2);
}

#[tokio::test]
async fn a_request_that_is_too_long_is_refused() {
    let fixture = Fixture::new();
    let carol = Client::new(&fixture.node, CAROL).await;
    let text = "x".repeat(1024 * 1024);
    let answer = carol.call("test_echo", json!({ "text": text })).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
}
