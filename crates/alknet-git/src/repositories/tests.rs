mod keeping;

use std::{
    collections::BTreeSet,
    os::unix::fs::{MetadataExt as _, symlink},
    process::{Command, Stdio},
    thread,
};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

struct Fixture {
    folder: TempDir,
    all: Repositories,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let all = Repositories::open(&folder.path().join("repos")).unwrap();
        Self { folder, all }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("repos")
    }

    /// As another process sees it.
    fn again(&self) -> Repositories {
        Repositories::open(&self.root()).unwrap()
    }

    fn create(&self, names: &[&str]) {
        for text in names {
            self.all.create(&name(text), &Settings::default()).unwrap();
        }
    }

    fn names(&self) -> Vec<String> {
        self.all.names().unwrap().iter().map(ToString::to_string).collect()
    }

    fn left_in_work(&self) -> Vec<String> {
        let entries = self.root().join(WORK).read_dir().unwrap().map(Result::unwrap);
        let folders = entries.filter(|entry| entry.file_type().unwrap().is_dir());
        folders.map(|entry| entry.file_name().into_string().unwrap()).collect()
    }
}

fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

/// The real git, which reads no configuration of whoever runs the tests.
fn git(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.current_dir(folder).args(arguments).stderr(Stdio::piped());
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "A").env(format!("GIT_{who}_EMAIL"), "a@b.c");
    }
    let done = command.output().unwrap();
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_new_repository_is_one_for_git() {
    let here = Fixture::new();
    let settings = Settings { description: "Notes".into(), public: true, ..Settings::default() };
    let made = here.all.create(&name("team/deep/notes"), &settings).unwrap();
    assert_eq!(git(&made.path, &["rev-parse", "--is-bare-repository"]), "true");
    assert_eq!(git(&made.path, &["symbolic-ref", "HEAD"]), "refs/heads/main");
    git(&made.path, &["fsck", "--strict"]);
    assert_eq!(here.again().find(&made.name).unwrap().settings, settings);
    for folder in ["", "team", "team/deep", "team/deep/notes.git"] {
        let mode = here.root().join(folder).metadata().unwrap().mode();
        assert_eq!(mode & 0o777, 0o700, "{folder}");
    }
    assert!(!made.path.join("hooks").exists());
    assert!(here.left_in_work().is_empty());
    let other = here.all.create_with_branch(&name("b"), &settings, "trunk").unwrap();
    assert_eq!(git(&other.path, &["symbolic-ref", "HEAD"]), "refs/heads/trunk");
}

#[test]
fn a_name_is_taken_once() {
    let here = Fixture::new();
    here.create(&["a", "a/b", "a/b/c", "b/a"]);
    assert_eq!(here.names(), ["a", "a/b", "a/b/c", "b/a"]);
    let again = here.again().create(&name("a/b"), &Settings::default());
    assert!(matches!(again, Err(RepositoryError::Exists(_))), "{again:?}");
    // What is no repository but has the name of one is not touched either.
    fs::create_dir(here.root().join("c.git")).unwrap();
    let taken = here.all.create(&name("c"), &Settings::default());
    assert!(matches!(taken, Err(RepositoryError::Exists(_))), "{taken:?}");
    assert!(here.left_in_work().is_empty());
    assert!(here.all.get(&name("c")).unwrap().is_none());
}

#[test]
fn only_one_of_many_makes_a_repository() {
    let here = Fixture::new();
    let made = thread::scope(|scope| {
        let maker = |_| {
            let all = here.again();
            scope.spawn(move || all.create(&name("team/a"), &Settings::default()).is_ok())
        };
        let makers: Vec<_> = (0..8).map(maker).collect();
        makers.into_iter().filter(|_| true).map(|maker| maker.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(made.iter().filter(|made| **made).count(), 1, "{made:?}");
    assert!(here.left_in_work().is_empty());
    git(&here.all.find(&name("team/a")).unwrap().path, &["fsck"]);
}

#[test]
fn what_is_no_repository_is_not_listed() {
    let here = Fixture::new();
    here.create(&["team/a", "b"]);
    let root = here.root();
    for folder in ["team/x.git", "foreign/deep", "Upper.git", ".hidden.git", "b.git/c.git"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::write(root.join("file.git"), "").unwrap();
    fs::create_dir_all(root.join("Upper.git/objects")).unwrap();
    fs::write(root.join("Upper.git/HEAD"), "ref: refs/heads/main\n").unwrap();
    let all = here.all.list(|_| true, false, 100).unwrap();
    let names: Vec<_> = all.iter().map(|found| found.name.as_str()).collect();
    assert_eq!(names, ["b", "team/a"]);
}

#[test]
fn a_list_has_what_the_caller_may_see_and_no_more_than_asked_for() {
    let here = Fixture::new();
    here.create(&["mine/a", "mine/b", "other/c"]);
    here.all.configure(&name("other/c"), |settings| settings.public = true).unwrap();
    here.create(&["other/d"]);
    let list = |public, most| {
        let mine = |name: &RepositoryName| name.as_str().starts_with("mine/");
        let found = here.all.list(mine, public, most).unwrap();
        found.iter().map(|found| found.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(list(false, 100), ["mine/a", "mine/b"]);
    assert_eq!(list(true, 100), ["mine/a", "mine/b", "other/c"]);
    assert_eq!(list(true, 1), ["mine/a"]);
    // One that cannot be read hides no other.
    fs::write(here.root().join("mine/a.git/alknet.toml"), "nonsense = 1").unwrap();
    assert_eq!(list(true, 100), ["mine/b", "other/c"]);
}

#[test]
fn links_lead_nowhere() {
    let here = Fixture::new();
    let outside = here.folder.path().join("outside.git");
    gix::init_bare(&outside).unwrap();
    fs::create_dir_all(here.folder.path().join("elsewhere")).unwrap();
    gix::init_bare(here.folder.path().join("elsewhere/x.git")).unwrap();
    symlink(&outside, here.root().join("link.git")).unwrap();
    symlink("../elsewhere", here.root().join("way")).unwrap();
    for text in ["link", "way/x"] {
        assert!(here.all.get(&name(text)).unwrap().is_none(), "{text}");
        assert!(here.all.delete(&name(text)).is_err(), "{text}");
        assert!(here.all.rename(&name(text), &name("mine")).is_err(), "{text}");
        assert!(here.all.configure(&name(text), |_| {}).is_err(), "{text}");
        assert!(here.all.set_default_branch(&name(text), "x").is_err(), "{text}");
    }
    assert!(here.all.create(&name("way/new"), &Settings::default()).is_err());
    assert!(here.all.create(&name("link"), &Settings::default()).is_err());
    here.create(&["a"]);
    assert!(here.all.rename(&name("a"), &name("way/a")).is_err());
    assert_eq!(here.names(), ["a"]);
    assert!(!here.folder.path().join("elsewhere/new.git").exists());
    // Nor do those in a repository.
    let (secret, path) = (here.folder.path().join("secret"), here.root().join("a.git"));
    fs::write(&secret, "public = true\n").unwrap();
    fs::remove_file(path.join("alknet.toml")).unwrap();
    symlink(&secret, path.join("alknet.toml")).unwrap();
    assert!(here.all.get(&name("a")).is_err());
    // What is removed is the link, never what it leads to.
    symlink(&outside, path.join("objects/out")).unwrap();
    here.all.delete(&name("a")).unwrap();
    assert!(outside.join("HEAD").exists() && secret.exists());
    assert!(here.left_in_work().is_empty());
}

#[test]
fn a_repository_moves_with_all_that_it_has() {
    let here = Fixture::new();
    here.create(&["a/b/c", "taken"]);
    here.all.configure(&name("a/b/c"), |settings| settings.quota = Some(7)).unwrap();
    let moved = here.all.rename(&name("a/b/c"), &name("x/y")).unwrap();
    assert_eq!(moved.settings.quota, Some(7));
    assert_eq!(here.names(), ["taken", "x/y"]);
    assert!(!here.root().join("a").exists(), "empty folders go");
    let refused = here.all.rename(&name("x/y"), &name("taken"));
    assert!(matches!(refused, Err(RepositoryError::Exists(_))), "{refused:?}");
    let missing = here.all.rename(&name("none"), &name("z/z"));
    assert!(matches!(missing, Err(RepositoryError::Missing(_))), "{missing:?}");
    assert!(!here.root().join("z").exists());
    // Into a folder that is named as the repository.
    here.all.rename(&name("x/y"), &name("x/y/z")).unwrap();
    here.all.rename(&name("x/y/z"), &name("x")).unwrap();
    assert_eq!(here.names(), ["taken", "x"]);
}

#[test]
fn a_push_in_progress_ends_cleanly_when_its_repository_moves() {
    let here = Fixture::new();
    here.create(&["a"]);
    let work = here.folder.path().join("work");
    git(here.folder.path(), &["init", "-q", "-b", "main", "work"]);
    git(&work, &["commit", "-q", "--allow-empty", "-m", "one"]);
    let old = here.all.find(&name("a")).unwrap().path;
    git(&work, &["push", "-q", old.to_str().unwrap(), "main"]);
    // One that fetches has the folder, whatever it is called.
    let mut child = Command::new("git")
        .args(["upload-pack", "."])
        .current_dir(&old)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let moved = here.all.rename(&name("a"), &name("b")).unwrap();
    here.create(&["a"]);
    drop(child.stdin.take());
    assert!(!child.wait_with_output().unwrap().stdout.is_empty());
    assert_eq!(git(&moved.path, &["rev-list", "--count", "main"]), "1");
    let fresh = here.all.find(&name("a")).unwrap();
    assert!(here.all.overview(&fresh).unwrap().empty);
}

#[test]
fn a_removed_repository_is_gone_at_once_and_for_good() {
    let here = Fixture::new();
    here.create(&["team/a"]);
    here.all.delete(&name("team/a")).unwrap();
    assert!(here.names().is_empty() && here.left_in_work().is_empty());
    assert!(!here.root().join("team").exists());
    assert!(matches!(here.all.delete(&name("team/a")), Err(RepositoryError::Missing(_))));
    here.create(&["team/a"]);
}

#[test]
fn what_killed_processes_left_is_swept_but_not_what_others_work_on() {
    let here = Fixture::new();
    let left = here.root().join(WORK).join("1-2-3");
    fs::create_dir_all(left.join("objects")).unwrap();
    let working = here.all.working().unwrap();
    here.again();
    assert!(left.exists());
    drop(working);
    here.again();
    assert!(!left.exists());
}

#[test]
fn settings_change_whole_or_not_at_all() {
    let here = Fixture::new();
    here.create(&["a"]);
    let a = name("a");
    let set = |text: &str| here.all.configure(&a, |it| it.description = text.into());
    set("one").unwrap();
    assert!(matches!(set("two\nlines"), Err(RepositoryError::Invalid(_))));
    assert_eq!(here.all.find(&a).unwrap().settings.description, "one");
    // A part of what a killed process was writing is no obstacle.
    fs::write(here.root().join("a.git/alknet.toml.new"), "descr").unwrap();
    set("three").unwrap();
    assert_eq!(here.all.find(&a).unwrap().settings.description, "three");
    assert!(!here.root().join("a.git/alknet.toml.new").exists());
}

#[test]
fn a_default_branch_changes_with_the_settings_or_not_at_all() {
    let here = Fixture::new();
    here.create(&["a"]);
    let a = name("a");
    let head = || git(&here.root().join("a.git"), &["symbolic-ref", "HEAD"]);
    let set = |branch: &str, text: &str| {
        let change = |settings: &mut Settings| settings.description = text.into();
        here.all.configure_with_branch(&a, Some(branch), change)
    };
    for refused in [set("other", "two\nlines"), set("-x", "good")] {
        assert!(matches!(refused, Err(RepositoryError::Invalid(_))), "{refused:?}");
        assert_eq!((head().as_str(), read(&here)), ("refs/heads/main", String::new()));
    }
    set("other", "good").unwrap();
    assert_eq!((head().as_str(), read(&here)), ("refs/heads/other", "good".into()));
}

fn read(here: &Fixture) -> String {
    here.all.find(&name("a")).unwrap().settings.description
}

#[test]
fn changes_of_many_processes_are_all_made() {
    let here = Fixture::new();
    here.create(&["a"]);
    thread::scope(|scope| {
        for number in 0..8 {
            let all = here.again();
            scope.spawn(move || {
                let pattern = format!("b{number}").parse().unwrap();
                all.configure(&name("a"), |settings| settings.protected.push(pattern)).unwrap();
            });
        }
    });
    let settings = here.all.find(&name("a")).unwrap().settings;
    let protected: BTreeSet<_> = settings.protected.iter().map(RefPattern::as_str).collect();
    assert_eq!(protected.len(), 8);
}

#[test]
fn the_node_s_settings_hold_for_all() {
    let here = Fixture::new();
    here.create(&["a", "b"]);
    here.all.configure(&name("a"), |settings| settings.public = true).unwrap();
    here.all.configure(&name("b"), |settings| settings.quota = Some(5)).unwrap();
    let defaults = Defaults { quota: Some(9), public: false, branch: "trunk".into() };
    let strict = Repositories::open_with(&here.root(), defaults).unwrap();
    let a = strict.find(&name("a")).unwrap();
    assert_eq!((a.settings.public, a.settings.quota), (false, Some(9)));
    assert_eq!(strict.find(&name("b")).unwrap().settings.quota, Some(5));
    let public = Settings { public: true, ..Settings::default() };
    assert!(matches!(strict.create(&name("c"), &public), Err(RepositoryError::Invalid(_))));
    // What the node forbids for now is not forgotten.
    strict.configure(&name("b"), |settings| settings.description = "x".into()).unwrap();
    assert!(here.all.find(&name("a")).unwrap().settings.public);
    let made = strict.create(&name("d"), &Settings::default()).unwrap();
    assert_eq!(git(&made.path, &["symbolic-ref", "HEAD"]), "refs/heads/trunk");
    let bad = Defaults { branch: "-x".into(), ..Defaults::default() };
    assert!(Repositories::open_with(&here.root(), bad).is_err());
}

#[test]
fn an_overview_tells_how_a_repository_is() {
    let here = Fixture::new();
    here.create(&["a"]);
    let a = here.all.find(&name("a")).unwrap();
    let before = here.all.overview(&a).unwrap();
    assert_eq!((before.default_branch.as_deref(), before.empty), (Some("main"), true));
    assert!(before.size > 0 && before.updated > 1_600_000_000);
    let work = here.folder.path().join("work");
    git(here.folder.path(), &["init", "-q", "-b", "topic", "work"]);
    git(&work, &["commit", "-q", "--allow-empty", "-m", "one"]);
    git(&work, &["push", "-q", a.path.to_str().unwrap(), "topic"]);
    here.all.set_default_branch(&a.name, "topic").unwrap();
    assert_eq!(here.all.size(&a).unwrap(), before.size, "of a moment ago");
    here.all.touched(&a);
    let after = here.all.overview(&a).unwrap();
    assert_eq!((after.default_branch.as_deref(), after.empty), (Some("topic"), false));
    assert!(after.size > before.size && after.updated >= before.updated);
    assert!(here.all.set_default_branch(&a.name, "../x").is_err());
}

fn names() -> impl Strategy<Value = RepositoryName> {
    "[a-c._-]{1,3}(/[a-c._-]{1,3}){0,3}(\\.git)?"
        .prop_filter_map("no name", |text| text.parse().ok())
}

proptest! {
    /// No repository has the folder of another, nor is one inside another.
    #[test]
    fn no_two_names_meet(one in names(), other in names()) {
        let folder = |name: &RepositoryName| PathBuf::from(format!("{name}{SUFFIX}"));
        let (mine, theirs) = (folder(&one), folder(&other));
        prop_assert_eq!(one == other, mine == theirs);
        if one != other {
            prop_assert!(!mine.starts_with(&theirs) && !theirs.starts_with(&mine));
        }
    }
}
