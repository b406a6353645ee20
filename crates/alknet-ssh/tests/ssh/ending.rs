//! The end of a terminal on which something goes on after its program.

use std::time::{Duration, Instant};

use russh::client::Handle;

use crate::node::{Node, Outcome, Trust, outcome};

/// Much longer than the end is waited for, and much shorter than what goes on.
const SOON: Duration = Duration::from_secs(20);
/// Until the terminal is gone.
const NOISES: [&str; 2] = ["yes y", "while echo; do sleep 0.02; done"];

async fn on_terminal(client: &Handle<Trust>, command: &str, typed: &str) -> Outcome {
    let channel = client.channel_open_session().await.unwrap();
    channel.request_pty(false, "xterm", 80, 24, 0, 0, &[]).await.unwrap();
    match command {
        "" => channel.request_shell(false).await.unwrap(),
        command => channel.exec(false, command).await.unwrap(),
    }
    let (mut read, write) = channel.split();
    write.data_bytes(typed.as_bytes().to_vec()).await.unwrap();
    outcome(&mut read).await
}

#[tokio::test]
async fn a_command_on_a_terminal_ends_whoever_writes_on() {
    let node = Node::new();
    let client = node.session().await;
    for noise in NOISES {
        let began = Instant::now();
        let command =
            format!("(trap '' HUP; {noise}) & echo fir''st; sleep 1; echo la''st; exit 5");
        let ended = on_terminal(&client, &command, "").await;
        assert!(began.elapsed() < SOON, "{noise}: {:?}", began.elapsed());
        assert_eq!(ended.status, Some(5), "{noise}");
        assert!(ended.text().contains("first") && ended.text().contains("last"), "{noise}");
    }
}

#[tokio::test]
async fn a_shell_on_a_terminal_ends_whoever_writes_on() {
    let node = Node::new();
    let client = node.session().await;
    for noise in NOISES {
        let began = Instant::now();
        let typed = format!("({noise}) & disown\nsleep 1; echo la''st; exit 6\n");
        let ended = on_terminal(&client, "", &typed).await;
        assert!(began.elapsed() < SOON, "{noise}: {:?}", began.elapsed());
        assert_eq!(ended.status, Some(6), "{noise}");
        assert!(ended.text().contains("last"), "{noise}");
    }
}

/// What the program itself has written is there, whatever is written after it.
#[tokio::test]
async fn all_that_a_program_wrote_is_there_whoever_writes_on() {
    let node = Node::new();
    let client = node.session().await;
    let noise = "while printf .; do sleep 0.02; done";
    let command = format!("(trap '' HUP; {noise}) & stty -onlcr; seq 1 30000; exit 7");
    let ended = on_terminal(&client, &command, "").await;
    assert_eq!(ended.status, Some(7));
    let numbers = ended.text().replace('.', "");
    let expected: String = (1..=30000).map(|number| format!("{number}\n")).collect();
    assert!(numbers == expected, "{} bytes", numbers.len());
}
