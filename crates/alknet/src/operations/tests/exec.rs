//! Commands, their output and their end.

use std::{fs, time::Duration};

use super::*;

/// Enough for what is under way on a busy machine. What is waited for here would else run for
/// ten minutes.
const SOON: Duration = Duration::from_secs(60);

fn runner() -> AuthContext {
    with("call:exec/run,exec")
}

/// Everything that a command gives, and how the call ended.
async fn run(rig: &Rig, input: Value) -> (Vec<Value>, Option<CallError>) {
    let mut running = rig.start(&runner(), "exec/run", input).unwrap();
    let mut items = Vec::new();
    loop {
        match running.next().await {
            Some(Ok(item)) => items.push(serde_json::from_str(item.output.get()).unwrap()),
            Some(Err(error)) => return (items, Some(error)),
            None => return (items, None),
        }
    }
}

/// What it wrote to one stream, as text.
fn written(items: &[Value], stream: &str) -> String {
    let of = items.iter().filter(|item| item["stream"] == stream);
    of.map(|item| item["data"].as_str().unwrap()).collect()
}

async fn next(running: &mut Execution) -> Value {
    let item = tokio::time::timeout(SOON, running.next()).await.unwrap().unwrap().unwrap();
    serde_json::from_str(item.output.get()).unwrap()
}

/// Whether a process is there and not dead.
fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

#[track_caller]
fn ends(pid: &str) {
    let since = Instant::now();
    while runs(pid) {
        assert!(since.elapsed() < SOON, "process {pid} still runs");
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn a_command_gives_its_output_and_then_its_end() {
    let rig = Rig::new().await;
    let line = "echo out; echo err >&2; cat; exit 3";
    let (items, error) = run(&rig, json!({ "command": line, "stdin": "in" })).await;
    assert_eq!((error, written(&items, "stdout").as_str()), (None, "out\nin"));
    assert_eq!(written(&items, "stderr"), "err\n");
    assert_eq!(items.last().unwrap(), &json!({ "exit": { "code": 3 } }));
    let (items, _) = run(&rig, json!({ "command": ["printf", "%s", "a b", "$HOME"] })).await;
    assert_eq!(written(&items, "stdout"), "a b$HOME");
    let (items, _) = run(&rig, json!({ "command": "kill -TERM $$" })).await;
    assert_eq!(items, [json!({ "exit": { "signal": "SIGTERM" } })]);
    let (items, _) = run(&rig, json!({ "command": "printf '\\377'" })).await;
    assert_eq!(items[0], json!({ "stream": "stdout", "data": "/w==", "base64": true }));
    let bytes = json!({ "command": "od -An -tx1", "stdin": "/w==", "base64": true });
    assert_eq!(written(&run(&rig, bytes).await.0, "stdout").trim(), "ff");
    assert_eq!(rig.recorded("called").subject.as_deref(), Some("exec/run"));
}

#[tokio::test]
async fn nothing_of_the_node_is_passed_on() {
    let rig = Rig::new().await;
    let env = json!({ "LC_ALL": "C", "COLORTERM": "truecolor" });
    let (items, _) = run(&rig, json!({ "command": ["env"], "env": env, "cwd": "/" })).await;
    let output = written(&items, "stdout");
    let mut names: Vec<_> = output.lines().filter_map(|line| line.split('=').next()).collect();
    names.sort_unstable();
    assert_eq!(names, ["COLORTERM", "HOME", "LC_ALL", "LOGNAME", "PATH", "SHELL", "USER"]);
    for bad in [json!({ "LD_PRELOAD": "x" }), json!({ "PATH": "/tmp" }), json!({ "LC_A=B": "x" })] {
        let (_, error) = run(&rig, json!({ "command": ["env"], "env": bad })).await;
        assert_eq!(error.unwrap().code, ErrorCode::InvalidInput, "{bad}");
    }
}

#[tokio::test]
async fn what_cannot_run_is_an_error() {
    let rig = Rig::new().await;
    let code = async |input: Value| run(&rig, input).await.1.unwrap().code.as_str().to_owned();
    assert_eq!(code(json!({ "command": ["/no/such/program"] })).await, "NOT_STARTED");
    assert_eq!(code(json!({ "command": "true", "cwd": "/no/such" })).await, "INVALID_INPUT");
    let no_base64 = json!({ "command": "true", "stdin": "?", "base64": true });
    assert_eq!(code(no_base64).await, "INVALID_INPUT");
    assert_eq!(code(json!({ "command": ["sleep", "600"], "timeout_ms": 20 })).await, "TIMEOUT");
    for bad in [json!({ "command": [] }), json!({ "command": "true", "more": 1 })] {
        let error = rig.start(&runner(), "exec/run", bad.clone()).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidInput, "{bad}");
    }
}

#[tokio::test]
async fn an_abort_kills_the_deepest_process() {
    let rig = Rig::new().await;
    let deep = r#"sh -c 'sh -c "echo \$\$; exec sleep 600"; true'; true"#;
    let mut running = rig.start(&runner(), "exec/run", json!({ "command": deep })).unwrap();
    let pid = next(&mut running).await["data"].as_str().unwrap().trim().to_owned();
    assert!(runs(&pid));
    running.abort().await;
    ends(&pid);
}

/// The call goes on while somebody may still write, and what does is its own.
#[tokio::test]
async fn an_abort_kills_what_a_command_left_behind() {
    let rig = Rig::new().await;
    let left = "sleep 600 & echo $! $$";
    let mut running = rig.start(&runner(), "exec/run", json!({ "command": left })).unwrap();
    let pids = next(&mut running).await["data"].as_str().unwrap().trim().to_owned();
    let (pid, leader) = pids.split_once(' ').unwrap();
    let since = Instant::now();
    while runs(leader) {
        assert!(since.elapsed() < SOON, "the shell does not end");
        tokio::task::yield_now().await;
    }
    assert!(runs(pid), "what was left behind is gone before the abort");
    running.abort().await;
    ends(pid);
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_holds_the_command_up() {
    let rig = Rig::new().await;
    let endless = json!({ "command": "echo $$; exec cat /dev/zero" });
    let mut running = rig.start(&runner(), "exec/run", endless).unwrap();
    let pid = next(&mut running).await["data"].as_str().unwrap().lines().next().unwrap().to_owned();
    // It has written what there is room for, and sleeps.
    let since = Instant::now();
    loop {
        let stat = fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let asleep = state.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'));
        let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
        let wrote = |io: &str| {
            let line = io.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap();
            line.parse::<u64>().unwrap()
        };
        if asleep && wrote(&io) > 0 {
            assert!(wrote(&io) < 16 << 20, "{} bytes in {stat}", wrote(&io));
            break;
        }
        assert!(since.elapsed() < SOON, "the command is not held up");
        tokio::task::yield_now().await;
    }
    running.abort().await;
}
