//! `git/repos`, `git/log` and their kin: repositories are looked into.

use std::{str::FromStr, sync::Arc};

use alknet_call::{CallError, Context, ErrorCode, InvalidOperation, Items, Operation};
use alknet_core::{AuditEvent, Refusals};
use alknet_git::{
    Caller, RepositoryName,
    browse::{
        Archive, ArchiveQuery, Blob, BlobQuery, BrowseError, BrowseLimits, Browser, Diff,
        DiffQuery, FileKind, Format, List, ListQuery, Log, LogQuery, Prefix, Refs, RefsQuery,
        Revision, Tree, TreePath, TreeQuery,
    },
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::super::{Made, Parts, on, on_items};

/// There is no such repository that the caller may know of.
pub(super) const NO_SUCH_REPOSITORY: &str = "NO_SUCH_REPOSITORY";
/// There is no such commit that a ref leads to.
const NO_SUCH_REVISION: &str = "NO_SUCH_REVISION";
/// The revision has no such file or folder.
const NO_SUCH_PATH: &str = "NO_SUCH_PATH";
/// It is a folder or a submodule.
const NOT_A_FILE: &str = "NOT_A_FILE";
/// It is a file or a submodule.
const NOT_A_FOLDER: &str = "NOT_A_FOLDER";
/// There is more than what is shown.
const TOO_LARGE: &str = "TOO_LARGE";
/// What was pushed, or the disk, is broken.
const DAMAGED: &str = "DAMAGED";

/// What looks into the repositories for callers.
#[derive(Debug)]
pub(super) struct Looking {
    browser: Browser,
    refusals: Refusals,
}

impl Looking {
    pub(super) fn new(parts: &Parts) -> Self {
        let repositories = parts.git.repositories().clone();
        let browser = Browser::new(repositories, BrowseLimits::default());
        Self { browser, refusals: Refusals::new(parts.dispatcher.audit().clone()) }
    }

    /// What a look has come to. Who may not know of a repository is in the audit log.
    pub(super) fn outcome<T>(
        &self,
        context: &Context,
        repository: &RepositoryName,
        looked: Result<T, BrowseError>,
    ) -> Result<T, CallError> {
        if let Err(BrowseError::NoRepository(_)) = &looked {
            let about = AuditEvent::about(AuditEvent::REFUSED, context.auth());
            let about = AuditEvent {
                identity: context.auth().identity.as_ref().map(|identity| identity.id.clone()),
                repository: Some(repository.to_string()),
                service: Some("browse"),
                ..about
            };
            self.refusals.record(about.because("no such repository, or not granted"));
        }
        looked.map_err(refused)
    }

    /// Whether the caller may look into a repository.
    pub(super) async fn check(
        &self,
        context: &Context,
        repository: &RepositoryName,
    ) -> Result<(), CallError> {
        let looked = self.browser.check(&caller(context), repository).await;
        self.outcome(context, repository, looked)
    }
}

/// The operations that look into repositories.
pub(super) fn operations(looking: &Arc<Looking>) -> Made {
    Ok(vec![
        Operation::query("git/repos", on(looking, repos))?.describe(
            "The repositories that the caller may read, in order of their names, and what \
                 they may do with each; a thousand at most.",
        ),
        looks(Operation::query("git/refs", on(looking, refs)))?
            .describe("The branches and tags of a repository."),
        finds(Operation::query("git/log", on(looking, log)))?.describe(
            "The history of a revision, the latest commit first; of a file or a folder, the \
             commits that have changed it.",
        ),
        finds(Operation::query("git/tree", on(looking, tree)))?
            .error(NO_SUCH_PATH, "The revision has no such folder.")
            .error(NOT_A_FOLDER, "It is a file or a submodule.")
            .describe("What is in a folder of a revision."),
        finds(Operation::query("git/blob", on(looking, blob)))?
            .error(NO_SUCH_PATH, "The revision has no such file.")
            .error(NOT_A_FILE, "It is a folder or a submodule.")
            .describe("The content of a file of a revision, or a range of it."),
        finds(Operation::query("git/diff", on(looking, diff)))?.describe(
            "What a commit has changed, or what has changed from one commit to another: files \
             and lines, as git diff prints them.",
        ),
        finds(Operation::subscription("git/archive", on_items(looking, archive)))?
            .error(NO_SUCH_PATH, "The revision has no such folder.")
            .error(NOT_A_FOLDER, "It is a file or a submodule.")
            .describe(
                "The files of a revision as a tar or zip archive, without those that its \
                 .gitattributes exclude (export-ignore). It is whole once the subscription has \
                 completed.",
            ),
    ])
}

/// One that looks into a repository.
fn looks(operation: Result<Operation, InvalidOperation>) -> Result<Operation, InvalidOperation> {
    Ok(operation?
        .error(NO_SUCH_REPOSITORY, "There is no such repository, or the caller may not know of it.")
        .error(TOO_LARGE, "There is more than what is shown.")
        .error(DAMAGED, "Something in the repository is missing or broken."))
}

/// One that looks for a revision in it.
fn finds(operation: Result<Operation, InvalidOperation>) -> Result<Operation, InvalidOperation> {
    let missing = "No branch or tag leads to such a commit.";
    Ok(looks(operation)?.error(NO_SUCH_REVISION, missing))
}

fn caller(context: &Context) -> Caller {
    Caller::of(context.auth().clone())
}

/// Text of a caller as what it stands for.
pub(super) fn parsed<T>(text: &str) -> Result<T, CallError>
where
    T: FromStr<Err: std::error::Error>,
{
    text.parse().map_err(|error: T::Err| CallError::invalid_input(error.to_string()))
}

fn revision(text: Option<&String>) -> Result<Revision, CallError> {
    text.map_or_else(|| Ok(Revision::head()), |text| parsed(text))
}

/// What the disk has against it is for the node's log alone.
fn refused(error: BrowseError) -> CallError {
    let message = error.to_string();
    let declared = |code| CallError::declared(code, message.clone());
    match error {
        BrowseError::NoRepository(_) => declared(NO_SUCH_REPOSITORY),
        BrowseError::NoRevision(_) => declared(NO_SUCH_REVISION),
        BrowseError::NoPath(_) => declared(NO_SUCH_PATH),
        BrowseError::NotAFile(_) => declared(NOT_A_FILE),
        BrowseError::NotAFolder(_) => declared(NOT_A_FOLDER),
        BrowseError::TooLarge { size, limit } => {
            declared(TOO_LARGE).with_details(json!({ "size": size, "limit": limit }))
        }
        BrowseError::InvalidRevision(_)
        | BrowseError::InvalidPath(_)
        | BrowseError::Ambiguous(_) => CallError::invalid_input(message),
        BrowseError::Late => CallError::new(ErrorCode::Timeout, message),
        BrowseError::Busy | BrowseError::Interrupted => CallError::unavailable(message),
        error if error.is_size() => declared(TOO_LARGE),
        error if error.is_damage() => {
            tracing::warn!(error = &error as &dyn std::error::Error, "a repository is damaged");
            declared(DAMAGED)
        }
        error => CallError::internal(error),
    }
}

/// Which repositories.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WhichRepos {
    /// What their names begin with.
    #[serde(default)]
    prefix: String,
    /// Only those behind this name: of an answer that is truncated, the last.
    #[serde(default)]
    after: String,
}

async fn repos(
    looking: Arc<Looking>,
    context: Context,
    which: WhichRepos,
) -> Result<List, CallError> {
    let mut query = ListQuery::default();
    (query.prefix, query.after) = (which.prefix, which.after);
    looking.browser.list(&caller(&context), query).await.map_err(refused)
}

/// Which branches and tags.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WhichRefs {
    /// The name of the repository.
    repository: String,
    /// What their names begin with, without refs/heads/ and refs/tags/.
    #[serde(default)]
    prefix: String,
    /// How many to pass over: branches first, then tags.
    #[serde(default)]
    skip: usize,
    /// How many at most; 1000 if it is not said.
    #[schemars(range(max = 10_000))]
    limit: Option<usize>,
}

async fn refs(
    looking: Arc<Looking>,
    context: Context,
    which: WhichRefs,
) -> Result<Refs, CallError> {
    let name = parsed(&which.repository)?;
    let mut query = RefsQuery::default();
    (query.prefix, query.skip, query.limit) = (which.prefix, which.skip, which.limit);
    let looked = looking.browser.refs(&caller(&context), &name, query).await;
    looking.outcome(&context, &name, looked)
}

/// Which history.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WhichLog {
    /// The name of the repository.
    repository: String,
    /// Where it ends: HEAD, a branch, a tag, or the id of a commit, and steps back such as ~3.
    rev: Option<String>,
    /// Only commits that have changed this file or folder.
    #[serde(default)]
    path: String,
    /// How many commits to pass over.
    #[serde(default)]
    #[schemars(range(max = 100_000))]
    skip: usize,
    /// How many at most; 50 if it is not said.
    #[schemars(range(max = 1000))]
    limit: Option<usize>,
}

async fn log(looking: Arc<Looking>, context: Context, which: WhichLog) -> Result<Log, CallError> {
    let name = parsed(&which.repository)?;
    let mut query = LogQuery::default();
    (query.revision, query.path) = (revision(which.rev.as_ref())?, parsed(&which.path)?);
    (query.skip, query.limit) = (which.skip, which.limit);
    let looked = looking.browser.log(&caller(&context), &name, query).await;
    looking.outcome(&context, &name, looked)
}

/// Which folder.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WhichTree {
    /// The name of the repository.
    repository: String,
    /// The revision: HEAD, a branch, a tag, or the id of a commit, and steps back such as ~3.
    rev: Option<String>,
    /// Where the folder is; empty for the root.
    #[serde(default)]
    path: String,
    /// How many entries to pass over.
    #[serde(default)]
    skip: usize,
    /// How many at most; 1000 if it is not said.
    #[schemars(range(max = 10_000))]
    limit: Option<usize>,
}

async fn tree(
    looking: Arc<Looking>,
    context: Context,
    which: WhichTree,
) -> Result<Tree, CallError> {
    let name = parsed(&which.repository)?;
    let mut query = TreeQuery::default();
    (query.revision, query.path) = (revision(which.rev.as_ref())?, parsed(&which.path)?);
    (query.skip, query.limit) = (which.skip, which.limit);
    let looked = looking.browser.tree(&caller(&context), &name, query).await;
    looking.outcome(&context, &name, looked)
}

/// Which file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WhichBlob {
    /// The name of the repository.
    repository: String,
    /// The revision: HEAD, a branch, a tag, or the id of a commit, and steps back such as ~3.
    rev: Option<String>,
    /// Where the file is.
    path: String,
    /// Where the range begins, in bytes.
    #[serde(default)]
    offset: u64,
    /// How long it is at most, in bytes; 1 MiB if it is not said.
    #[schemars(range(max = 2_097_152))]
    limit: Option<usize>,
}

/// The content of a file, or a range of it.
#[derive(Debug, Serialize, JsonSchema)]
struct Content {
    /// The id of the commit.
    rev: String,
    /// The id of the content.
    id: String,
    /// What kind of file it is.
    kind: FileKind,
    /// How large the whole is, in bytes.
    size: u64,
    /// Whether it is no text: there is a NUL in its first 8000 bytes.
    binary: bool,
    /// Where the range begins, in bytes.
    offset: u64,
    /// How long it is, in bytes. The next one begins at offset + length.
    length: usize,
    /// The range, if it is text. It ends between two characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// The range in base64, if it is no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    /// Whether there is more behind it.
    truncated: bool,
}

impl From<Blob> for Content {
    fn from(blob: Blob) -> Self {
        let text = blob.text().map(str::to_owned);
        Self {
            base64: text.is_none().then(|| STANDARD.encode(&blob.content)),
            text,
            length: blob.content.len(),
            rev: blob.rev,
            id: blob.id,
            kind: blob.kind,
            size: blob.size,
            binary: blob.binary,
            offset: blob.offset,
            truncated: blob.truncated,
        }
    }
}

async fn blob(
    looking: Arc<Looking>,
    context: Context,
    which: WhichBlob,
) -> Result<Content, CallError> {
    let name = parsed(&which.repository)?;
    let mut query = BlobQuery::default();
    (query.revision, query.path) = (revision(which.rev.as_ref())?, parsed(&which.path)?);
    (query.offset, query.limit) = (which.offset, which.limit);
    let looked = looking.browser.blob(&caller(&context), &name, query).await;
    Ok(looking.outcome(&context, &name, looked)?.into())
}

/// Which changes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WhichDiff {
    /// The name of the repository.
    repository: String,
    /// What is compared with; the first parent if it is not said, or nothing where there is
    /// none.
    from: Option<String>,
    /// What has changed: HEAD, a branch, a tag, or the id of a commit, and steps back such as
    /// ~3.
    to: String,
    /// Only in this file or folder.
    #[serde(default)]
    path: String,
    /// How many lines around a change are shown; 3 if it is not said.
    #[schemars(range(max = 100))]
    context: Option<u32>,
}

async fn diff(
    looking: Arc<Looking>,
    context: Context,
    which: WhichDiff,
) -> Result<Diff, CallError> {
    let name = parsed(&which.repository)?;
    let mut query = DiffQuery::default();
    query.from = which.from.as_deref().map(parsed).transpose()?;
    (query.to, query.path) = (parsed(&which.to)?, parsed::<TreePath>(&which.path)?);
    query.context = which.context;
    let looked = looking.browser.diff(&caller(&context), &name, query).await;
    looking.outcome(&context, &name, looked)
}

/// Which archive.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WhichArchive {
    /// The name of the repository.
    repository: String,
    /// The revision: HEAD, a branch, a tag, or the id of a commit, and steps back such as ~3.
    rev: Option<String>,
    /// Only what is in this folder, as if it were the root.
    #[serde(default)]
    path: String,
    /// The folder that everything is in once it is unpacked, such as notes-1.0/.
    #[serde(default)]
    prefix: String,
    /// How it is packed.
    format: Format,
}

/// A piece of an archive.
#[derive(Debug, Serialize, JsonSchema)]
struct Piece {
    /// What the file may be called. In the first piece alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Its bytes, in base64: 64 KiB at most.
    base64: String,
}

async fn archive(
    looking: Arc<Looking>,
    context: Context,
    which: WhichArchive,
    items: Items<Piece>,
) -> Result<(), CallError> {
    let name = parsed(&which.repository)?;
    let mut query = ArchiveQuery::new(revision(which.rev.as_ref())?, which.format);
    (query.path, query.prefix) = (parsed(&which.path)?, parsed::<Prefix>(&which.prefix)?);
    let made = looking.browser.archive(&caller(&context), &name, query).await;
    let mut archive = looking.outcome(&context, &name, made)?;
    let mut sent = 0;
    let outcome = send(&mut archive, &items, &mut sent).await;
    let fetched = AuditEvent {
        repository: Some(name.to_string()),
        service: Some("archive"),
        bytes_read: Some(sent),
        ..AuditEvent::about("git-archive", context.auth())
    };
    context.registry().audit().record(match &outcome {
        Ok(()) => fetched,
        Err(error) => fetched.because(error),
    });
    outcome
}

async fn send(
    archive: &mut Archive,
    items: &Items<Piece>,
    sent: &mut u64,
) -> Result<(), CallError> {
    let mut name = Some(archive.name().to_owned());
    while let Some(chunk) = archive.next().await.map_err(refused)? {
        *sent += chunk.len() as u64;
        items.send(Piece { name: name.take(), base64: STANDARD.encode(&chunk) }).await?;
    }
    Ok(())
}
