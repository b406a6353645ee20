//! A server, its callers, and the git that they have.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Output,
    sync::{Arc, Mutex},
    time::Duration,
};

use alknet_core::{Alpn, Audit, AuditEvent, AuditSink, AuthContext, Stream, TransportKind};
use alknet_git::{
    Caller, GitConfig, GitServer, InstalledGit, Repositories, RepositoryName, Settings, Setup,
};
use alknet_testing::identities::identity;
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpStream},
    process::Command,
    task::JoinSet,
    time::{sleep, timeout},
};

/// How long anything may take before a test fails.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// What was recorded.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<AuditEvent>>>);

impl AuditSink for Log {
    fn record(&self, event: AuditEvent) {
        self.0.lock().unwrap().push(event);
    }
}

impl Log {
    /// Waits for an entry that may come after the client has its answer.
    pub(crate) async fn wait(&self, event: &str) -> Vec<AuditEvent> {
        self.wait_for(event, 1).await
    }

    /// The same with so many entries.
    pub(crate) async fn wait_for(&self, event: &str, count: usize) -> Vec<AuditEvent> {
        let there = async {
            while self.all(event).len() < count {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LONG, there).await.unwrap();
        self.all(event)
    }

    pub(crate) fn all(&self, event: &str) -> Vec<AuditEvent> {
        self.0.lock().unwrap().iter().filter(|it| it.event == event).cloned().collect()
    }
}

pub(crate) struct Rig {
    pub(crate) server: GitServer,
    pub(crate) log: Log,
    folder: TempDir,
    ports: JoinSet<()>,
}

/// A folder in which git is used.
pub(crate) struct Work(PathBuf);

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with(|_| ())
    }

    pub(crate) fn with(change: impl FnOnce(&mut GitConfig)) -> Self {
        Self::set_up(InstalledGit::find().unwrap(), |_| (), change)
    }

    pub(crate) fn set_up(
        git: InstalledGit,
        set_up: impl FnOnce(&mut Setup),
        change: impl FnOnce(&mut GitConfig),
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let repositories = Repositories::open(&folder.path().join("repos")).unwrap();
        let mut setup = Setup::new(folder.path().join("run"), hook_program());
        set_up(&mut setup);
        let (engine, log) = (git.set_up(&setup).unwrap(), Log::default());
        let mut config = GitConfig::new(repositories, engine, Audit::new(log.clone()));
        change(&mut config);
        Self { server: GitServer::new(config), log, folder, ports: JoinSet::new() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Makes a repository; its folder.
    pub(crate) fn make(&self, name: &str, change: impl FnOnce(&mut Settings)) -> PathBuf {
        let mut settings = Settings::default();
        change(&mut settings);
        let name: RepositoryName = name.parse().unwrap();
        self.server.repositories().create(&name, &settings).unwrap().path
    }

    pub(crate) fn is_there(&self, name: &str) -> bool {
        self.server.repositories().get(&name.parse().unwrap()).unwrap().is_some()
    }

    /// Waits until a repository is gone.
    pub(crate) async fn gone(&self, name: &str) {
        let gone = async {
            while self.is_there(name) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LONG, gone).await.unwrap();
    }

    /// A port at which everybody is somebody with these scopes.
    pub(crate) async fn port(&mut self, name: &str, scopes: &[&str]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = self.server.clone();
        let caller = caller(name, scopes);
        self.ports.spawn(async move {
            let mut served = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (server, caller) = (server.clone(), caller.clone());
                served.spawn(async move {
                    let _ = server.serve(Stream::from_bistream(socket), &caller).await;
                });
            }
        });
        address
    }

    /// A new repository of a client, with a commit on `main`.
    pub(crate) async fn work(&self, name: &str) -> Work {
        let work = Work(self.path().join("work").join(name));
        fs::create_dir_all(&work.0).unwrap();
        work.git(&["init", "-q", "-b", "main"]).await;
        work.commit("first").await;
        work
    }

    /// Waits until no git works in a repository, nor is anything of a push left in it.
    pub(crate) async fn quiet(&self, repository: &Path) {
        let quiet = async {
            while !gits_in(repository).is_empty() || !left_in(repository).is_empty() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = timeout(LONG, quiet).await;
        assert!(waited.is_ok(), "{:?} {:?}", gits_in(repository), left_in(repository));
    }
}

pub(crate) fn caller(name: &str, scopes: &[&str]) -> Caller {
    let alpn = Alpn::service("git").unwrap();
    let identity = (!scopes.is_empty()).then(|| Arc::new(identity(name, scopes)));
    let auth = AuthContext::anonymous(alpn, TransportKind::Memory, None);
    Caller::of(AuthContext { identity, ..auth })
}

/// The example, which cargo builds beside the tests.
pub(crate) fn hook_program() -> PathBuf {
    let this = std::env::current_exe().unwrap();
    let program = this.ancestors().nth(2).unwrap().join("examples/git_server");
    assert!(program.exists(), "not built: cargo build -p alknet-git --examples");
    program
}

/// Waits until a file is there.
pub(crate) async fn appears(file: &Path) {
    let there = async {
        while !file.exists() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = timeout(LONG, there).await;
    assert!(waited.is_ok(), "{}", file.display());
}

/// Waits until a file is gone, or a process by its folder of proc(5).
pub(crate) async fn disappears(file: &Path) {
    let gone = async {
        while file.exists() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = timeout(LONG, gone).await;
    assert!(waited.is_ok(), "{}", file.display());
}

/// Makes a program of the shell.
pub(crate) fn script(path: &Path, text: &str, mode: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// What cannot be compressed.
pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    });
    noise.take(bytes).collect()
}

/// The processes of git that work in a folder.
pub(crate) fn gits_in(folder: &Path) -> Vec<i32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    ids.filter(|id| {
        let process = Path::new("/proc").join(id.to_string());
        let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
        name.trim() == "git" && fs::read_link(process.join("cwd")).is_ok_and(|it| it == folder)
    })
    .collect()
}

/// What a push that was cut off may leave in a repository.
fn left_in(repository: &Path) -> Vec<String> {
    let objects = fs::read_dir(repository.join("objects")).into_iter().flatten().flatten();
    let names = objects.map(|it| it.file_name().into_string().unwrap());
    names.filter(|name| name.contains("incoming")).collect()
}

impl Work {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) async fn commit(&self, text: &str) -> String {
        fs::write(self.0.join("file"), text).unwrap();
        self.git(&["add", "."]).await;
        self.git(&["commit", "-q", "-m", text]).await;
        self.git(&["rev-parse", "HEAD"]).await
    }

    /// Runs git; what it says.
    pub(crate) async fn git(&self, args: &[&str]) -> String {
        let output = self.run(args).await;
        let (said, complaint) = texts(&output);
        assert!(output.status.success(), "git {args:?}: {complaint}");
        said
    }

    /// Runs a git that has to fail; what it complains of.
    pub(crate) async fn fails(&self, args: &[&str]) -> String {
        let output = self.run(args).await;
        let (said, complaint) = texts(&output);
        assert!(!output.status.success(), "git {args:?}: {said}{complaint}");
        complaint
    }

    pub(crate) async fn run(&self, args: &[&str]) -> Output {
        let done = git(&self.0).args(args).kill_on_drop(true).output();
        timeout(LONG, done).await.unwrap().unwrap()
    }
}

/// What git says and what it complains of.
pub(crate) fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// The git of a client.
pub(crate) fn git(folder: &Path) -> Command {
    let mut git = Command::new("git");
    git.current_dir(folder).env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    for (name, value) in [
        ("HOME", "/nonexistent"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_AUTHOR_NAME", "Anna"),
        ("GIT_AUTHOR_EMAIL", "anna@example.org"),
        ("GIT_COMMITTER_NAME", "Anna"),
        ("GIT_COMMITTER_EMAIL", "anna@example.org"),
        ("LC_ALL", "C"),
    ] {
        git.env(name, value);
    }
    git.stdin(std::process::Stdio::null());
    git
}

/// Looks at a bare repository with git itself.
pub(crate) async fn look(repository: &Path, args: &[&str]) -> String {
    let output = git(repository).args(args).output().await.unwrap();
    let (said, complaint) = texts(&output);
    assert!(output.status.success(), "git {args:?}: {complaint}");
    said
}

/// The refs of a repository, as git shows them, after it has found nothing wrong with it.
pub(crate) async fn refs(repository: &Path) -> String {
    let checked = look(repository, &["fsck", "--full", "--strict", "--no-dangling"]).await;
    assert_eq!(checked.replace("notice: HEAD points to an unborn branch (main)", "").trim(), "");
    look(repository, &["for-each-ref", "--format=%(objectname) %(refname)"]).await
}

/// How many packs a repository has.
pub(crate) fn packs(repository: &Path) -> usize {
    let files = fs::read_dir(repository.join("objects/pack")).into_iter().flatten().flatten();
    files.filter(|it| it.path().extension().is_some_and(|it| it == "pack")).count()
}

pub(crate) fn url(address: SocketAddr, name: &str) -> String {
    format!("git://{address}/{name}")
}

/// A raw connection.
pub(crate) async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}
