//! Large files over a byte stream: the commands of `git-lfs-transfer`, in packet lines
//! (git-lfs, `docs/proposals/ssh_adapter.md`), with no HTTP involved.

mod wire;

use std::{io, str::FromStr};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    time::timeout,
};

use super::{
    Lfs, LfsError, MAX_BATCH, Verdict,
    locks::{Filter, Named, Unlocked},
    objects::Oid,
};
use crate::{
    name::RepositoryName,
    server::{Caller, GitError, GitServer},
};
use wire::{Command, Wire};

/// How much of an object goes into a packet line, in bytes.
const PIECE: usize = 64_000;

/// What a client of `git-lfs-transfer` comes for: the last word of its command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LfsOperation {
    /// To fetch objects and to list locks.
    Download,
    /// To send objects, and to lock and unlock.
    Upload,
}

/// The word is no operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("git-lfs-transfer is for download or upload")]
pub struct InvalidOperation;

impl FromStr for LfsOperation {
    type Err = InvalidOperation;

    fn from_str(word: &str) -> Result<Self, InvalidOperation> {
        match word {
            "download" => Ok(Self::Download),
            // What an early draft called it.
            "upload" | "lock" => Ok(Self::Upload),
            _ => Err(InvalidOperation),
        }
    }
}

impl GitServer {
    /// Serves `git-lfs-transfer REPOSITORY OPERATION` on a stream, to its end. Nothing has
    /// been written yet where the caller may not do this.
    pub async fn lfs_transfer(
        &self,
        repository: RepositoryName,
        operation: LfsOperation,
        caller: &Caller,
        input: impl AsyncRead + Send + Unpin,
        output: impl AsyncWrite + Send + Unpin,
    ) -> Result<(), GitError> {
        let write = operation == LfsOperation::Upload;
        let lfs = self.lfs(&repository, write, caller).await?;
        let (wire, total) = (Wire::new(input, output), self.limits().bounds.total);
        let served = timeout(total, Session { lfs, operation, caller, wire }.run()).await;
        Ok(served.map_err(|_| LfsError::Late(total))??)
    }
}

struct Session<'a, R, W> {
    lfs: Lfs,
    operation: LfsOperation,
    caller: &'a Caller,
    wire: Wire<R, W>,
}

/// An answer without data.
#[derive(Debug, Default)]
struct Answer {
    status: u16,
    arguments: Vec<String>,
    /// What stands behind the delimiter, if there is one.
    lines: Option<Vec<String>>,
}

impl Answer {
    fn done(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    fn refused(status: u16, message: impl Into<String>) -> Self {
        Self { status, arguments: Vec::new(), lines: Some(vec![message.into()]) }
    }
}

/// What a failure is to the client, if the session goes on.
impl TryFrom<LfsError> for Answer {
    type Error = LfsError;

    fn try_from(error: LfsError) -> Result<Self, LfsError> {
        let status = match error {
            LfsError::Content | LfsError::Size | LfsError::Path => 422,
            LfsError::Full | LfsError::Locks => 507,
            LfsError::Off => 403,
            LfsError::Gone => 404,
            LfsError::Protocol | LfsError::Stalled | LfsError::Late(_) | LfsError::Io(_) => {
                return Err(error);
            }
        };
        Ok(Self::refused(status, error.to_string()))
    }
}

impl<R, W> Session<'_, R, W>
where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin,
{
    async fn run(mut self) -> Result<(), LfsError> {
        for capability in ["version=1", "locking"] {
            self.wire.text(capability).await?;
        }
        self.wire.end().await?;
        while let Some(command) = self.wire.command().await? {
            let (name, rest) = command.split();
            if name == "quit" {
                self.wire.skip(&command).await?;
                return self.answer(Answer::done(200)).await;
            }
            let answered = match (name, rest) {
                ("get-object", oid) => self.get(&command, oid).await?,
                ("put-object", oid) => Some(self.put(&command, oid).await),
                ("batch", "") => Some(self.batch(&command).await),
                _ => {
                    self.wire.skip(&command).await?;
                    Some(self.simple(&command, name, rest).await)
                }
            };
            if let Some(answer) = answered {
                let answer = answer.or_else(Answer::try_from)?;
                self.answer(answer).await?;
            }
        }
        Ok(())
    }

    /// The commands that are their arguments alone.
    async fn simple(
        &mut self,
        command: &Command,
        name: &str,
        rest: &str,
    ) -> Result<Answer, LfsError> {
        match name {
            "version" => Ok(match rest {
                "1" => Answer::done(200),
                _ => Answer::refused(400, "only version 1 is spoken here"),
            }),
            "verify-object" => self.verify(command, rest).await,
            "lock" => self.lock(command).await,
            "unlock" => self.unlock(command, rest).await,
            // The second is what git-lfs says before 3.5.
            "list-lock" | "list-locks" => self.list(command).await,
            _ => Ok(Answer::refused(405, "there is no such command")),
        }
    }

    async fn batch(&mut self, command: &Command) -> Result<Answer, LfsError> {
        let lines = self.wire.lines(command, MAX_BATCH).await?;
        let Some(lines) = lines else {
            let message = format!("a batch has {MAX_BATCH} objects at most");
            return Ok(Answer::refused(413, message));
        };
        if command.argument("hash-algo").is_some_and(|algorithm| algorithm != "sha256") {
            return Ok(Answer::refused(409, "objects are named by their SHA-256"));
        }
        let wanted: Option<Vec<_>> = lines.iter().map(|line| object(line)).collect();
        let Some(wanted) = wanted else {
            return Ok(Answer::refused(400, "an object is a SHA-256 and a size"));
        };
        let upload = self.operation == LfsOperation::Upload;
        let verdicts = self.lfs.judge(wanted.clone(), upload).await?;
        if verdicts.contains(&Verdict::Full) {
            return LfsError::Full.try_into();
        }
        let line = |((oid, size), verdict): (&(Oid, u64), Verdict)| {
            let action = match (upload, verdict) {
                (true, Verdict::Missing) => "upload",
                (false, Verdict::There) => "download",
                _ => "noop",
            };
            format!("{oid} {size} {action}")
        };
        let lines = wanted.iter().zip(verdicts).map(line).collect();
        let arguments = vec!["hash-algo=sha256".to_owned()];
        Ok(Answer { status: 200, arguments, lines: Some(lines) })
    }

    /// Sends an object, or gives what to say instead.
    async fn get(
        &mut self,
        command: &Command,
        oid: &str,
    ) -> Result<Option<Result<Answer, LfsError>>, LfsError> {
        self.wire.skip(command).await?;
        let Ok(oid) = oid.parse() else { return Ok(Some(Ok(unnamed()))) };
        let Some((file, size)) = self.lfs.open(&oid).await? else {
            return Ok(Some(Ok(missing())));
        };
        self.wire.text("status 200").await?;
        self.wire.text(&format!("size={size}")).await?;
        self.wire.delimiter().await?;
        let mut file = tokio::fs::File::from_std(file);
        let mut piece = vec![0; PIECE];
        let mut left = size;
        while left > 0 {
            let read = file.read(&mut piece).await?;
            let Some(piece) = piece.get(..read).filter(|piece| !piece.is_empty()) else {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            };
            left = left.saturating_sub(read as u64);
            self.wire.data(piece).await?;
        }
        self.wire.end().await?;
        Ok(None)
    }

    async fn put(&mut self, command: &Command, oid: &str) -> Result<Answer, LfsError> {
        let refused = match (self.operation, oid.parse::<Oid>(), size(command)) {
            (LfsOperation::Download, _, _) => Err(forbidden()),
            (_, Err(_), _) | (_, _, None) => Err(unnamed()),
            (LfsOperation::Upload, Ok(oid), Some(size)) => Ok((oid, size)),
        };
        let (oid, size) = match refused {
            Ok(object) => object,
            Err(answer) => {
                self.wire.skip(command).await?;
                return Ok(answer);
            }
        };
        let mut incoming = match self.lfs.receive(&oid, size).await {
            Ok(incoming) => incoming,
            Err(error) => {
                self.wire.skip(command).await?;
                return Err(error);
            }
        };
        if !command.goes_on {
            return Ok(unnamed());
        }
        while let Some(piece) = incoming.wait(self.wire.piece()).await?? {
            if let Err(error) = incoming.write(piece).await {
                self.wire.skip(command).await?;
                return Err(error);
            }
        }
        incoming.finish().await?;
        Ok(Answer { lines: Some(Vec::new()), ..Answer::done(200) })
    }

    async fn verify(&mut self, command: &Command, rest: &str) -> Result<Answer, LfsError> {
        // The draft has the size behind the name, git-lfs among the arguments.
        let (oid, told) = rest.split_once(' ').unwrap_or((rest, ""));
        let size = size(command).or_else(|| told.parse().ok());
        let (Ok(oid), Some(size)) = (oid.parse(), size) else { return Ok(unnamed()) };
        Ok(match self.lfs.objects.size(&oid).await? {
            Some(there) if there == size => Answer::done(200),
            Some(_) => Answer::refused(409, "the object has another size"),
            None => missing(),
        })
    }

    async fn lock(&mut self, command: &Command) -> Result<Answer, LfsError> {
        let (LfsOperation::Upload, Some(caller)) = (self.operation, &self.caller.identity) else {
            return Ok(forbidden());
        };
        let path = command.argument("path").unwrap_or_default().to_owned();
        Ok(match self.lfs.locks.lock(path, caller).await? {
            Ok(made) => Answer { arguments: of_lock(&made), ..Answer::done(201) },
            Err(there) => {
                let refused = Answer::refused(409, "the file is locked already");
                Answer { arguments: of_lock(&there), ..refused }
            }
        })
    }

    async fn unlock(&mut self, command: &Command, id: &str) -> Result<Answer, LfsError> {
        let (LfsOperation::Upload, Some(caller)) = (self.operation, &self.caller.identity) else {
            return Ok(forbidden());
        };
        let force = command.argument("force") == Some("true");
        Ok(match self.lfs.locks.unlock(id.to_owned(), caller, force).await? {
            Unlocked::Done(lock) => Answer { arguments: of_lock(&lock), ..Answer::done(200) },
            Unlocked::Theirs(_) => Answer::refused(403, "the lock is somebody else's"),
            Unlocked::Missing => Answer::refused(404, "there is no such lock"),
        })
    }

    async fn list(&mut self, command: &Command) -> Result<Answer, LfsError> {
        let argument = |name| command.argument(name).map(str::to_owned);
        let filter = Filter {
            path: argument("path"),
            id: argument("id"),
            cursor: argument("cursor"),
            limit: command.argument("limit").and_then(|limit| limit.parse().ok()),
        };
        let (locks, next) = self.lfs.locks.list(filter).await?;
        let caller = self.caller.identity.as_deref();
        let lines = locks.iter().flat_map(|(id, lock)| {
            let whose = if lock.is_of(caller) { "ours" } else { "theirs" };
            [
                format!("lock {id}"),
                format!("path {id} {}", lock.path),
                format!("locked-at {id} {}", lock.locked_at),
                format!("ownername {id} {}", lock.owner),
                format!("owner {id} {whose}"),
            ]
        });
        let arguments = next.iter().map(|next| format!("next-cursor={next}")).collect();
        Ok(Answer { status: 200, arguments, lines: Some(lines.collect()) })
    }

    async fn answer(&mut self, answer: Answer) -> Result<(), LfsError> {
        self.wire.text(&format!("status {}", answer.status)).await?;
        for argument in &answer.arguments {
            self.wire.text(argument).await?;
        }
        if let Some(lines) = &answer.lines {
            self.wire.delimiter().await?;
            for line in lines {
                self.wire.text(line).await?;
            }
        }
        self.wire.end().await
    }
}

fn unnamed() -> Answer {
    Answer::refused(400, "an object is a SHA-256 and a size")
}

fn missing() -> Answer {
    Answer::refused(404, "there is no such object")
}

fn forbidden() -> Answer {
    Answer::refused(403, "you may not push here")
}

fn of_lock((id, lock): &Named) -> Vec<String> {
    vec![
        format!("id={id}"),
        format!("path={}", lock.path),
        format!("locked-at={}", lock.locked_at),
        format!("ownername={}", lock.owner),
    ]
}

/// The object of a line of a batch; what comes behind the size is of no use here.
fn object(line: &str) -> Option<(Oid, u64)> {
    let mut words = line.split(' ');
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

fn size(command: &Command) -> Option<u64> {
    command.argument("size")?.parse().ok()
}

#[cfg(test)]
mod tests;
