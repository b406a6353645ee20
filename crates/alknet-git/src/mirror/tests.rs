use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, Ipv6Addr, TcpListener},
    path::PathBuf,
    process::{Child, Command as StdCommand, Stdio},
};

use alknet_core::Audit;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::{
    engine::InstalledGit,
    events::{EventKind, Events},
    name::RepositoryName,
    repositories::{
        Allowance, Keeper, KeeperConfig, KeeperError, Repositories, Repository, RepositoryError,
        RunError, Settings,
    },
};

#[test]
fn an_address_says_where_and_nothing_else() {
    for good in [
        "https://example.org/team/notes.git",
        "http://192.0.2.7:8080/a",
        "git://[2001:db8::7]/a",
        "ssh://git@example.org:2222/~a/b.git",
        "https://example.org/a%2Bb",
        "alknet://example.org/team/notes",
        "alknet://[2001:db8::7]:4433/notes",
        "alknet://lab/notes",
    ] {
        let url: MirrorUrl = good.parse().unwrap_or_else(|error| panic!("{good}: {error}"));
        let again: MirrorUrl = url.to_string().parse().unwrap();
        assert_eq!(again, url, "{good}");
    }
    for bad in [
        "",
        "/srv/git/a",
        "../a",
        "file:///srv/git/a",
        "file://host/a",
        "C:/a",
        "host:a",
        "git@example.org:a",
        "ext::sh -c id",
        "ext://sh",
        "fd::7",
        "ftp://example.org/a",
        "alknet+x://h/a",
        "alknet::lab/a",
        "alknet:///a",
        "alknet://lab",
        "alknet://me@lab/a",
        "alknet://lab/Notes",
        "alknet://lab/../a",
        "alknet://lab/a%2fb.lock",
        "alknet://-x/a",
        "-uroot",
        "--upload-pack=id",
        "ssh://-oProxyCommand=id/a",
        "ssh://-l@example.org/a",
        "ssh://example.org/-a",
        "https://example.org",
        "https://example.org/",
        "https:///a",
        "https://user@example.org/a",
        "https://user:secret@example.org/a",
        "ssh://git:secret@example.org/a",
        "https://example.org/a?token=secret",
        "https://example.org/a#x",
        "https://example.org/../a",
        "https://example.org/%2e%2e/a",
        "https://exa mple.org/a",
        "https://example.org/a b",
        "https://example.org/a\nb",
        "https://example.org/$(id)",
        "https://example.org/a;id",
        "https://example.org\\@other.org/a",
        "https://example.org%2fx/a",
        "https://ex%61mple.org/a",
        "https://.example.org/a",
        "https://example.org./a",
        "https://[::1/a",
        "https://host::1/a",
        "https://example.org:99999/a",
        "https://user@host@example.org/a",
    ] {
        assert!(bad.parse::<MirrorUrl>().is_err(), "{bad:?}: {:?}", bad.parse::<MirrorUrl>());
    }
    assert!(format!("https://example.org/{}", "a".repeat(1100)).parse::<MirrorUrl>().is_err());
}

proptest! {
    /// Whatever it is written as, it is read the same way again, and holds nothing that a
    /// shell, a program or a terminal would take for something else.
    #[test]
    fn an_address_is_plain(text in "(https|http|git|ssh|alknet|file|ext)://[ -~]{0,30}") {
        if let Ok(url) = text.parse::<MirrorUrl>() {
            let written = url.to_string();
            prop_assert_eq!(&written.parse::<MirrorUrl>().unwrap(), &url);
            prop_assert!(!written.contains([' ', '\'', '"', '$', '`', ';', '&', '|', '<', '>', '\\']));
            prop_assert!(!url.host.starts_with('-') && !url.path.starts_with('-'));
        }
    }
}

#[test]
fn a_file_of_credentials_is_a_plain_path() {
    assert!("/etc/alknet/mirror.credentials".parse::<CredentialsFile>().is_ok());
    for bad in ["", "relative", "/a b", "/a'b", "/$(id)", "/a\nb", "-x", "/a;id"] {
        assert!(bad.parse::<CredentialsFile>().is_err(), "{bad:?}");
    }
}

#[test]
fn nothing_private_is_fetched_from_unless_it_is_named() {
    let policy = MirrorPolicy::default();
    let addresses: [IpAddr; 11] = [
        Ipv4Addr::LOCALHOST.into(),
        Ipv6Addr::LOCALHOST.into(),
        "0.0.0.0".parse().unwrap(),
        "10.1.2.3".parse().unwrap(),
        "192.168.1.1".parse().unwrap(),
        "169.254.169.254".parse().unwrap(),
        "100.64.0.1".parse().unwrap(),
        "fe80::1".parse().unwrap(),
        "fd00::1".parse().unwrap(),
        "::ffff:127.0.0.1".parse().unwrap(),
        "64:ff9b::a00:1".parse().unwrap(),
    ];
    for address in addresses {
        assert!(!policy.allows(address), "{address}");
    }
    assert!(policy.allows("93.184.216.34".parse().unwrap()));
    let networks = vec!["10.0.0.0/8".parse().unwrap()];
    let wider = MirrorPolicy { networks, ..MirrorPolicy::default() };
    assert!(wider.allows("10.1.2.3".parse().unwrap()));
    assert!(wider.allows("::ffff:10.1.2.3".parse().unwrap()));
    assert!(!wider.allows("192.168.1.1".parse().unwrap()));
}

#[test]
fn failures_are_waited_for_longer_and_longer() {
    let every = Duration::from_secs(60 * 60);
    let (mut status, mut last) = (MirrorStatus::default(), 0);
    for failures in 1..=20 {
        status = status.after(Some("no".into()), every);
        assert_eq!(status.failures, failures);
        let wait = status.next - status.last_attempt.unwrap();
        assert!(wait >= last * 8 / 10 && wait <= 66 * 60, "{failures}: {wait}");
        last = wait;
    }
    assert!(last >= 54 * 60);
    let good = status.after(None, every);
    assert_eq!((good.failures, &good.last_error), (0, &None));
    assert_eq!(good.last_success, good.last_attempt);
    assert!(
        MirrorStatus::default().after(Some("x".repeat(5000)), every).last_error.unwrap().len()
            == 1000
    );
}

/// A `git daemon`, ended with the value.
struct Daemon {
    child: Child,
    port: u16,
}

impl Daemon {
    fn start(base: &Path) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        // Not by `git daemon`, whose child would outlive it.
        let program = Path::new(&git(base, &["--exec-path"])).join("git-daemon");
        let mut command = StdCommand::new(program);
        command.args(["--export-all", "--listen=127.0.0.1", "--verbose", "--reuseaddr"]);
        command.arg(format!("--port={port}")).arg(format!("--base-path={}", base.display()));
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert!(line.contains("Ready"), "{line}");
        // It ends if nobody reads what it says.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        Self { child, port }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) struct Fixture {
    pub(super) folder: TempDir,
    pub(super) all: Repositories,
    pub(super) keeper: Keeper,
    events: Events,
}

pub(super) fn loopback() -> Vec<IpNet> {
    vec!["127.0.0.0/8".parse().unwrap()]
}

impl Fixture {
    fn new(networks: Vec<IpNet>) -> Self {
        Self::with(networks, |_| ())
    }

    pub(super) fn with(networks: Vec<IpNet>, change: impl FnOnce(&mut KeeperConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let all = Repositories::open(&folder.path().join("repos")).unwrap();
        let (events, git) = (Events::default(), InstalledGit::find().unwrap());
        let mut config = KeeperConfig::new(all.clone(), git, events.clone(), Audit::to_log());
        config.mirrors.networks = networks;
        change(&mut config);
        Self { folder, all, keeper: Keeper::new(config), events }
    }

    pub(super) fn mirror(&self, text: &str, url: &str) -> RepositoryName {
        let name: RepositoryName = text.parse().unwrap();
        self.all.create(&name, &Settings::default()).unwrap();
        let mirror = Mirror::new(url.parse().unwrap());
        self.all.set_mirror(&name, Some(mirror)).unwrap();
        name
    }

    /// A repository elsewhere with a branch and a tag.
    pub(super) fn source(&self) -> PathBuf {
        let path = self.folder.path().join("source");
        git(self.folder.path(), &["init", "-q", "-b", "trunk", "source"]);
        git(&path, &["commit", "-q", "--allow-empty", "-m", "one"]);
        git(&path, &["tag", "v1"]);
        path
    }
}

pub(super) fn git(folder: &Path, arguments: &[&str]) -> String {
    let mut command = StdCommand::new("git");
    command.current_dir(folder).args(arguments).env("GIT_CONFIG_GLOBAL", "/dev/null");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "A").env(format!("GIT_{who}_EMAIL"), "a@b.c");
    }
    let done = command.output().unwrap();
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn a_mirror_has_what_the_other_side_has() {
    let here = Fixture::new(loopback());
    let source = here.source();
    let daemon = Daemon::start(here.folder.path());
    let name = here.mirror("copy", &format!("git://127.0.0.1:{}/source", daemon.port));
    let mut events = here.events.subscribe();
    let changes = here.keeper.update(&name).await.unwrap();
    assert_eq!(changes.len(), 2);
    let event = events.next().await.unwrap().unwrap();
    assert_eq!((event.event, event.changes.len()), (EventKind::Push, 2));
    let copy = here.all.find(&name).unwrap();
    let refs = ["for-each-ref", "--format=%(objectname) %(refname)"];
    assert_eq!(git(&copy.path, &refs), git(&source, &refs));
    assert_eq!(git(&copy.path, &["symbolic-ref", "HEAD"]), "refs/heads/trunk");
    git(&copy.path, &["fsck", "--strict"]);
    let status = here.all.mirror_status(&copy).unwrap();
    assert!(status.last_success.is_some() && status.next > now());
    // A branch that goes there goes here, and one that is moved is moved.
    git(&source, &["checkout", "-q", "-b", "other"]);
    git(&source, &["commit", "-q", "--amend", "--allow-empty", "-m", "two"]);
    git(&source, &["branch", "-D", "trunk"]);
    assert_eq!(here.keeper.update(&name).await.unwrap().len(), 2);
    assert_eq!(git(&copy.path, &refs), git(&source, &refs));
    assert_eq!(here.keeper.update(&name).await.unwrap(), []);
}

/// A source that was made anew, or lost its disk, is no news.
#[tokio::test]
async fn a_source_without_anything_takes_nothing_away() {
    let here = Fixture::new(loopback());
    let source = here.source();
    let daemon = Daemon::start(here.folder.path());
    let name = here.mirror("copy", &format!("git://127.0.0.1:{}/source", daemon.port));
    here.keeper.update(&name).await.unwrap();
    let copy = here.all.find(&name).unwrap();
    let refs = ["for-each-ref", "--format=%(objectname) %(refname)"];
    let before = git(&copy.path, &refs);
    git(&source, &["checkout", "-q", "--detach"]);
    for gone in [&["branch", "-q", "-D", "trunk"][..], &["tag", "-d", "v1"]] {
        git(&source, gone);
    }
    // It is no branch and no tag.
    git(&source, &["update-ref", "refs/notes/commits", "HEAD"]);
    let empty = here.keeper.update(&name).await;
    let is_empty = matches!(empty, Err(KeeperError::Mirror(MirrorError::Empty)));
    assert!(is_empty, "{empty:?}");
    assert_eq!(git(&copy.path, &refs), before);
    let status = here.all.mirror_status(&copy).unwrap();
    assert!(status.last_error.unwrap().contains("no branch and no tag"));
    // Any is enough to follow it again.
    git(&source, &["tag", "v2"]);
    assert_eq!(here.keeper.update(&name).await.unwrap().len(), 3);
    assert_eq!(git(&copy.path, &["tag"]), "v2");
}

#[tokio::test]
async fn no_more_comes_at_once_than_may() {
    let here = Fixture::new(loopback());
    let source = here.source();
    let noise: Vec<u8> = (0_u32..50_000).flat_map(|n| n.wrapping_pow(7).to_le_bytes()).collect();
    std::fs::write(source.join("noise"), &noise).unwrap();
    git(&source, &["add", "."]);
    git(&source, &["commit", "-q", "-m", "noise"]);
    let daemon = Daemon::start(here.folder.path());
    let name = here.mirror("copy", &format!("git://127.0.0.1:{}/source", daemon.port));
    let repository = here.all.find(&name).unwrap();
    let mirror = repository.settings.mirror.clone().unwrap();
    let (git, pinned) = (InstalledGit::find().unwrap(), [IpAddr::from(Ipv4Addr::LOCALHOST)]);
    let fetch = async |file| {
        let allowance = Allowance { time: Duration::from_secs(60), file, idle: None };
        fetch::update(&git, &repository, &mirror, &pinned, allowance, None).await
    };
    let failed = fetch(10_000).await;
    assert!(matches!(failed, Err(MirrorError::Git(_))), "{failed:?}");
    fetch(1 << 20).await.unwrap();

    // Where it has a quota, that bounds it too.
    let policy = MirrorPolicy { pack: 1000, ..MirrorPolicy::default() };
    let most = |quota| {
        let settings = Settings { quota, ..Settings::default() };
        let repository = Repository { settings, ..repository.clone() };
        fetch::allowance(&repository, &policy).file
    };
    assert!(most(None) == most(Some(5000)) && most(Some(400)) + 600 == most(None));
}

#[tokio::test]
async fn a_mirror_of_a_private_network_is_refused_and_says_so() {
    let here = Fixture::new(Vec::new());
    here.source();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    for (number, host) in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"].iter().enumerate() {
        for scheme in ["git", "http", "https", "ssh"] {
            let name =
                here.mirror(&format!("{scheme}{number}"), &format!("{scheme}://{host}:{port}/a"));
            let refused = here.keeper.update(&name).await;
            let forbidden = matches!(refused, Err(KeeperError::Mirror(MirrorError::Forbidden(_))));
            assert!(forbidden, "{scheme}://{host}: {refused:?}");
            let repository = here.all.find(&name).unwrap();
            let status = here.all.mirror_status(&repository).unwrap();
            assert!(status.last_error.unwrap().contains("fetches nothing"));
        }
    }
    assert!(listener.accept().is_err(), "nobody has connected");
}

/// Answers one request after the other as told; gives what was asked.
fn answer(listener: TcpListener, answers: Vec<String>) -> std::thread::JoinHandle<Vec<String>> {
    let answer = move |answer: String| {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = String::new();
        let mut lines = BufReader::new(stream.try_clone().unwrap());
        while lines.read_line(&mut asked).unwrap() > 2 {}
        stream.write_all(answer.as_bytes()).unwrap();
        asked
    };
    std::thread::spawn(move || answers.into_iter().map(answer).collect())
}

fn response(head: &str) -> String {
    format!("HTTP/1.1 {head}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

#[tokio::test]
async fn http_goes_where_it_was_checked_and_follows_nobody() {
    let here = Fixture::new(loopback());
    let (first, second) =
        (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    second.set_nonblocking(true).unwrap();
    let port = first.local_addr().unwrap().port();
    let elsewhere = second.local_addr().unwrap().port();
    let moved = format!("302 Found\r\nLocation: http://127.0.0.1:{elsewhere}/a/info/refs");
    let asked = answer(first, vec![response(&moved)]);
    let name = here.mirror("a", &format!("http://mirror.test.invalid:{port}/a"));
    let repository = here.all.find(&name).unwrap();
    let mirror = repository.settings.mirror.clone().unwrap();
    let git = InstalledGit::find().unwrap();
    // The name has no address: only what was found out before leads anywhere.
    let pinned = [IpAddr::from(Ipv4Addr::LOCALHOST)];
    let allowance = Allowance { time: Duration::from_secs(60), file: 1 << 20, idle: None };
    let failed = fetch::update(&git, &repository, &mirror, &pinned, allowance, None).await;
    assert!(matches!(failed, Err(MirrorError::Git(_))), "{failed:?}");
    let asked = asked.join().unwrap().remove(0);
    assert!(asked.contains(&format!("Host: mirror.test.invalid:{port}")), "{asked}");
    assert!(second.accept().is_err(), "nobody has followed");
}

#[tokio::test]
async fn who_says_nothing_is_not_waited_for() {
    let idle = Duration::from_millis(500);
    let here = Fixture::with(loopback(), |config| config.mirrors.idle = idle);
    // It takes what is said, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = here.mirror("copy", &format!("git://{}/a", silent.local_addr().unwrap()));
    let waited = here.keeper.update(&name).await;
    let Err(KeeperError::Mirror(MirrorError::Git(error))) = waited else { panic!("{waited:?}") };
    assert!(matches!(error, RunError::Idle(limit) if limit == idle), "{error:?}");
}

/// Whoever asks for news waits for a place like the node itself.
#[tokio::test]
async fn no_more_look_at_a_time_than_may() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("git://{}/a", listener.local_addr().unwrap());
    let here = Fixture::with(loopback(), |config| {
        config.mirrors.at_once = 1;
        config.mirrors.idle = Duration::from_secs(1);
    });
    let [first, second] = ["a", "b"].map(|name| here.mirror(name, &url));
    let accepted = |listener: &TcpListener| {
        let listener = listener.try_clone().unwrap();
        tokio::task::spawn_blocking(move || listener.accept().unwrap().0)
    };
    let mut looks = Box::pin(here.keeper.update(&first));
    let asked = tokio::select! {
        asked = accepted(&listener) => asked.unwrap(),
        done = &mut looks => panic!("{done:?}"),
    };
    // The first waits in vain for an answer, and the second for the first.
    let mut waits = Box::pin(here.keeper.update(&second));
    let mut next = accepted(&listener);
    tokio::select! {
        biased;
        _ = &mut next => panic!("two look at once"),
        done = &mut waits => panic!("{done:?}"),
        done = &mut looks => assert!(done.is_err(), "{done:?}"),
    }
    drop(asked);
    tokio::select! {
        asked = &mut next => drop(asked),
        done = &mut waits => panic!("{done:?}"),
    }
    assert!(waits.await.is_err());
}

#[tokio::test]
async fn all_addresses_of_a_host_have_one_deadline() {
    let here = Fixture::new(loopback());
    let first = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = first.local_addr().unwrap().port();
    let second = TcpListener::bind(("127.0.0.2", port)).unwrap();
    second.set_nonblocking(true).unwrap();
    let name = here.mirror("copy", &format!("git://mirror.test.invalid:{port}/a"));
    let repository = here.all.find(&name).unwrap();
    let mirror = repository.settings.mirror.clone().unwrap();
    let pinned = ["127.0.0.1", "127.0.0.2"].map(|address| address.parse().unwrap());
    let time = Duration::from_secs(1);
    let allowance = Allowance { time, file: 1 << 20, idle: None };
    let git = InstalledGit::find().unwrap();
    let late = fetch::update(&git, &repository, &mirror, &pinned, allowance, None).await;
    let is_late = matches!(late, Err(MirrorError::Git(RunError::Late(of))) if of == time);
    assert!(is_late, "{late:?}");
    assert!(second.accept().is_err(), "there was no time for it");
}

#[tokio::test]
async fn names_of_the_node_s_own_network_are_not_told_apart() {
    let here = Fixture::new(Vec::new());
    let told = async |host: &str| {
        let name = here.mirror(&host.replace('.', "-"), &format!("https://{host}/a"));
        assert!(here.keeper.update(&name).await.is_err());
        let status = here.all.mirror_status(&here.all.find(&name).unwrap()).unwrap();
        status.last_error.unwrap().replace(host, "HOST")
    };
    assert_eq!(told("localhost").await, told("nowhere.invalid").await);
}

#[tokio::test]
async fn content_of_one_s_own_does_not_become_a_copy() {
    let here = Fixture::new(loopback());
    let source = here.source();
    let name: RepositoryName = "own".parse().unwrap();
    let own = here.all.create(&name, &Settings::default()).unwrap();
    git(&source, &["push", "-q", own.path.to_str().unwrap(), "trunk"]);
    let mirror = Mirror::new("https://example.org/a".parse().unwrap());
    let refused = here.all.set_mirror(&name, Some(mirror));
    assert!(matches!(refused, Err(RepositoryError::NotEmpty(_))), "{refused:?}");
    let none = here.keeper.update(&name).await;
    assert!(matches!(none, Err(KeeperError::NoMirror(_))), "{none:?}");
}

#[tokio::test]
async fn who_is_not_there_is_asked_again_soon() {
    let here = Fixture::new(loopback());
    let name = here.mirror("a", "git://127.0.0.1:1/source");
    let refused = here.keeper.update(&name).await;
    assert!(matches!(refused, Err(KeeperError::Mirror(MirrorError::Git(_)))), "{refused:?}");
    let status = here.all.mirror_status(&here.all.find(&name).unwrap()).unwrap();
    assert_eq!((status.failures, status.last_success), (1, None));
    assert!(status.next <= now() + 70);
}

#[tokio::test]
async fn credentials_are_shown_to_whom_they_belong_and_stay_in_their_file() {
    let here = Fixture::new(loopback());
    let file = here.folder.path().join("credentials");
    let unauthorized = || response("401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"");
    for (theirs, shown) in [(true, true), (false, false)] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let host = if theirs { format!("127.0.0.1:{port}") } else { "other.example".into() };
        let content = format!("http://anna:secret@{host}\n");
        std::fs::write(&file, &content).unwrap();
        let answers =
            if shown { vec![unauthorized(), unauthorized()] } else { vec![unauthorized()] };
        let asked = answer(listener, answers);
        let url = format!("http://127.0.0.1:{port}/a").parse().unwrap();
        let credentials = CredentialsFile::try_from(file.clone()).unwrap();
        let mirror = Mirror::new(url).with_credentials(credentials);
        let name: RepositoryName = format!("a{port}").parse().unwrap();
        here.all.create(&name, &Settings::default()).unwrap();
        here.all.set_mirror(&name, Some(mirror)).unwrap();
        assert!(here.keeper.update(&name).await.is_err());
        let asked = asked.join().unwrap();
        // "anna:secret".
        let is_shown = asked.iter().any(|it| it.contains("Authorization: Basic YW5uYTpzZWNyZXQ="));
        assert_eq!(is_shown, shown, "{asked:?}");
        // What the other side refuses is not forgotten, and nothing is said of it.
        assert_eq!(std::fs::read_to_string(&file).unwrap(), content);
        let repository = here.all.find(&name).unwrap();
        let status = here.all.mirror_status(&repository).unwrap();
        assert!(!format!("{status:?} {:?}", repository.settings).contains("secret"));
    }
}

#[test]
fn ssh_goes_where_it_was_checked_with_no_key_of_the_account() {
    let path = Path::new("/srv/repos/a.git");
    let url = "ssh://git@example.org:2222/a".parse().unwrap();
    let settings = |mirror: &Mirror| {
        let line = fetch::ssh(path, mirror, "192.0.2.7");
        // As git has a shell run it.
        let mut shell = StdCommand::new("/bin/sh");
        shell.args(["-c", &format!("{line} -G git@example.org")]);
        let done = shell.output().unwrap();
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stdout).unwrap()
    };
    let plain = settings(&Mirror::new(url));
    for line in [
        "hostname 192.0.2.7",
        "hostkeyalias example.org",
        "identityagent none",
        "identitiesonly yes",
        "batchmode yes",
        "stricthostkeychecking accept-new",
        "userknownhostsfile /srv/repos/a.git/alknet-known-hosts",
        "clearallforwardings yes",
    ] {
        assert!(plain.lines().any(|it| it == line), "{line}: {plain}");
    }
    assert!(!plain.contains("identityfile ~/.ssh"), "{plain}");
    let url = "ssh://git@example.org/a".parse().unwrap();
    let file = "/etc/alknet/key".parse().unwrap();
    let keyed = settings(&Mirror::new(url).with_credentials(file));
    assert!(keyed.contains("identityfile /etc/alknet/key"), "{keyed}");
}
