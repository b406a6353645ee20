//! The audit log from afar.

use super::*;
use crate::audit::append_all;

fn append(rig: &Rig, events: &[&'static str]) {
    let event = |event: &&'static str| AuditEvent { event, ..AuditEvent::default() };
    append_all(&rig.home, events.iter().map(event)).unwrap();
}

fn reader() -> AuthContext {
    with("call:audit/*")
}

/// The next entries: what happened, and the place of the last.
async fn entries(tail: &mut Execution, count: usize) -> (Vec<String>, String) {
    let (mut events, mut place) = (Vec::new(), String::new());
    for _ in 0..count {
        let item = tail.next().await.unwrap().unwrap();
        let entry: Value = serde_json::from_str(item.output.get()).unwrap();
        events.push(entry["event"].as_str().unwrap().to_owned());
        place = item.event.unwrap();
        assert!(place.starts_with(&format!("{}:", entry["seq"])), "{place} of {entry}");
    }
    (events, place)
}

#[tokio::test]
async fn the_log_is_followed_and_taken_up_again() {
    let rig = Rig::new().await;
    append(&rig, &["one", "two", "three"]);
    let follow = json!({ "lines": 2, "follow": true });
    let mut tail = rig.start(&reader(), "audit/tail", follow.clone()).unwrap();
    let (events, place) = entries(&mut tail, 2).await;
    assert_eq!(events, ["two", "three"]);
    append(&rig, &["four"]);
    assert_eq!(entries(&mut tail, 1).await.0, ["four"]);
    drop(tail);
    append(&rig, &["five"]);
    let mut request = Request::new("audit/tail", reader()).input(json!({ "lines": 0 }));
    request.after = Some(place.clone());
    let mut tail = rig.registry.start(request.clone()).unwrap();
    assert_eq!(entries(&mut tail, 2).await.0, ["four", "five"]);
    assert!(tail.next().await.is_none(), "there is no more");
    request.after = Some("no place".into());
    let error = rig.registry.start(request).unwrap().next().await.unwrap().unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidInput);
    let report = rig.call(&reader(), "audit/verify", json!({ "expect": place })).await.unwrap();
    assert_eq!((&report["ok"], &report["entries"]), (&json!(true), &json!(6)));
}

#[tokio::test]
async fn a_log_that_was_changed_does_not_verify() {
    let rig = Rig::new().await;
    append(&rig, &["one", "two"]);
    let path = rig.home.path("audit.log");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("one", "eno")).unwrap();
    let report = rig.call(&reader(), "audit/verify", json!({})).await.unwrap();
    assert_eq!(report["ok"], false);
    assert!(report["fault"].as_str().unwrap().contains("was changed"), "{report}");
}

#[tokio::test]
async fn the_last_entries_are_no_more_than_were_asked_for() {
    let rig = Rig::new().await;
    append(&rig, &["old"; 200]);
    let mut tail = rig.start(&reader(), "audit/tail", json!({ "lines": 150 })).unwrap();
    entries(&mut tail, 1).await;
    append(&rig, &["new"; 3]);
    assert_eq!(entries(&mut tail, 149).await.0, ["old"; 149]);
    assert!(tail.next().await.is_none(), "nothing that came later");
}
