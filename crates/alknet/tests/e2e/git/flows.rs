//! What people do with git, the same over every way to a node. Each flow compares what both
//! sides have then, object by object.

use std::{
    fs::{self, Permissions},
    os::unix::{
        fs::{PermissionsExt as _, symlink},
        process::CommandExt as _,
    },
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::{
    node::Home,
    process::{LONG, eventually, output_of, stdout, text},
};

/// A way to the repositories of a node, for whoever may do everything with them.
pub(crate) struct Remote {
    /// What comes before the name of a repository in its URL.
    pub(crate) base: String,
    /// The node's folder of repositories.
    pub(crate) repositories: PathBuf,
    /// What git and its helpers find in their environment.
    pub(crate) environment: Vec<(String, String)>,
    /// Lines of git's configuration, as `http.sslVerify=false`.
    pub(crate) settings: Vec<(String, String)>,
    /// Whether `git archive --remote` goes this way.
    pub(crate) archives: bool,
}

type Flow = fn(&Work<'_>);

/// Every flow, with what its repositories are called.
const FLOWS: [(&str, Flow); 14] = [
    ("clone", cloned),
    ("fetch", fetched),
    ("push", pushed),
    ("atomic", pushed_at_once),
    ("options", options),
    ("signed", signed),
    ("shallow", shallow),
    ("partial", partial),
    ("submodule", submodules),
    ("mirror", mirrored),
    ("versions", versions),
    ("archive", archived),
    ("race", raced),
    ("cut", cut_off),
];

/// What a node of the flows has in its state folder before it starts: hooks of the owner that
/// tell the pusher what they are told, and whose signatures are known.
pub(crate) fn prepare(home: &Home) {
    let at = |path: &str| home.path().join(path);
    fs::write(at("alknet.toml"), CONFIG).unwrap();
    for (repository, script) in HOOKS {
        let folder = at("git-hooks").join(repository);
        fs::create_dir_all(&folder).unwrap();
        let hook = folder.join("pre-receive");
        fs::write(&hook, script).unwrap();
        fs::set_permissions(hook, Permissions::from_mode(0o700)).unwrap();
    }
    for key in ["signer", "other"] {
        let mut make = Command::new("ssh-keygen");
        make.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(at(key));
        stdout(&run(&mut make));
    }
    let public = fs::read_to_string(at("signer.pub")).unwrap();
    fs::write(at("signers"), format!("tester@example.org namespaces=\"git\" {public}")).unwrap();
}

const CONFIG: &str =
    "[git]\nhooks = \"git-hooks\"\nallowed_signers = \"signers\"\nbundles = true\n";
const HOOKS: [(&str, &str); 2] = [
    (
        "flows/options-a",
        "#!/bin/sh\n\
         n=0\n\
         while [ $n -lt \"${GIT_PUSH_OPTION_COUNT:-0}\" ]; do\n\
         eval \"option=\\$GIT_PUSH_OPTION_$n\"\n\
         echo \"option $n: $option\"\n\
         [ \"$option\" != refuse ] || exit 1\n\
         n=$((n + 1))\n\
         done\n",
    ),
    (
        "flows/signed-a",
        "#!/bin/sh\n\
         echo \"cert: $GIT_PUSH_CERT_STATUS $GIT_PUSH_CERT_NONCE_STATUS $GIT_PUSH_CERT_SIGNER\"\n",
    ),
];

/// Goes through every flow. Pushing makes the repositories, so the caller may do that too.
#[track_caller]
pub(crate) fn all(remote: &Remote) {
    for (name, flow) in FLOWS {
        eprintln!("{} over {}", name, remote.base);
        flow(&Work::new(remote, name));
    }
}

impl Remote {
    pub(crate) fn url(&self, repository: &str) -> String {
        format!("{}{repository}", self.base)
    }

    /// Where the node keeps a repository.
    pub(crate) fn folder(&self, repository: &str) -> PathBuf {
        self.repositories.join(format!("{repository}.git"))
    }
}

/// A folder to work in.
pub(crate) struct Work<'a> {
    pub(crate) remote: &'a Remote,
    /// What the repositories of the flow begin with.
    name: &'a str,
    folder: TempDir,
}

impl<'a> Work<'a> {
    pub(crate) fn new(remote: &'a Remote, name: &'a str) -> Self {
        let folder = TempDir::new().unwrap();
        let own = [
            ("user.name", "Tester"),
            ("user.email", "tester@example.org"),
            ("init.defaultBranch", "main"),
            ("advice.detachedHead", "false"),
            ("gc.auto", "0"),
            ("maintenance.auto", "false"),
            // As `alknet git install-helper` sets it: what is not built in is else refused
            // to submodules.
            ("protocol.alknet.allow", "always"),
        ];
        let own = own.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let config = folder.path().join("gitconfig");
        for (key, value) in own.iter().chain(&remote.settings) {
            let mut git = Command::new("git");
            stdout(&run(git.args(["config", "--file"]).arg(&config).args([key, value])));
        }
        Self { remote, name, folder }
    }

    /// A path in the folder.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// git in a folder of this one, with nothing of the caller's own.
    pub(crate) fn command(&self, folder: &str, args: &[&str]) -> Command {
        let mut git = Command::new("git");
        git.args(args)
            .current_dir(self.at(folder))
            .env_remove("ALKNET_LOG")
            .env_remove("SSH_AUTH_SOCK")
            .env("HOME", self.folder.path())
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", self.at("gitconfig"))
            .env("GIT_TERMINAL_PROMPT", "0")
            .envs(self.remote.environment.iter().map(|(key, value)| (key, value)));
        git
    }

    pub(crate) fn output(&self, folder: &str, args: &[&str]) -> Output {
        run(&mut self.command(folder, args))
    }

    /// What git prints, without the last line's end.
    #[track_caller]
    pub(crate) fn git(&self, folder: &str, args: &[&str]) -> String {
        let output = self.output(folder, args);
        assert!(output.status.success(), "git {args:?} in {folder}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// What git complains of when it refuses.
    #[track_caller]
    pub(crate) fn refused(&self, folder: &str, args: &[&str]) -> String {
        let output = self.output(folder, args);
        assert!(!output.status.success(), "git {args:?} in {folder}: {}", text(&output));
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!complaint.contains("panicked"), "{complaint}");
        complaint
    }

    /// The name of a repository of this flow.
    pub(crate) fn repository(&self, which: &str) -> String {
        format!("flows/{}-{which}", self.name)
    }

    pub(crate) fn url(&self, which: &str) -> String {
        self.remote.url(&self.repository(which))
    }

    /// A repository at the node has nothing wrong with it. The node may be joining its packs
    /// while it is looked at, and a pack be gone by the time that it is opened.
    pub(crate) fn sound(&self, which: &str) {
        eventually("the repository is sound", || {
            let folder = self.remote.folder(&self.repository(which));
            let all = ["--git-dir", folder.to_str().unwrap(), "fsck", "--strict", "--full"];
            self.output(".", &all).status.success().then_some(())
        });
    }

    /// git on the node's own copy.
    #[track_caller]
    pub(crate) fn there(&self, which: &str, args: &[&str]) -> String {
        let folder = self.remote.folder(&self.repository(which));
        let mut all = vec!["--git-dir", folder.to_str().unwrap()];
        all.extend(args);
        self.git(".", &all)
    }

    /// A repository with some history and every kind of entry.
    #[track_caller]
    pub(crate) fn seed(&self, folder: &str) {
        self.git(".", &["init", "-q", folder]);
        let at = self.at(folder);
        fs::create_dir_all(at.join("src/deep")).unwrap();
        fs::write(at.join("src/deep/größe"), "ä\n").unwrap();
        fs::write(at.join("empty"), "").unwrap();
        fs::write(at.join("noise"), noise(300_000, 7)).unwrap();
        symlink("src/deep", at.join("link")).unwrap();
        for day in 1..=12 {
            self.commit(folder, day);
        }
        self.git(folder, &["tag", "light", "HEAD~3"]);
        self.git(folder, &["tag", "-a", "-m", "annotated", "v1", "HEAD~2"]);
        self.git(folder, &["branch", "feature/x", "HEAD~4"]);
    }

    /// A commit of some January day.
    #[track_caller]
    pub(crate) fn commit(&self, folder: &str, day: u32) {
        let at = self.at(folder);
        fs::write(at.join("counter"), format!("{day}\n")).unwrap();
        fs::write(at.join(format!("file-{day}")), format!("{day}\n").repeat(50)).unwrap();
        self.git(folder, &["add", "-A"]);
        let date = format!("2024-01-{day:02}T12:00:00Z");
        let message = format!("day {day}");
        let mut commit = self.command(folder, &["commit", "-q", "-m", &message]);
        commit.env("GIT_AUTHOR_DATE", &date).env("GIT_COMMITTER_DATE", &date);
        stdout(&run(&mut commit));
    }

    /// Has a new repository on the node, and a copy in `seed`.
    #[track_caller]
    pub(crate) fn publish(&self) {
        self.seed("seed");
        self.git("seed", &["remote", "add", "origin", &self.url("a")]);
        self.git("seed", &["push", "-q", "--all", "origin"]);
        self.git("seed", &["push", "-q", "--tags", "origin"]);
    }

    #[track_caller]
    pub(crate) fn clone_to(&self, folder: &str, options: &[&str]) {
        let url = self.url("a");
        let mut args = vec!["clone", "-q"];
        args.extend(options);
        args.extend([url.as_str(), folder]);
        self.git(".", &args);
    }

    /// Both sides are whole and hold the same objects under the same refs.
    #[track_caller]
    pub(crate) fn assert_same(&self, folder: &str, which: &str) {
        self.git(folder, &["fsck", "--strict", "--full"]);
        self.sound(which);
        assert_eq!(refs(&self.git(folder, REFS)), refs(&self.there(which, REFS)));
        let (here, there) = (self.git(folder, OBJECTS), self.there(which, OBJECTS));
        assert!(!here.is_empty() && sorted(&here) == sorted(&there));
    }
}

pub(crate) const REFS: &[&str] =
    &["for-each-ref", "--format=%(refname) %(objectname)", "refs/heads", "refs/tags"];
pub(crate) const OBJECTS: &[&str] =
    &["rev-list", "--objects", "--no-object-names", "--branches", "--tags"];

fn refs(text: &str) -> Vec<&str> {
    text.lines().collect()
}

pub(crate) fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines
}

fn run(command: &mut Command) -> Output {
    output_of(spawn(command), LONG)
}

fn spawn(command: &mut Command) -> Child {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Bytes that do not compress, and another lot for each seed.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn cloned(work: &Work<'_>) {
    work.publish();
    work.assert_same("seed", "a");
    work.clone_to("copy", &["--no-local"]);
    work.git("copy", &["branch", "-q", "feature/x", "origin/feature/x"]);
    work.assert_same("copy", "a");
    let listed = work.git(".", &["ls-remote", "--symref", &work.url("a")]);
    assert!(listed.starts_with("ref: refs/heads/main\tHEAD\n"), "{listed}");
    let one = work.git(".", &["ls-remote", &work.url("a"), "refs/tags/v1"]);
    assert_eq!(one.split('\t').next(), Some(work.git("seed", &["rev-parse", "v1"]).as_str()));
}

fn fetched(work: &Work<'_>) {
    work.publish();
    work.clone_to("copy", &[]);
    work.commit("seed", 20);
    work.git("seed", &["tag", "v2"]);
    work.git("seed", &["push", "-q", "origin", "main", "v2", ":feature/x"]);
    work.git("copy", &["fetch", "-q", "--prune"]);
    work.git("copy", &["merge", "-q", "--ff-only"]);
    work.assert_same("copy", "a");
    // There is nothing more.
    let before = work.git("copy", OBJECTS);
    work.git("copy", &["fetch", "-q"]);
    assert_eq!(work.git("copy", OBJECTS), before);
    // A commit by its id alone.
    let wanted = work.git("seed", &["rev-parse", "HEAD~1"]);
    work.git(".", &["init", "-q", "one"]);
    work.git("one", &["fetch", "-q", "--depth=1", &work.url("a"), &wanted]);
    assert_eq!(work.git("one", &["rev-parse", "FETCH_HEAD"]), wanted);
}

fn pushed(work: &Work<'_>) {
    work.publish();
    work.clone_to("copy", &[]);
    work.commit("copy", 21);
    work.git("copy", &["push", "-q", "origin", "main"]);
    work.git("seed", &["pull", "-q", "--ff-only", "origin", "main"]);
    work.assert_same("seed", "a");
    // A past that is not the node's takes force, or a lease.
    work.git("copy", &["commit", "-q", "--amend", "-m", "another day 21"]);
    assert!(work.refused("copy", &["push", "origin", "main"]).contains("rejected"));
    work.git("copy", &["push", "-q", "--force-with-lease", "origin", "main"]);
    work.git("copy", &["push", "-q", "origin", "main:refs/heads/some/other"]);
    work.git("copy", &["push", "-q", "origin", ":some/other", ":refs/tags/light"]);
    work.git("copy", &["tag", "-d", "light"]);
    work.git("copy", &["branch", "-q", "feature/x", "origin/feature/x"]);
    work.assert_same("copy", "a");
    let nothing = work.output("copy", &["push", "origin", "main"]);
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("up-to-date"));
}

/// All refs or none.
fn pushed_at_once(work: &Work<'_>) {
    work.publish();
    let before = work.there("a", REFS);
    // The node keeps its default branch.
    let both = ["push", "--atomic", "origin", "main:refs/heads/new", ":main"];
    let complaint = work.refused("seed", &both);
    assert!(complaint.contains("atomic"), "{complaint}");
    assert_eq!(work.there("a", REFS), before);
    work.git("seed", &["push", "-q", "--atomic", "origin", "main:refs/heads/new", ":feature/x"]);
    let after = work.there("a", REFS);
    assert!(after.contains("refs/heads/new ") && !after.contains("feature/x"), "{after}");
    work.git("seed", &["branch", "-q", "new", "main"]);
    work.git("seed", &["branch", "-q", "-D", "feature/x"]);
    work.assert_same("seed", "a");
}

/// What is said with a push reaches the owner's hooks, and they go by it.
fn options(work: &Work<'_>) {
    work.publish();
    work.commit("seed", 18);
    let odd = "two words; $(id) 'ä'";
    let said = work.output("seed", &["push", "-o", "ci.skip", "-o", odd, "origin", "main"]);
    assert!(said.status.success(), "{}", text(&said));
    let heard = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(heard.contains("remote: option 0: ci.skip"), "{heard}");
    assert!(heard.contains(&format!("remote: option 1: {odd}")), "{heard}");
    work.assert_same("seed", "a");
    work.commit("seed", 19);
    let before = work.there("a", REFS);
    let heard = work.refused("seed", &["push", "-o", "refuse", "origin", "main"]);
    assert!(heard.contains("remote: option 0: refuse"), "{heard}");
    assert_eq!(work.there("a", REFS), before);
    work.git("seed", &["push", "-q", "origin", "main"]);
    work.assert_same("seed", "a");
}

/// Whoever signs a push with a key that the node knows is known by it, and nobody else.
fn signed(work: &Work<'_>) {
    work.publish();
    let push = |key: &str, day: u32| {
        work.commit("seed", day);
        let key = work.remote.repositories.with_file_name(key);
        let key = format!("user.signingKey={}", key.display());
        let sign = ["-c", "gpg.format=ssh", "-c", &key, "push", "--signed", "origin", "main"];
        let said = work.output("seed", &sign);
        assert!(said.status.success(), "{}", text(&said));
        work.assert_same("seed", "a");
        String::from_utf8_lossy(&said.stderr).into_owned()
    };
    let known = push("signer", 16);
    assert!(known.contains("remote: cert: G OK tester@example.org"), "{known}");
    let unknown = push("other", 17);
    assert!(unknown.contains("remote: cert: U OK"), "{unknown}");
}

fn shallow(work: &Work<'_>) {
    work.publish();
    let count = |folder: &str| work.git(folder, &["rev-list", "--count", "HEAD"]);
    work.clone_to("copy", &["--depth", "1"]);
    assert_eq!(count("copy"), "1");
    work.git("copy", &["fetch", "-q", "--deepen=2"]);
    assert_eq!(count("copy"), "3");
    // What is pushed from a part of the history is whole there.
    work.commit("copy", 22);
    work.git("copy", &["push", "-q", "origin", "main"]);
    work.sound("a");
    work.git("copy", &["remote", "set-branches", "origin", "*"]);
    work.git("copy", &["fetch", "-q", "--unshallow", "--tags"]);
    work.git("copy", &["branch", "-q", "feature/x", "origin/feature/x"]);
    assert_eq!(count("copy"), "13");
    work.assert_same("copy", "a");
    work.clone_to("since", &["--shallow-since=2024-01-09T00:00:00Z", "--single-branch"]);
    // Days 9 to 12, and the one that was pushed.
    assert_eq!(count("since"), "5");
    work.clone_to("without", &["--shallow-exclude=feature/x", "--branch", "main"]);
    assert_eq!(count("without"), "5");
    work.git("without", &["fsck", "--full"]);
}

/// Contents come when they are asked for.
fn partial(work: &Work<'_>) {
    work.publish();
    work.clone_to("copy", &["--filter=blob:none", "--no-checkout"]);
    let missing = || {
        let all = ["rev-list", "--objects", "--all", "--missing=print"];
        let listed = work.git("copy", &all);
        listed.lines().filter(|line| line.starts_with('?')).count()
    };
    let before = missing();
    assert!(before > 20, "{before}");
    work.git("copy", &["checkout", "-q", "main"]);
    assert!(missing() < before);
    assert_eq!(fs::read(work.at("copy/noise")).unwrap(), noise(300_000, 7));
    work.git("copy", &["log", "-p", "--all"]);
    assert_eq!(missing(), 0);
    work.git("copy", &["fsck", "--full"]);
    work.commit("copy", 23);
    work.git("copy", &["push", "-q", "origin", "main"]);
    work.sound("a");
    work.clone_to("treeless", &["--filter=tree:0"]);
    assert_eq!(work.git("treeless", &["status", "--porcelain"]), "");
}

/// One repository in another, by the way from the one to the other.
fn submodules(work: &Work<'_>) {
    work.publish();
    work.git(".", &["init", "-q", "outer"]);
    let sibling = "../submodule-a";
    work.git("outer", &["remote", "add", "origin", &work.url("outer")]);
    work.git("outer", &["submodule", "--quiet", "add", sibling, "inner"]);
    work.git("outer", &["commit", "-q", "-m", "with a part"]);
    work.git("outer", &["push", "-q", "origin", "main"]);
    work.git(".", &["clone", "-q", "--recurse-submodules", &work.url("outer"), "copy"]);
    assert_eq!(fs::read(work.at("copy/inner/noise")).unwrap(), noise(300_000, 7));
    work.git("copy", &["fsck", "--full"]);
    work.git("copy/inner", &["fsck", "--full"]);
    work.commit("seed", 24);
    work.git("seed", &["push", "-q", "origin", "main"]);
    work.git("copy", &["submodule", "--quiet", "update", "--remote"]);
    let head = ["rev-parse", "HEAD"];
    assert_eq!(work.git("copy/inner", &head), work.git("seed", &head));
    work.assert_same("outer", "outer");
    work.assert_same("seed", "a");
}

fn mirrored(work: &Work<'_>) {
    work.publish();
    work.git("seed", &["notes", "add", "-m", "a note"]);
    work.git("seed", &["push", "-q", "origin", "refs/notes/*"]);
    work.clone_to("mirror.git", &["--mirror"]);
    work.assert_same("mirror.git", "a");
    work.git("mirror.git", &["push", "-q", "--mirror", &work.url("b")]);
    assert_eq!(work.there("b", &["for-each-ref"]), work.there("a", &["for-each-ref"]));
    work.assert_same("mirror.git", "b");
    work.git("seed", &["push", "-q", "origin", ":feature/x"]);
    work.git("mirror.git", &["remote", "update", "--prune"]);
    work.git("mirror.git", &["push", "-q", "--mirror", &work.url("b")]);
    work.assert_same("mirror.git", "b");
}

/// The version of the protocol is the one that the client wants.
fn versions(work: &Work<'_>) {
    work.publish();
    for (version, says) in [("0", None), ("1", Some("version 1")), ("2", Some("version 2"))] {
        let (setting, url) = (format!("protocol.version={version}"), work.url("a"));
        let mut list = work.command(".", &["-c", &setting, "ls-remote", &url]);
        let listed = run(list.env("GIT_TRACE_PACKET", "1"));
        let trace = String::from_utf8_lossy(&listed.stderr).into_owned();
        assert!(listed.status.success(), "{trace}");
        for other in ["version 1", "version 2"] {
            assert_eq!(trace.contains(&format!("< {other}")), says == Some(other), "{trace}");
        }
        let folder = format!("copy-{version}");
        work.git(".", &["-c", &setting, "clone", "-q", "--mirror", &url, &folder]);
        work.assert_same(&folder, "a");
        work.commit("seed", 25 + version.parse::<u32>().unwrap());
        work.git("seed", &["-c", &setting, "push", "-q", "origin", "main"]);
        work.git(&folder, &["-c", &setting, "fetch", "-q"]);
        work.assert_same(&folder, "a");
    }
}

fn archived(work: &Work<'_>) {
    work.publish();
    if !work.remote.archives {
        return;
    }
    let url = format!("--remote={}", work.url("a"));
    let made = work.output(".", &["archive", &url, "--format=tar", "v1", "src"]);
    assert!(made.status.success(), "{}", text(&made));
    let here = work.output("seed", &["archive", "--format=tar", "v1", "src"]);
    assert!(made.stdout == here.stdout && made.stdout.len() > 1024);
    assert!(!work.refused(".", &["archive", &url, "nowhere"]).is_empty());
}

/// Two pushes to one ref: one of them wins, and the other is told.
fn raced(work: &Work<'_>) {
    work.publish();
    for folder in ["one", "two"] {
        work.clone_to(folder, &[]);
    }
    fs::write(work.at("one/mine"), noise(2_000_000, 1)).unwrap();
    fs::write(work.at("two/mine"), noise(2_000_000, 2)).unwrap();
    work.commit("one", 29);
    work.commit("two", 30);
    let push = ["push", "origin", "main"];
    let both = ["one", "two"].map(|folder| spawn(&mut work.command(folder, &push)));
    let [one, two] = both.map(|child| output_of(child, LONG));
    let tip = work.there("a", &["rev-parse", "main"]);
    let (winner, loser, said) = match (one.status.success(), two.status.success()) {
        (true, false) => ("one", "two", two),
        (false, true) => ("two", "one", one),
        _ => panic!("{}\n{}", text(&one), text(&two)),
    };
    assert_eq!(tip, work.git(winner, &["rev-parse", "main"]));
    assert_ne!(tip, work.git(loser, &["rev-parse", "main"]));
    assert!(String::from_utf8_lossy(&said.stderr).contains("rejected"), "{}", text(&said));
    work.sound("a");
    work.git(loser, &["pull", "-q", "--rebase", "-X", "theirs", "origin", "main"]);
    work.git(loser, &["push", "-q", "origin", "main"]);
    work.sound("a");
}

/// A push that ends halfway leaves the repository as it was.
fn cut_off(work: &Work<'_>) {
    work.publish();
    let (refs, objects) = (work.there("a", REFS), work.there("a", EVERY_OBJECT));
    fs::write(work.at("seed/large"), noise(40_000_000, 3)).unwrap();
    work.commit("seed", 31);
    let folder = work.remote.folder(&work.repository("a")).join("objects");
    let incoming = || {
        let mut entries = fs::read_dir(&folder).unwrap().map_while(Result::ok);
        entries.any(|entry| !known_to_git(&entry.file_name().to_string_lossy()))
    };
    eventually("the end of the pushes before", || (!incoming()).then_some(()));
    let mut push = work.command("seed", &["push", "origin", "main"]);
    let child = spawn(push.process_group(0));
    let group = Pid::from_raw(child.id().try_into().unwrap());
    eventually("objects of a push", || incoming().then_some(()));
    killpg(group, Signal::SIGINT).unwrap();
    assert!(!output_of(child, LONG).status.success());
    eventually("a repository as it was", || (!incoming()).then_some(()));
    assert_eq!(work.there("a", REFS), refs);
    assert!(work.there("a", EVERY_OBJECT) == objects);
    work.sound("a");
    work.git("seed", &["push", "-q", "origin", "main"]);
    work.assert_same("seed", "a");
}

/// Reachable or not.
const EVERY_OBJECT: &[&str] = &["cat-file", "--batch-all-objects", "--batch-check=%(objectname)"];

/// Whether git's folder of objects holds this when nothing is under way.
fn known_to_git(name: &str) -> bool {
    ["info", "pack"].contains(&name) || (name.len() == 2 && !name.contains('.'))
}
