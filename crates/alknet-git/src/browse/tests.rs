//! Against repositories that the real git has made, and what it says of them.

mod archives;
mod changes;
mod files;
mod history;
mod hostile;
mod odd;
mod sight;

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use alknet_core::{Alpn, AuthContext, Credential, Identity, TransportKind};
use tempfile::TempDir;

use super::*;
use crate::repositories::Settings;

/// A repository that is served, and one to work in.
struct Rig {
    folder: TempDir,
    browser: Browser,
    name: RepositoryName,
    /// Where the served one is.
    served: PathBuf,
}

impl Rig {
    fn new() -> Self {
        Self::with(BrowseLimits::default())
    }

    fn with(limits: BrowseLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let repositories = Repositories::open(&folder.path().join("repos")).unwrap();
        let name: RepositoryName = "team/notes".parse().unwrap();
        let served = repositories.create(&name, &Settings::default()).unwrap().path;
        let browser = Browser::new(repositories, limits);
        let rig = Self { folder, browser, name, served };
        fs::create_dir(rig.work()).unwrap();
        rig.git(&["init", "--quiet", "--initial-branch=main"]);
        rig.git(&["remote", "add", "origin", rig.served.to_str().unwrap()]);
        rig
    }

    /// The served repository with another hash.
    fn sha256() -> Self {
        let rig = Self::new();
        for repository in [&rig.served, &rig.work()] {
            let settings = fs::read(repository.join("alknet.toml"));
            fs::remove_dir_all(repository).unwrap();
            fs::create_dir(repository).unwrap();
            let bare = if repository == &rig.served { "--bare" } else { "--quiet" };
            let init = ["init", bare, "--initial-branch=main", "--object-format=sha256", "."];
            rig.run(repository, &init, b"");
            if let Ok(settings) = settings {
                fs::write(repository.join("alknet.toml"), settings).unwrap();
            }
        }
        rig.git(&["remote", "add", "origin", rig.served.to_str().unwrap()]);
        rig
    }

    fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    /// Runs git in the working repository; gives what it prints.
    fn git(&self, arguments: &[&str]) -> String {
        String::from_utf8(self.run(&self.work(), arguments, b"").stdout).unwrap()
    }

    /// Runs git in the served repository.
    fn there(&self, arguments: &[&str]) -> String {
        String::from_utf8(self.run(&self.served, arguments, b"").stdout).unwrap()
    }

    /// Runs git in the served repository with some input.
    fn feed(&self, arguments: &[&str], input: &[u8]) -> String {
        let output = self.run(&self.served, arguments, input).stdout;
        String::from_utf8(output).unwrap().trim().to_owned()
    }

    fn run(&self, at: &Path, arguments: &[&str], input: &[u8]) -> Output {
        let mut git = Command::new("git");
        git.args(["-c", "protocol.file.allow=always", "-c", "core.quotePath=true"])
            .args(arguments)
            .current_dir(at)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.folder.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .envs([("GIT_AUTHOR_NAME", "Ada"), ("GIT_AUTHOR_EMAIL", "ada@example.org")])
            .envs([("GIT_COMMITTER_NAME", "Bob"), ("GIT_COMMITTER_EMAIL", "bob@example.org")])
            .env("GIT_AUTHOR_DATE", self.date())
            .env("GIT_COMMITTER_DATE", self.date())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = git.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?}: {complaint}");
        output
    }

    /// A minute later for each commit, so that their order is certain.
    fn date(&self) -> String {
        let at = self.folder.path().join("clock");
        let minutes = fs::read(&at).map_or(0, |text| text.len());
        format!("{} +0230", 1_700_000_000 + 60 * minutes)
    }

    /// Writes a file.
    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.work().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Commits everything, a minute after the commit before.
    fn commit(&self, message: &str) -> String {
        let mut clock = fs::OpenOptions::new();
        let clock = clock.append(true).create(true).open(self.folder.path().join("clock"));
        clock.unwrap().write_all(b".").unwrap();
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", message]);
        self.git(&["rev-parse", "HEAD"]).trim().to_owned()
    }

    /// A commit of one file.
    fn save(&self, path: &str, content: impl AsRef<[u8]>) -> String {
        self.write(path, content);
        self.commit(path)
    }

    fn push(&self) {
        self.git(&["push", "--quiet", "--force", "origin", "--all"]);
        self.git(&["push", "--quiet", "--force", "origin", "--tags"]);
    }

    async fn log(&self, query: LogQuery) -> Result<Log, BrowseError> {
        self.browser.log(&reader(), &self.name, query).await
    }

    async fn tree(&self, revision: &str, path: &str) -> Result<Tree, BrowseError> {
        let (revision, path) = (revision.parse()?, path.parse()?);
        let query = TreeQuery { revision, path, ..TreeQuery::default() };
        self.browser.tree(&reader(), &self.name, query).await
    }

    async fn blob(&self, revision: &str, path: &str) -> Result<Blob, BrowseError> {
        let (revision, path) = (revision.parse()?, path.parse()?);
        let query = BlobQuery { revision, path, ..BlobQuery::default() };
        self.browser.blob(&reader(), &self.name, query).await
    }

    async fn diff(&self, from: Option<&str>, to: &str) -> Result<Diff, BrowseError> {
        let from = from.map(str::parse).transpose()?;
        let query = DiffQuery { from, to: to.parse()?, ..DiffQuery::default() };
        self.browser.diff(&reader(), &self.name, query).await
    }

    async fn refs(&self) -> Result<Refs, BrowseError> {
        self.browser.refs(&reader(), &self.name, RefsQuery::default()).await
    }
}

/// Of a revision, with no other wishes.
fn of(revision: &str) -> LogQuery {
    LogQuery { revision: revision.parse().unwrap(), ..LogQuery::default() }
}

fn caller(scopes: &str) -> Caller {
    let credential = Credential::Token("5f2a".into());
    let identity = Identity::new("1", "somebody", scopes.parse().unwrap(), credential);
    let alpn = Alpn::service("call").unwrap();
    let anybody = AuthContext::anonymous(alpn, TransportKind::Memory, None);
    Caller::of(AuthContext { identity: Some(Arc::new(identity)), ..anybody })
}

fn reader() -> Caller {
    caller("git:read:team/notes")
}
