//! Sessions of accounts that are not the node's own: a process serves each, as that account.

use std::{io, pin::pin, time::Duration};

use alknet_core::{AuditEvent, Stream};
use alknet_host::{Account, Pipes, Process};
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    process::Command,
    time::{sleep, timeout},
};
use tokio_util::codec::{FramedRead, LinesCodec};

use crate::{
    server::{Helper, SftpError},
    trail::{Deed, EVENTS, Trail},
};

/// How much is copied at once, in bytes.
const BUFFER: usize = 256 << 10;
/// The longest line of a report, in bytes. An entry is at most half as long, with every byte
/// of its texts escaped.
const LINE: usize = 32 << 10;
/// How long the process gets to end after its session.
const GRACE: Duration = Duration::from_secs(5);

/// Has `helper` serve the stream as `account`.
pub(crate) async fn serve(
    helper: Option<&Helper>,
    stream: Stream,
    account: &Account,
    trail: &Trail,
) -> Result<(), SftpError> {
    let failed = |source| SftpError::Helper { account: account.name.clone(), source };
    let helper = helper.ok_or_else(|| failed(io::ErrorKind::Unsupported.into()))?;
    let mut command = Command::new(&helper.program);
    account.settle(&mut command);
    command.args(&helper.arguments);
    let (mut process, pipes) = Process::with_pipes(command).map_err(failed)?;
    join(stream, pipes, &mut process, trail).await.map_err(failed)?;
    trail.settle();
    let status = timeout(GRACE, process.exited()).await;
    match status.map_err(|_| failed(io::ErrorKind::TimedOut.into()))?.map_err(failed)? {
        status if status.success() => Ok(()),
        status => Err(SftpError::Status(status.code().unwrap_or(255))),
    }
}

/// Carries bytes both ways and the reports to the log, until the process has said all. It does
/// nothing that it does not report: when the reports end before it does, so does the session.
async fn join(
    stream: Stream,
    pipes: Pipes,
    process: &mut Process,
    trail: &Trail,
) -> io::Result<()> {
    let Pipes { stdin: Some(stdin), stdout: Some(stdout), stderr: Some(stderr) } = pipes else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    let (send, receive) = stream.split();
    let up = async {
        // A process that has ended takes no more; its status says why.
        let _ = copy(receive, stdin).await;
        std::future::pending::<()>().await;
    };
    let down = async {
        let (mut copied, mut reported) = (pin!(copy(stdout, send)), pin!(report(stderr, trail)));
        tokio::select! {
            outcome = &mut copied => {
                outcome?;
                reported.await
            }
            outcome = &mut reported => {
                outcome?;
                timeout(GRACE, process.exited()).await.map_err(|_| io::ErrorKind::TimedOut)??;
                copied.await
            }
        }
    };
    tokio::select! {
        outcome = down => outcome,
        () = up => Ok(()),
    }
}

/// Copies to the end, and ends the other side.
async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(buffer.get(..count).unwrap_or_default()).await?;
        to.flush().await?;
    }
}

/// What of an audit event such a process may say: the rest is the node's own knowledge.
#[derive(Deserialize)]
struct Reported {
    event: String,
    #[serde(default)]
    subject: String,
    name: Option<String>,
    reason: Option<String>,
    bytes_read: Option<u64>,
    bytes_written: Option<u64>,
}

/// Records what the process says that it does.
async fn report(from: impl AsyncRead, trail: &Trail) -> io::Result<()> {
    use futures_util::StreamExt as _;
    let mut lines = pin!(FramedRead::new(from, LinesCodec::new_with_max_length(LINE)));
    while let Some(line) = lines.next().await {
        let line = line.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let Ok(said) = serde_json::from_str::<Reported>(&line) else {
            tracing::warn!(line, "an SFTP server says");
            continue;
        };
        let known = EVENTS.into_iter().chain([AuditEvent::REFUSED]);
        let Some(event) = known.into_iter().find(|event| *event == said.event) else { continue };
        if let Some(pause) = trail.pause() {
            sleep(pause).await;
        }
        let moved = said.bytes_read.zip(said.bytes_written);
        let (path, other, reason) = (said.subject, said.name, said.reason);
        let refused = event == AuditEvent::REFUSED;
        trail.record(Deed { event, path, other, reason, moved, refused });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use alknet_core::{Audit, AuditSink};
    use tokio::time::Instant;

    use super::*;

    /// What a process reports that runs `script`, and how the session with it ends.
    async fn session(script: &str) -> io::Result<()> {
        let (near, far) = alknet_testing::memory::pair();
        let (client, server) = tokio::join!(
            async {
                let mut stream = near.open_bi().await.unwrap();
                stream.write_all(b"x").await.unwrap();
                stream
            },
            far.accept_bi(),
        );
        let account = Account::current().unwrap();
        let (mut process, pipes) = Process::with_pipes(account.shell(script.as_ref())).unwrap();
        let ended = join(server.unwrap(), pipes, &mut process, &Trail::default()).await;
        drop(client);
        ended
    }

    #[tokio::test]
    async fn a_session_that_does_not_report_any_more_ends() {
        let begun = Instant::now();
        session("exit 0").await.unwrap();
        let long = format!("head -c {} /dev/zero | tr '\\0' x >&2; cat", 2 * LINE);
        assert_eq!(session(&long).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        let garbage = session("printf '\\377\\n' >&2; cat").await.unwrap_err();
        assert_eq!(garbage.kind(), io::ErrorKind::InvalidData);
        assert_eq!(session("exec 2>&-; cat").await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= GRACE);
    }

    struct Longest;

    impl AuditSink for Longest {
        fn record(&self, event: AuditEvent) {
            assert!(serde_json::to_vec(&event).unwrap().len() < LINE / 2);
        }
    }

    #[test]
    fn no_entry_is_too_long_for_a_line() {
        let trail = Trail::with(Audit::new(Longest), AuditEvent::default());
        for refused in [true, false] {
            let text = || "\u{1}".repeat(4096);
            let (path, other, reason) = (text(), Some(text()), Some("no".into()));
            trail.record(Deed { event: "sftp-rename", path, other, reason, refused, moved: None });
        }
    }
}
