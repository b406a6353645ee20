//! What programs get, give and see.

use std::{fs, path::Path, time::Duration};

use alknet_core::Code;
use russh::{ChannelMsg, Pty, Sig, client::Handle};
use tokio::time::sleep;

use crate::node::{Node, Outcome, Trust, outcome, run, soon};

#[tokio::test]
async fn output_errors_and_status_come_back() {
    let node = Node::new();
    let client = node.session().await;
    let outcome = run(&client, "echo out; echo err >&2; exit 7").await;
    assert_eq!(outcome.text(), "out\n");
    assert_eq!(outcome.stderr, b"err\n");
    assert_eq!(outcome.status, Some(7));
    assert!(outcome.ordered);
}

#[tokio::test]
async fn a_signal_that_ends_a_program_is_named() {
    let node = Node::new();
    let client = node.session().await;
    let killed = run(&client, "kill -KILL $$").await;
    assert!(matches!(killed.signal, Some(Sig::KILL)), "{killed:?}");
    assert_eq!(killed.status, None);
    let other = run(&client, "kill -XCPU $$").await;
    assert!(matches!(other.signal, Some(Sig::Custom(name)) if name == "SIG@openssh.com"));
}

#[tokio::test]
async fn input_reaches_the_program_and_ends() {
    let node = Node::new();
    let client = node.session().await;
    let channel = client.channel_open_session().await.unwrap();
    channel.exec(true, "cat; echo end").await.unwrap();
    let (mut read, write) = channel.split();
    write.data_bytes("some input\n").await.unwrap();
    write.eof().await.unwrap();
    assert_eq!(outcome(&mut read).await.text(), "some input\nend\n");
}

#[tokio::test]
async fn a_program_may_leave_its_input_unread() {
    let node = Node::new();
    let client = node.session().await;
    let channel = client.channel_open_session().await.unwrap();
    channel.exec(true, "exec <&-; sleep 0.1; echo done").await.unwrap();
    let (mut read, write) = channel.split();
    let send = async {
        while write.data_bytes(vec![0; 64 * 1024]).await.is_ok() {}
        std::future::pending::<()>().await;
    };
    let outcome = tokio::select! {
        outcome = outcome(&mut read) => outcome,
        () = send => unreachable!(),
    };
    assert_eq!((outcome.text(), outcome.status), ("done\n", Some(0)));
}

#[tokio::test]
async fn the_environment_is_clean() {
    let node = Node::new();
    let client = node.session().await;
    let channel = client.channel_open_session().await.unwrap();
    for (name, value) in [
        ("LANG", "C.UTF-8"),
        ("LC_TIME", "C"),
        ("COLORTERM", "truecolor"),
        ("LD_PRELOAD", "/tmp/evil.so"),
        ("PATH", "/tmp"),
        ("LC_X=Y", "1"),
        ("LISTED", "1"),
        ("LISTED_NOT", "1"),
        ("ANY_THING", "1"),
        ("ANY_X=Y", "1"),
        ("ANY_LONG", &*"x".repeat(5000)),
    ] {
        channel.set_env(false, name, value).await.unwrap();
    }
    channel.exec(true, "/usr/bin/env -0; pwd").await.unwrap();
    let outcome = outcome(&mut channel.split().0).await;
    let mut lines: Vec<&str> = outcome.text().trim_end().split('\0').collect();
    assert_eq!(lines.pop(), node.home().to_str());
    let names = |line: &&str| line.split('=').next().unwrap().to_string();
    let mut names: Vec<String> = lines.iter().map(names).collect();
    names.sort();
    // `PWD`, `SHLVL` and `_` are the shell's own.
    assert_eq!(
        names,
        [
            "ANY_SET",
            "ANY_THING",
            "COLORTERM",
            "HOME",
            "LANG",
            "LC_TIME",
            "LISTED",
            "LOGNAME",
            "PATH",
            "PWD",
            "SHELL",
            "SHLVL",
            "SSH_CLIENT",
            "SSH_CONNECTION",
            "USER",
            "_",
        ]
    );
    assert!(lines.contains(&"SSH_CLIENT=192.0.2.1 4711 65535"));
    assert!(!outcome.text().contains("PATH=/tmp\0"));
}

#[tokio::test]
async fn what_the_node_sets_no_client_does() {
    let node = Node::new();
    let client = node.session().await;
    let channel = client.channel_open_session().await.unwrap();
    for (name, value) in [("ANY_SET", "by the client"), ("ANY_FREE", "by the client")] {
        channel.set_env(false, name, value).await.unwrap();
    }
    channel.exec(true, "echo $ANY_SET, $ANY_FREE").await.unwrap();
    let outcome = outcome(&mut channel.split().0).await;
    assert_eq!(outcome.text(), "by the node, by the client\n");
}

#[tokio::test]
async fn the_shell_is_a_login_shell() {
    let node = Node::new();
    fs::write(node.file(".bash_profile"), "echo profile\n").unwrap();
    let client = node.session().await;
    let channel = client.channel_open_session().await.unwrap();
    channel.request_shell(true).await.unwrap();
    let (mut read, write) = channel.split();
    write.data_bytes("echo $0; exit 3\n").await.unwrap();
    let outcome = outcome(&mut read).await;
    assert_eq!((outcome.text(), outcome.status), ("profile\n-bash\n", Some(3)));
}

#[tokio::test]
async fn a_terminal_has_size_type_and_modes() {
    let node = Node::new();
    let client = node.session().await;
    let modes = [(Pty::ECHO, 0), (Pty::VERASE, 8), (Pty::ONLCR, 0), (Pty::VINTR, 255)];
    let script = "tty; stty size; echo $TERM; stty -a";
    let outcome = on_terminal(&client, script, &modes).await;
    let mut lines = outcome.text().lines();
    assert!(lines.next().unwrap().starts_with("/dev/pts/"));
    assert_eq!(lines.next(), Some("24 80"));
    assert_eq!(lines.next(), Some("xterm-256color"));
    let settings = lines.collect::<Vec<_>>().join(" ");
    for setting in [" -echo ", "erase = ^H;", " -onlcr ", "intr = <undef>;", " icanon "] {
        assert!(settings.contains(setting), "{setting}: {settings}");
    }
}

/// Runs a script on a terminal of 24 lines and 80 columns.
async fn on_terminal(client: &Handle<Trust>, script: &str, modes: &[(Pty, u32)]) -> Outcome {
    let channel = client.channel_open_session().await.unwrap();
    channel.request_pty(true, "xterm-256color", 80, 24, 0, 0, modes).await.unwrap();
    channel.exec(true, script).await.unwrap();
    outcome(&mut channel.split().0).await
}

#[tokio::test]
async fn a_resize_reaches_the_program() {
    let node = Node::new();
    let client = node.session().await;
    let channel = client.channel_open_session().await.unwrap();
    channel.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await.unwrap();
    let script = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done";
    channel.exec(true, script).await.unwrap();
    let (mut read, write) = channel.split();
    wait_for(&mut read, "ready").await;
    write.window_change(132, 43, 0, 0).await.unwrap();
    assert_eq!(outcome(&mut read).await.text().trim(), "43 132");
}

#[tokio::test]
async fn control_characters_interrupt_on_a_terminal() {
    let node = Node::new();
    let client = node.session().await;
    let channel = client.channel_open_session().await.unwrap();
    channel.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await.unwrap();
    channel.exec(true, "echo ready; exec sleep 1000").await.unwrap();
    let (mut read, write) = channel.split();
    wait_for(&mut read, "ready").await;
    write.data_bytes("\x03").await.unwrap();
    assert!(matches!(outcome(&mut read).await.signal, Some(Sig::INT)));
}

#[tokio::test]
async fn signals_reach_the_process_group() {
    let node = Node::new();
    let client = node.session().await;
    let channel = client.channel_open_session().await.unwrap();
    let script = "trap 'echo caught; wait; exit 4' USR1; (trap 'exit 0' USR1; echo ready; \
                  while :; do sleep 0.05; done) & wait";
    channel.exec(true, script).await.unwrap();
    let (mut read, write) = channel.split();
    wait_for(&mut read, "ready").await;
    write.signal(Sig::USR1).await.unwrap();
    let outcome = outcome(&mut read).await;
    assert_eq!((outcome.text(), outcome.status), ("caught\n", Some(4)));
}

/// Ignored signals stay ignored when a program starts another, which is what `nohup` does to
/// a node. So the test runs itself once more in a process that ignores some.
#[tokio::test]
async fn what_the_node_ignores_its_programs_do_not() {
    const NAME: &str = "sessions::what_the_node_ignores_its_programs_do_not";
    const IGNORING: &str = "ALKNET_TEST_IGNORES_SIGNALS";
    if std::env::var_os(IGNORING).is_none() {
        let script = "trap '' HUP INT TERM USR1; exec \"$0\" --exact --test-threads=1 \"$1\"";
        let again = std::process::Command::new("sh")
            .args([std::ffi::OsStr::new("-c"), script.as_ref()])
            .args([std::env::current_exe().unwrap().as_os_str(), NAME.as_ref()])
            .env(IGNORING, "1")
            .output()
            .unwrap();
        assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stdout));
        return;
    }
    let own = fs::read_to_string("/proc/self/status").unwrap();
    assert_ne!(ignored(&own) & 0x4203, 0, "this process ignores nothing");
    let node = Node::new();
    let client = node.session().await;
    let outcome = run(&client, "cat /proc/self/status").await;
    // The C library keeps signals 32 and 33 to itself.
    assert_eq!(ignored(outcome.text()) & !(0b11 << 31), 0);
    assert!(outcome.text().contains("SigBlk:\t0000000000000000\n"));
}

/// The set of ignored signals in a process's status.
fn ignored(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
    u64::from_str_radix(line, 16).unwrap()
}

#[tokio::test]
async fn a_program_leads_a_session_without_the_node_s_terminal() {
    let node = Node::new();
    let client = node.session().await;
    let outcome = run(&client, "ps -o pid=,pgid=,sid=,tty= -p $$").await;
    let fields: Vec<&str> = outcome.text().split_whitespace().collect();
    assert_eq!(fields, [fields[0], fields[0], fields[0], "?"]);
}

#[tokio::test]
async fn all_of_a_large_output_comes_before_the_end() {
    let node = Node::new();
    let client = node.session().await;
    let script = "head -c 20000000 /dev/zero; head -c 1000000 /dev/zero >&2; exit 5";
    let outcome = run(&client, script).await;
    assert_eq!((outcome.stdout.len(), outcome.stderr.len()), (20_000_000, 1_000_000));
    assert_eq!(outcome.status, Some(5));
    assert!(outcome.ordered);
}

/// OpenSSH's client closes a channel as soon as both directions have ended.
#[tokio::test]
async fn a_client_that_closes_at_the_end_of_the_output_gets_the_status() {
    let node = Node::new();
    let client = node.session().await;
    let channel = client.channel_open_session().await.unwrap();
    channel.exec(true, "exec >&- 2>&-; sleep 0.2; exit 3").await.unwrap();
    let (mut read, write) = channel.split();
    write.eof().await.unwrap();
    let mut status = None;
    let reading = async {
        while let Some(message) = read.wait().await {
            match message {
                ChannelMsg::Eof => write.close().await.unwrap(),
                ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
                _ => {}
            }
        }
    };
    soon("the program", reading).await;
    assert_eq!(status, Some(3));
}

#[tokio::test]
async fn all_of_a_terminal_s_output_comes_before_the_end() {
    let node = Node::new();
    let client = node.session().await;
    let outcome = on_terminal(&client, "seq 100000; exit 5", &[(Pty::OPOST, 0)]).await;
    assert_eq!(outcome.text().lines().count(), 100_000);
    assert_eq!(outcome.status, Some(5));
}

#[tokio::test]
async fn pipes_that_are_held_keep_the_channel_open() {
    let node = Node::new();
    let client = node.session().await;
    let outcome = run(&client, "(sleep 0.3; echo late) & echo early").await;
    assert_eq!((outcome.text(), outcome.status), ("early\nlate\n", Some(0)));
}

#[tokio::test]
async fn a_terminal_that_is_held_does_not() {
    let node = Node::new();
    let client = node.session().await;
    let outcome = on_terminal(&client, "trap '' HUP; sleep 1000 & echo $!; exit 2", &[]).await;
    assert_eq!(outcome.status, Some(2));
    kill(outcome.text().trim());
}

/// A node that never kills: what ends, ends by being told to hang up.
fn patient() -> Node {
    Node::with_limits(|limits| limits.hangup_grace = Duration::from_secs(3600))
}

#[tokio::test]
async fn closing_the_channel_ends_the_process_group() {
    let node = patient();
    let client = node.session().await;
    let channel = client.channel_open_session().await.unwrap();
    let pids = start_two(&node, &channel, "sleep 1000").await;
    channel.close().await.unwrap();
    gone(&pids).await;
    assert_eq!(run(&client, "true").await.status, Some(0), "the transport goes on");
}

#[tokio::test]
async fn closing_the_channel_ends_what_runs_on_its_terminal() {
    let node = Node::new();
    let client = node.session().await;
    let channel = client.channel_open_session().await.unwrap();
    channel.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await.unwrap();
    let pids = start_two(&node, &channel, "sleep 1000").await;
    channel.close().await.unwrap();
    gone(&pids).await;
}

#[tokio::test]
async fn the_end_of_the_connection_ends_the_process_group() {
    let node = Node::new();
    let connection = node.connect();
    let mut client = node.client_on(connection.clone()).await;
    assert!(node.log_in(&mut client, node.user("alice", &["ssh"])).await);
    let channel = client.channel_open_session().await.unwrap();
    let pids = start_two(&node, &channel, "sleep 1000").await;
    connection.close(Code::CANCELLED, "");
    gone(&pids).await;
}

#[tokio::test]
async fn who_ignores_the_hangup_is_killed() {
    let node = Node::with_limits(|limits| limits.hangup_grace = Duration::from_millis(200));
    let client = node.session().await;
    let channel = client.channel_open_session().await.unwrap();
    let pids = start_two(&node, &channel, "trap '' HUP; sleep 1000").await;
    channel.close().await.unwrap();
    gone(&pids).await;
}

#[tokio::test]
async fn who_ignores_the_hangup_is_killed_after_its_leader_too() {
    let node = Node::with_limits(|limits| limits.hangup_grace = Duration::from_millis(200));
    let client = node.session().await;
    let channel = client.channel_open_session().await.unwrap();
    let deaf = "(trap '' HUP; touch deaf; exec sleep 1000)";
    let pids = start_two(&node, &channel, deaf).await;
    soon("the program", appears(&node.file("deaf"))).await;
    channel.close().await.unwrap();
    gone(&pids).await;
}

#[tokio::test]
async fn what_a_program_left_behind_stays() {
    let node = Node::with_limits(|limits| limits.hangup_grace = Duration::ZERO);
    let connection = node.connect();
    let mut client = node.client_on(connection.clone()).await;
    assert!(node.log_in(&mut client, node.user("alice", &["ssh"])).await);
    let channel = client.channel_open_session().await.unwrap();
    channel.exec(true, "sleep 1000 & echo $$ $!").await.unwrap();
    let (mut read, _write) = channel.split();
    let line = wait_for(&mut read, "\n").await;
    let (leader, left) = line.trim().split_once(' ').unwrap();
    let leader = Path::new("/proc").join(leader);
    soon("the end of the program", async {
        while leader.exists() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    connection.close(Code::CANCELLED, "");
    soon("the end of the session", async {
        while !node.dispatcher.sessions().is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert!(runs(left));
    kill(left);
}

fn kill(pid: &str) {
    let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn dropping_the_handler_kills() {
    let node = patient();
    let client = node.session().await;
    let channel = client.channel_open_session().await.unwrap();
    let pids = start_two(&node, &channel, "trap '' HUP; sleep 1000").await;
    assert_eq!(node.dispatcher.shutdown(Duration::ZERO).await, 1);
    gone(&pids).await;
}

/// Starts a shell that starts another program in its group; gives the ids of both. The ids go
/// through a file, so that nothing of the output is in the way.
async fn start_two(
    node: &Node,
    channel: &russh::Channel<russh::client::Msg>,
    second: &str,
) -> [String; 2] {
    let script = format!("{second} & echo $$ $! >pids.new; mv pids.new pids; wait");
    channel.exec(true, script).await.unwrap();
    soon("the program", appears(&node.file("pids"))).await;
    let pids = fs::read_to_string(node.file("pids")).unwrap();
    let mut pids = pids.split_whitespace().map(String::from);
    let pids = [pids.next().unwrap(), pids.next().unwrap()];
    assert!(pids.iter().all(|pid| runs(pid)));
    pids
}

async fn gone(pids: &[String]) {
    let ended = async {
        while pids.iter().any(|pid| runs(pid)) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    soon("the end of the processes", ended).await;
}

/// Whether a process runs: one that only waits for its parent to take note does not.
fn runs(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().starts_with(" Z"))
}

async fn appears(path: &Path) {
    while !path.exists() {
        sleep(Duration::from_millis(5)).await;
    }
}

/// Reads until a text appears; gives what came up to then.
async fn wait_for(read: &mut russh::ChannelReadHalf, text: &str) -> String {
    let mut seen = Vec::new();
    let reading = async {
        while let Some(message) = read.wait().await {
            if let ChannelMsg::Data { data } = message {
                seen.extend_from_slice(&data);
                let seen = String::from_utf8_lossy(&seen);
                if seen.contains(text) {
                    return seen.into_owned();
                }
            }
        }
        panic!("the program ended early: {}", String::from_utf8_lossy(&seen));
    };
    soon(text, reading).await
}

#[tokio::test]
async fn a_channel_runs_one_program() {
    let node = Node::new();
    let client = node.session().await;
    let channel = client.channel_open_session().await.unwrap();
    channel.exec(true, "sleep 1000").await.unwrap();
    channel.exec(true, "echo second").await.unwrap();
    let (mut read, write) = channel.split();
    assert!(outcome(&mut read).await.refused);
    write.close().await.unwrap();
}

#[tokio::test]
async fn what_is_not_there_is_refused() {
    let node = Node::new();
    let client = node.session().await;
    let channel = client.channel_open_session().await.unwrap();
    channel.request_subsystem(true, "sftp").await.unwrap();
    assert!(outcome(&mut channel.split().0).await.refused);
    let channel = client.channel_open_session().await.unwrap();
    channel.request_x11(true, false, "MIT-MAGIC-COOKIE-1", "00", 0).await.unwrap();
    assert!(outcome(&mut channel.split().0).await.refused);
    let channel = client.channel_open_session().await.unwrap();
    channel.agent_forward(true).await.unwrap();
    assert!(outcome(&mut channel.split().0).await.refused);
    let channel = client.channel_open_session().await.unwrap();
    channel.request_pty(true, "bad\nterm", 80, 24, 0, 0, &[]).await.unwrap();
    assert!(outcome(&mut channel.split().0).await.refused);
    assert!(client.channel_open_direct_tcpip("localhost", 22, "localhost", 1).await.is_err());
    assert!(client.channel_open_direct_streamlocal("/run/x").await.is_err());
    assert!(client.tcpip_forward("localhost", 0).await.is_err());
    assert_eq!(run(&client, "true").await.status, Some(0));
}

#[tokio::test]
async fn channels_are_limited_and_places_come_back() {
    let node = Node::with_limits(|limits| limits.channels = 2);
    let client = node.session().await;
    for _ in 0..5 {
        assert_eq!(run(&client, "true").await.status, Some(0));
    }
    let first = client.channel_open_session().await.unwrap();
    let second = client.channel_open_session().await.unwrap();
    assert!(client.channel_open_session().await.is_err());
    first.close().await.unwrap();
    second.exec(true, "true").await.unwrap();
    assert_eq!(outcome(&mut second.split().0).await.status, Some(0));
    assert_eq!(run(&client, "true").await.status, Some(0));
}

#[tokio::test]
async fn a_shutdown_waits_for_programs_and_then_says_goodbye() {
    let node = Node::new();
    let client = node.session().await;
    let channel = client.channel_open_session().await.unwrap();
    channel.exec(true, "echo ready; read line; echo got $line").await.unwrap();
    let (mut read, write) = channel.split();
    wait_for(&mut read, "ready").await;
    let shutdown = node.dispatcher.shutdown(Duration::from_secs(60));
    let finish = async {
        while !node.dispatcher.is_draining() {
            tokio::task::yield_now().await;
        }
        assert!(client.channel_open_session().await.is_err());
        write.data_bytes("it\n").await.unwrap();
        outcome(&mut read).await
    };
    let (late, outcome) = soon("the shutdown", async { tokio::join!(shutdown, finish) }).await;
    assert_eq!((late, outcome.text()), (0, "got it\n"));
}

#[tokio::test]
async fn every_stream_of_a_connection_is_a_transport_of_its_own() {
    let node = Node::new();
    let connection = node.connect();
    let mut clients = Vec::new();
    for name in ["alice", "bob", "carol"] {
        let mut client = node.client_on(connection.clone()).await;
        assert!(node.log_in(&mut client, node.user(name, &["ssh"])).await);
        clients.push(client);
    }
    drop(clients.remove(0));
    for client in &clients {
        assert_eq!(run(client, "echo here").await.text(), "here\n");
    }
}
