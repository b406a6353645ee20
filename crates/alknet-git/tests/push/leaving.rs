//! Clients that leave before their push is done.

use std::{
    fs, io,
    path::Path,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use alknet_core::Stream;
use alknet_git::OwnerHooks;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::rig::{LONG, Rig, Work, appears, caller, disappears, gits_in, refs, script, url};

/// How a node hears that its client is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hears {
    /// It reads nothing more.
    Reading,
    /// It cannot write.
    Writing,
    /// The session of the client is over.
    Ended,
}

/// The node's end of a connection, until it is cut.
struct Severed {
    socket: TcpStream,
    how: Hears,
    cut: CancellationToken,
    waits: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Whether the node has met the cut.
    met: CancellationToken,
}

impl Severed {
    fn is_cut(&self, how: Hears) -> bool {
        let cut = self.how == how && self.cut.is_cancelled();
        if cut {
            self.met.cancel();
        }
        cut
    }
}

impl AsyncRead for Severed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_cut(Hears::Reading) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if self.waits.as_mut().poll(cx).is_ready() && self.how == Hears::Reading {
            return self.poll_read(cx, buf);
        }
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Severed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_cut(Hears::Writing) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// A server with a hook of its owner that takes its time: it says that it has `begun`, speaks
/// once there is a file `cut`, and is `done` when it may `go`.
struct Slow {
    rig: Rig,
    hooks: tempfile::TempDir,
}

impl Slow {
    fn new(hook: &str) -> Self {
        let hooks = tempfile::tempdir().unwrap();
        let wait = |file: &str| format!("until [ -e HERE/{file} ]; do sleep 0.02; done");
        let (cut, go) = (wait("cut"), wait("go"));
        // It can be killed as soon as the file is there.
        let begin = "echo $$ >HERE/begins\nmv HERE/begins HERE/begun";
        let text = format!("{begin}\n{cut}\necho speaks\n{go}\ntouch HERE/done");
        let text = text.replace("HERE", hooks.path().to_str().unwrap());
        script(&hooks.path().join(hook), &text, 0o755);
        let owner = OwnerHooks::new(hooks.path());
        Self { rig: Rig::with(|config| config.hooks = Some(owner)), hooks }
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.hooks.path().join(name)
    }

    fn touch(&self, name: &str) {
        fs::write(self.file(name), "").unwrap();
    }

    /// Has somebody push to `notes`, and cuts them off while the hook runs. What serves them
    /// may still do so.
    async fn leave(&self, work: &Work, how: Hears) -> JoinHandle<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = url(listener.local_addr().unwrap(), "notes");
        let (cut, met) = (CancellationToken::new(), CancellationToken::new());
        let served = {
            let (server, cut, met) = (self.rig.server.clone(), cut.clone(), met.clone());
            let serve = async move {
                let socket = listener.accept().await.unwrap().0;
                let waits = Box::pin(cut.clone().cancelled_owned());
                let stream = Stream::from_bistream(Severed { socket, how, cut, waits, met });
                let _ = server.serve(stream, &caller("anna", &["git"])).await;
            };
            tokio::spawn(serve)
        };
        let ended = served.abort_handle();
        let leaves = async {
            appears(&self.file("begun")).await;
            cut.cancel();
            self.touch("cut");
            match how {
                Hears::Ended => ended.abort(),
                Hears::Reading | Hears::Writing => timeout(LONG, met.cancelled()).await.unwrap(),
            }
        };
        tokio::pin!(leaves);
        let push = ["push", &to, "main"];
        tokio::select! {
            pushed = work.run(&push) => {
                assert!(!pushed.status.success(), "{how:?}: {pushed:?}");
                leaves.await;
            }
            () = &mut leaves => {}
        }
        served
    }

    /// Waits until the hook is gone, which would go on by itself for ever.
    async fn hook_ends(&self) {
        let id = fs::read_to_string(self.file("begun")).unwrap();
        disappears(&Path::new("/proc").join(id.trim())).await;
    }
}

#[tokio::test]
async fn what_follows_a_change_of_refs_is_done_without_the_client() {
    for how in [Hears::Reading, Hears::Writing, Hears::Ended] {
        let slow = Slow::new("post-receive");
        let repository = slow.rig.make("notes", |_| ());
        let work = slow.rig.work("anna").await;
        let served = slow.leave(&work, how).await;
        slow.touch("go");
        appears(&slow.file("done")).await;
        let _ = served.await;
        slow.rig.quiet(&repository).await;
        let head = work.git(&["rev-parse", "main"]).await;
        assert_eq!(refs(&repository).await, format!("{head} refs/heads/main"), "{how:?}");
        assert_eq!(slow.rig.log.wait("git-push").await.len(), 1, "{how:?}");
    }
}

#[tokio::test]
async fn whoever_leaves_before_has_pushed_nothing() {
    for how in [Hears::Reading, Hears::Ended] {
        for hook in ["pre-receive", "update"] {
            let slow = Slow::new(hook);
            let repository = slow.rig.make("notes", |_| ());
            let work = slow.rig.work("anna").await;
            let _ = slow.leave(&work, how).await.await;
            slow.rig.quiet(&repository).await;
            slow.hook_ends().await;
            assert!(!slow.file("done").exists(), "{how:?} {hook}");
            assert_eq!(refs(&repository).await, "", "{how:?} {hook}");
        }
    }
}

#[tokio::test]
async fn a_node_that_ends_waits_so_long_and_no_longer() {
    let slow = Slow::new("post-receive");
    let repository = slow.rig.make("notes", |_| ());
    let work = slow.rig.work("anna").await;
    let _ = slow.leave(&work, Hears::Ended).await.await;
    let ends = slow.rig.server.shutdown(LONG);
    let goes = async { slow.touch("go") };
    tokio::join!(ends, goes);
    assert!(slow.file("done").exists() && gits_in(&repository).is_empty());

    let slow = Slow::new("post-receive");
    let repository = slow.rig.make("notes", |_| ());
    let work = slow.rig.work("anna").await;
    let _ = slow.leave(&work, Hears::Ended).await.await;
    slow.rig.server.shutdown(Duration::ZERO).await;
    slow.rig.quiet(&repository).await;
    slow.hook_ends().await;
}
