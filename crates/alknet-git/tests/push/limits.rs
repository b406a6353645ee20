//! How much there may be at once, and for how long.

use std::{fs, time::Duration};

use alknet_core::Stream;
use alknet_git::Service;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::rig::{Rig, caller, connect, gits_in, url};

/// The request for a fetch, as git's clients send it.
fn request(name: &str) -> Vec<u8> {
    alknet_git::Request::new(Service::UploadPack, name.parse().unwrap()).to_line("x")
}

#[tokio::test]
async fn a_process_is_bounded_and_a_client_that_says_nothing_is_left() {
    let mut rig = Rig::with(|config| {
        // Long enough to look at what runs.
        config.limits.bounds.idle = Duration::from_secs(5);
        config.limits.bounds.memory = 300 << 20;
    });
    let repository = rig.make("notes", |_| ());
    let anna = rig.port("anna", &["git"]).await;
    let mut stream = connect(anna).await;
    stream.write_all(&request("notes")).await.unwrap();
    let mut greeting = [0; 4];
    stream.read_exact(&mut greeting).await.unwrap();
    let gits = gits_in(&repository);
    let limits = fs::read_to_string(format!("/proc/{}/limits", gits[0])).unwrap();
    let limit = |name: &str| {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!(limit("Max data size"), (300_u64 << 20).to_string());
    assert_eq!(limit("Max cpu time"), "3600");
    assert_eq!(limit("Max core file size"), "0");
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    rig.quiet(&repository).await;
    let fetches = rig.log.wait("git-fetch").await;
    assert!(fetches[0].reason.as_ref().unwrap().starts_with("nothing was carried"));
}

#[tokio::test]
async fn a_client_may_not_ask_for_ever() {
    let mut rig = Rig::with(|config| {
        config.limits.bounds.idle = Duration::from_secs(30);
        config.limits.bounds.request = 10_000;
    });
    let repository = rig.make("notes", |_| ());
    let anna = rig.port("anna", &["git"]).await;
    let have = format!("0032have {}\n", "1".repeat(40));
    let command = format!("{0} {1} refs/heads/x", "0".repeat(40), "1".repeat(40));
    let command = format!("{:04x}{command}", command.len() + 4);
    for (service, begin, line) in
        [(Service::UploadPack, "0012command=fetch0001", have), (Service::ReceivePack, "", command)]
    {
        let mut stream = connect(anna).await;
        let request = alknet_git::Request::new(service, "notes".parse().unwrap()).version(2);
        stream.write_all(&request.to_line("x")).await.unwrap();
        stream.write_all(begin.as_bytes()).await.unwrap();
        // The server may have had enough.
        let _ = stream.write_all(line.repeat(1000).as_bytes()).await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
        rig.quiet(&repository).await;
    }
    let fetches = rig.log.wait("git-fetch").await;
    assert_eq!(fetches[0].reason.as_deref(), Some("the request is too long"));
}

#[tokio::test]
async fn an_exchange_that_nobody_waits_for_ends_and_its_git_with_it() {
    let rig = Rig::new();
    let repository = rig.make("notes", |_| ());
    let (near, far) = tokio::io::duplex(1 << 16);
    let (server, anna) = (rig.server.clone(), caller("anna", &["git"]));
    let mut served = tokio::task::JoinSet::new();
    served.spawn(async move { server.serve(Stream::from_bistream(far), &anna).await });
    let (mut from, mut to) = tokio::io::split(near);
    to.write_all(&request("notes")).await.unwrap();
    from.read_u8().await.unwrap();
    assert!(!gits_in(&repository).is_empty());
    served.shutdown().await;
    rig.quiet(&repository).await;
    let mut rest = Vec::new();
    let _ = from.read_to_end(&mut rest).await;
}

#[tokio::test]
async fn who_finds_no_room_is_told_so() {
    let mut rig = Rig::with(|config| {
        config.limits.exchanges_per_caller = 1;
        config.limits.patience = Duration::from_millis(100);
    });
    rig.make("notes", |_| ());
    let anna = rig.port("anna", &["git"]).await;
    let bert = rig.port("bert", &["git"]).await;
    let mut held = connect(anna).await;
    held.write_all(&request("notes")).await.unwrap();
    held.read_u8().await.unwrap();
    let work = rig.work("anna").await;
    let busy = work.fails(&["ls-remote", &url(anna, "notes")]).await;
    assert!(busy.contains("the node is busy with other exchanges"), "{busy}");
    work.git(&["ls-remote", &url(bert, "notes")]).await;
    drop(held);
    let again =
        async { while !work.run(&["ls-remote", &url(anna, "notes")]).await.status.success() {} };
    tokio::time::timeout(crate::rig::LONG, again).await.unwrap();
}

#[tokio::test]
async fn a_refusal_takes_the_same_time_whether_there_is_a_repository_or_not() {
    let rig = Rig::new();
    rig.make("private", |_| ());
    for name in ["private", "missing"] {
        let request = alknet_git::Request::new(Service::ReceivePack, name.parse().unwrap());
        let begun = std::time::Instant::now();
        let refused = rig.server.admit(&request, &caller("nobody", &[])).await;
        assert!(matches!(refused, Err(alknet_git::GitError::NotFound(_))));
        assert!(begun.elapsed() >= Duration::from_millis(20));
    }
}
