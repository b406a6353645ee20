//! Sessions over a network that fails.

use alknet_shell::{client::Outcome, wire::Exit};

use crate::node::Node;

/// Writes numbers and takes so many bytes, both as they are.
fn numbers(count: usize, bytes: usize) -> String {
    format!("stty raw -echo; echo ready; seq 1 {count} & head -c {bytes} > typed; wait; echo over")
}

fn expected(count: usize) -> Vec<u8> {
    let numbers: String = (1..=count).map(|n| format!("{n}\n")).collect();
    format!("ready\n{numbers}over\n").into_bytes()
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_when_links_are_cut() {
    let node = Node::new();
    let ann = node.knows("ann", &["shell"]);
    let mut viewer = node.view(&ann, |request| request.command = Some(numbers(60_000, 60_000)));
    viewer.sees("ready").await;
    let typed: Vec<u8> = (0..60_000u32).flat_map(|n| n.to_be_bytes()).take(60_000).collect();
    for (n, piece) in typed.chunks(3000).enumerate() {
        viewer.types(piece).await;
        if n % 2 == 0 {
            let before = viewer.saw(|seen| seen.attached.len());
            node.network.cut();
            viewer.until("a new attachment", |seen| seen.attached.len() > before).await;
        }
    }
    let attached = viewer.saw(|seen| seen.attached.clone());
    assert!(attached.len() > 10 && attached[1..].iter().all(|it| it.resumed && !it.created));
    let (outcome, output) = viewer.ends().await;
    assert_eq!(outcome.unwrap(), Outcome::Exited(Exit { status: Some(0), signal: None }));
    assert!(output == expected(60_000), "{} bytes", output.len());
    assert!(std::fs::read(node.file("typed")).unwrap() == typed);
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_when_the_network_is_silent() {
    let node = Node::new();
    let ann = node.knows("ann", &["shell"]);
    let mut viewer = node.view(&ann, |request| request.command = Some(numbers(100_000, 3000)));
    viewer.sees("ready").await;
    viewer.types([b'a'; 1000]).await;
    viewer.sees("\n100\n").await;
    node.network.freeze(true);
    viewer.types([b'b'; 1000]).await;
    viewer.until("the outage", |seen| seen.away == 1).await;
    // Other links are tried, and are as dead.
    let made = node.network.made();
    while node.network.made() < made + 2 {
        tokio::task::yield_now().await;
    }
    node.network.freeze(false);
    viewer.types([b'c'; 1000]).await;
    let (outcome, output) = viewer.ends().await;
    assert_eq!(outcome.unwrap(), Outcome::Exited(Exit { status: Some(0), signal: None }));
    assert!(output == expected(100_000), "{} bytes", output.len());
    let typed = std::fs::read(node.file("typed")).unwrap();
    assert!(typed == [[b'a'; 1000], [b'b'; 1000], [b'c'; 1000]].concat());
}

#[tokio::test]
async fn the_end_of_a_program_is_told_to_a_viewer_that_was_away() {
    let node = Node::new();
    let ann = node.knows("ann", &["shell"]);
    let mut viewer = node.view(&ann, |request| {
        request.command = Some("echo up; read x; echo last words; exit 5".into());
    });
    viewer.sees("up").await;
    viewer.types("go\r").await;
    node.network.freeze(true);
    node.network.cut();
    viewer.until("the outage", |seen| seen.away == 1).await;
    node.network.freeze(false);
    let (outcome, output) = viewer.ends().await;
    assert_eq!(outcome.unwrap(), Outcome::Exited(Exit { status: Some(5), signal: None }));
    assert!(String::from_utf8_lossy(&output).contains("last words"));
}
