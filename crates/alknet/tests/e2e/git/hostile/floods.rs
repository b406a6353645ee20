//! More of everything than anybody sends: lines, refs, streams, time.

use alknet_core::StreamReset;

use super::*;

/// Lines of a kind.
const MANY: usize = 1_000_000;
/// Lines that are written at once.
const BATCH: usize = 10_000;
/// Streams at once, and the most processes that they may become: the exchanges that a caller
/// may have, and what a node does beside.
const STREAMS: usize = 1_000;
const PROCESSES: usize = 20;

/// Sends a beginning, the same lines over and over, and an end; what comes back until the
/// node has enough, or all is said.
async fn flood(rig: &Rig, beginning: &[u8], each: impl Fn(usize) -> Vec<u8>, end: &[u8]) -> String {
    let connection = rig.connect("tls").await;
    let (mut send, mut recv) = connection.open_bi().await.unwrap().split();
    let sending = async {
        send.write_all(beginning).await?;
        for batch in (0..MANY).step_by(BATCH) {
            let lines = (batch..batch + BATCH).flat_map(&each).collect::<Vec<u8>>();
            send.write_all(&lines).await?;
        }
        send.write_all(end).await?;
        send.shutdown().await
    };
    let mut answer = Vec::new();
    let reading = async { while recv.read_buf(&mut answer).await.is_ok_and(|count| count > 0) {} };
    let memory = Memory::watch(rig.node.pid());
    // The node may well have enough before it has everything.
    let (_, ()) = timeout(LONG, async { tokio::join!(sending, reading) }).await.unwrap();
    let grown = memory.grown();
    assert!(grown < GROWTH, "grown by {grown} bytes");
    String::from_utf8_lossy(&answer).into_owned()
}

fn upload(version: u8) -> Vec<u8> {
    line(&format!("git-upload-pack /notes\0host=x\0\0version={version}\0"))
}

#[tokio::test]
async fn a_million_wants_and_haves() {
    let rig = Rig::new();
    let want = line(&format!("want {}\n", rig.tip));
    let have = |number: usize| line(&format!("have {number:040x}\n"));
    let done = [b"0000".as_slice(), &line("done\n")].concat();
    flood(&rig, &upload(0), |_| want.clone(), &done).await;
    let beginning = [upload(0), want.clone(), b"0000".to_vec()].concat();
    flood(&rig, &beginning, have, &line("done\n")).await;
    let fetch = [upload(2), line("command=fetch"), b"0001".to_vec(), want.clone()].concat();
    flood(&rig, &fetch, have, b"0000").await;
    flood(&rig, &fetch, |_| want.clone(), b"0000").await;
    rig.unharmed();
}

#[tokio::test]
async fn a_million_lines_of_other_kinds() {
    let rig = Rig::new();
    let list = [upload(2), line("command=ls-refs"), b"0001".to_vec()].concat();
    let prefix = |number: usize| line(&format!("ref-prefix refs/heads/{number}\n"));
    flood(&rig, &list, prefix, b"0000").await;
    flood(&rig, &upload(2), |number| line(&format!("capability-{number}=x\n")), b"0000").await;
    flood(&rig, &upload(2), |_| b"0000".to_vec(), b"").await;
    flood(&rig, &upload(2), |_| b"0004".to_vec(), b"").await;
    flood(&rig, &upload(0), |number| line(&format!("shallow {number:040x}\n")), b"0000").await;
    flood(&rig, &upload(0), |number| line(&format!("noise {number}\n")), b"").await;
    let archive = line("git-upload-archive /notes\0host=x\0");
    flood(&rig, &archive, |_| line("argument --verbose\n"), b"0000").await;
    rig.unharmed();
}

#[tokio::test]
async fn a_million_refs_in_one_push() {
    let rig = Rig::new();
    let begin = line("git-receive-pack /notes\0host=x\0");
    let first = line(&format!("{ZERO} {} refs/heads/first\0report-status atomic\n", rig.tip));
    let one = |number: usize| line(&format!("{ZERO} {} refs/heads/r{number}\n", rig.tip));
    let answer = flood(&rig, &[begin.clone(), first].concat(), one, b"0000").await;
    assert!(!answer.contains("ok refs/heads/"), "{}", answer.get(..400).unwrap_or(&answer));
    // And as many options of one.
    let capabilities = "report-status push-options";
    let first = line(&format!("{ZERO} {} refs/heads/first\0{capabilities}\n", rig.tip));
    let beginning = [begin, first, b"0000".to_vec()].concat();
    let answer = flood(&rig, &beginning, |_| line("option=value"), b"0000").await;
    assert!(!answer.contains("ok refs/heads/"), "{}", answer.get(..400).unwrap_or(&answer));
    rig.unharmed();
}

/// Refs are made below `refs/` and by git's rules for them (git-check-ref-format(1)).
#[tokio::test]
async fn refs_that_are_none_are_refused() {
    let rig = Rig::new();
    let long = format!("refs/heads/{}", "a".repeat(60_000));
    let deep = format!("refs/heads/{}", "a/".repeat(2_000));
    for reference in [
        "HEAD",
        "config",
        "alknet.toml",
        "hooks/post-receive",
        "../secret.git/refs/heads/x",
        "refs/../config",
        "refs/heads/../../hooks/update",
        "refs/heads/../../../secret.git/HEAD",
        "/etc/cron.d/x",
        "refs/heads//x",
        "refs/heads/",
        "refs/heads/.x",
        "refs/heads/x.lock",
        "refs/heads/x..y",
        "refs/heads/x y",
        "refs/heads/x\ny",
        "refs/heads/x\u{7f}",
        "refs/heads/x\\..\\y",
        "refs/heads/@{",
        "refs/heads/x~1",
        "refs/heads/x^",
        "refs/heads/x:y",
        "refs/heads/x?",
        "refs/heads/[x",
        "refs/heads/x*",
        "x",
        "main",
        "",
        &long,
        &deep,
    ] {
        let answer = rig.push(&format!("{ZERO} {} {reference}", rig.tip), b"").await;
        assert!(!answer.contains("ok "), "{reference:?}: {answer}");
    }
    rig.unharmed();
}

#[tokio::test]
async fn filters_that_are_none_are_refused() {
    let rig = Rig::new();
    let nested = "combine:".repeat(2_000);
    let many = format!("combine:{}", "tree:1+".repeat(9_000));
    for filter in [
        "blob:limit=99999999999999999999999",
        "blob:limit=-1",
        "tree:-1",
        "tree:99999999999999999999999",
        "sparse:path=/etc/passwd",
        "sparse:path=../../secret.git/config",
        "sparse:oid=../../secret",
        "sparse:oid=HEAD:file",
        "object:type=nothing",
        "combine:",
        &nested,
        &many,
        "--upload-pack=touch /alknet-e2e-canary",
        "",
    ] {
        let want = format!("want {}\n", rig.tip);
        let lines = ["command=fetch", want.as_str()].map(line);
        let [command, want] = lines;
        let filter_line = line(&format!("filter {filter}\n"));
        let rest = [want, filter_line, line("done\n"), b"0000".to_vec()].concat();
        let bytes = [upload(2), command, b"0001".to_vec(), rest, b"0000".to_vec()].concat();
        let memory = Memory::watch(rig.node.pid());
        let answer = rig.ask("tls", &bytes).await;
        let text = String::from_utf8_lossy(&answer);
        assert!(!text.contains("root:") && !text.contains(&rig.secret), "{filter:?}: {text}");
        let grown = memory.grown();
        assert!(grown < GROWTH, "{filter:?}: grown by {grown} bytes");
    }
    rig.unharmed();
}

/// Clients that say half of what they want, and go on being there.
#[tokio::test]
async fn clients_that_never_finish_hold_nobody_up() {
    let rig = Rig::new();
    let mut held = Vec::new();
    for round in 0..40 {
        let connection = rig.connect(if round % 2 == 0 { "quic" } else { "tls" }).await;
        let beginnings: [&[u8]; 4] = [b"00", b"0fff", b"0032git-upload-pack /not", &upload(0)];
        let mut stream = connection.open_bi().await.unwrap();
        stream.write_all(beginnings[round % 4]).await.unwrap();
        held.push((stream, connection));
    }
    rig.unharmed();
    drop(held);
    let pid = rig.node.pid();
    eventually("git's processes have ended", || (children(pid) == 0).then_some(()));
}

/// Whatever a connection asks for at once, a bounded number of it runs.
#[tokio::test]
async fn a_thousand_streams_at_once() {
    let rig = Rig::new();
    let connection = rig.connect("quic").await;
    let memory = Memory::watch(rig.node.pid());
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..STREAMS {
        let (connection, request) = (connection.clone(), upload(2));
        // Each waits for its own turn to be opened, and never says what it wants.
        asked.spawn(async move {
            let mut stream = timeout(SOON, connection.open_bi()).await.ok()?.ok()?;
            stream.write_all(&request).await.ok()?;
            let mut first = [0; 8];
            match timeout(SOON, stream.read_exact(&mut first)).await {
                Ok(Ok(_)) => Some("answered"),
                Ok(Err(error)) => StreamReset::code_of(&error).map(|_| "refused"),
                Err(_) => Some("waiting"),
            }
        });
    }
    let mut most = 0;
    while let Some(ended) = asked.join_next().await {
        most = most.max(children(rig.node.pid()));
        ended.unwrap();
    }
    assert!(most <= PROCESSES, "{most} processes");
    let grown = memory.grown();
    assert!(grown < GROWTH, "grown by {grown} bytes");
    drop(connection);
    rig.unharmed();
}
