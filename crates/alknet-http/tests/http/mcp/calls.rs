//! Tools: what there is, what they give, and how they fail.

use serde_json::{Value, json};

use super::{
    client::{Client, message, session},
    fixture::{CAROL, DORA, Fixture},
};

fn names(tools: &Value) -> Vec<&str> {
    tools["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn the_tools_are_the_operations_that_the_caller_may_use() {
    let fixture = Fixture::new();
    let carol = Client::new(&fixture.node, CAROL).await;
    let tools = carol.current("tools/list", json!({})).await.result();
    let all = ["test_count", "test_echo", "test_endless", "test_fail", "test_hang", "test_plain"];
    assert_eq!(names(&tools), all);
    assert_eq!(tools["cacheScope"], "private");
    let echo = &tools["tools"][1];
    assert_eq!(echo["description"], "Says the same.");
    assert_eq!(echo["inputSchema"]["required"], json!(["text"]));
    assert_eq!(echo["outputSchema"]["required"], json!(["text"]));
    assert_eq!(echo["annotations"]["readOnlyHint"], true);
    assert_eq!(tools["tools"][3]["annotations"]["destructiveHint"], true);
    let dora = Client::new(&fixture.node, DORA).await;
    assert_eq!(names(&dora.current("tools/list", json!({})).await.result()), ["test_echo"]);
}

#[tokio::test]
async fn output_is_structured_and_text() {
    let fixture = Fixture::new();
    let carol = Client::new(&fixture.node, CAROL).await;
    let result = carol.call("test_echo", json!({ "text": "hi" })).await.result();
    assert_eq!(result["structuredContent"], json!({ "text": "hi" }));
    assert_eq!(result["content"][0]["text"], r#"{"text":"hi"}"#);
    assert_eq!(result["isError"], false);
    let result = carol.call("test_plain", json!({})).await.result();
    assert_eq!(result["structuredContent"], json!({ "result": "plain text" }));
    assert_eq!(result["content"][0]["text"], "plain text");
}

#[tokio::test]
async fn a_failure_is_a_result_that_says_so() {
    let fixture = Fixture::new();
    let carol = Client::new(&fixture.node, CAROL).await;
    let result = carol.call("test_fail", json!({})).await.result();
    assert_eq!(result["isError"], true);
    assert_eq!(result["structuredContent"]["code"], "TOO_LATE");
    assert_eq!(result["content"][0]["text"], "the train has left (TOO_LATE)");
    let result = carol.call("test_echo", json!({ "text": 1 })).await.result();
    assert_eq!(result["structuredContent"]["code"], "INVALID_INPUT");
}

#[tokio::test]
async fn a_tool_that_may_not_be_used_is_one_that_does_not_exist() {
    let fixture = Fixture::new();
    let dora = Client::new(&fixture.node, DORA).await;
    let unknown = dora.call("test_nothing", json!({})).await;
    for tool in ["test_plain", "test_count", "test_fail", "services_list", "test.echo", "x"] {
        let answer = dora.call(tool, json!({})).await;
        assert_eq!((answer.status, &answer.text), (unknown.status, &unknown.text), "{tool}");
    }
    assert_eq!(unknown.response()["error"]["code"], -32602);
    let id = dora.initialize().await;
    let call = |name| message(2, "tools/call", &json!({ "name": name, "arguments": {} }));
    let unknown = dora.post(&session(&id), &call("test_nothing")).await;
    let answer = dora.post(&session(&id), &call("test_plain")).await;
    let error = |text: &Value| text["error"].clone();
    assert_eq!(error(&answer.response()), error(&unknown.response()));
    assert_eq!(answer.status, unknown.status);
}

#[tokio::test]
async fn items_are_told_as_they_come_and_given_at_the_end() {
    let fixture = Fixture::new();
    let carol = Client::new(&fixture.node, CAROL).await;
    let params = json!({
        "name": "test_count", "arguments": { "count": 3 }, "_meta": { "progressToken": "p" },
    });
    let answer = carol.current("tools/call", params).await;
    let messages = answer.messages();
    let progress = messages.iter().filter(|message| message["method"] == "notifications/progress");
    let told: Vec<&Value> = progress.map(|message| &message["params"]["message"]).collect();
    assert_eq!(told, ["1", "2", "3"]);
    let all = json!({ "items": [1, 2, 3], "ended": true });
    assert_eq!(answer.result()["structuredContent"], all);
}

#[tokio::test]
async fn only_so_many_items_are_collected() {
    let fixture = Fixture::new();
    let carol = Client::new(&fixture.node, CAROL).await;
    let result = carol.call("test_count", json!({ "count": 100_000 })).await.result();
    assert_eq!(result["structuredContent"]["ended"], false);
    assert_eq!(result["structuredContent"]["items"].as_array().unwrap().len(), 256);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_without_an_end_ends_after_a_minute_if_nobody_sees_its_items() {
    let fixture = Fixture::new();
    let carol = Client::new(&fixture.node, CAROL).await;
    let result = carol.call("test_endless", json!({})).await.result();
    let first = json!({ "items": [{ "text": "first" }], "ended": false });
    assert_eq!(result["structuredContent"], first);
    fixture.running.become_(0).await;
}
