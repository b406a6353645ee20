//! Garbage collection, bundles, and what follows a push.

use std::{fs::File, time::SystemTime};

use alknet_core::Audit;
use tokio::time::timeout;

use super::*;
use crate::{
    bundle,
    engine::InstalledGit,
    events::{Event, EventKind, Events},
    repositories::collect::{is_due, is_whole_due, tidy},
};

/// No collection of these repositories takes that long.
const LONG: Duration = Duration::from_secs(60);

impl Fixture {
    fn keeper(&self, change: impl FnOnce(&mut KeeperConfig)) -> (Keeper, Events) {
        let (events, git) = (Events::default(), InstalledGit::find().unwrap());
        let mut config = KeeperConfig::new(self.all.clone(), git, events.clone(), Audit::to_log());
        change(&mut config);
        (Keeper::new(config), events)
    }

    /// Pushes so often, a file each time, and gives the folder of the pusher.
    fn push(&self, repository: &Repository, times: usize) -> PathBuf {
        let work = self.folder.path().join("work");
        if !work.exists() {
            git(self.folder.path(), &["init", "-q", "-b", "main", "work"]);
        }
        for number in 0..times {
            fs::write(work.join(format!("f{number}")), format!("{number}").repeat(50)).unwrap();
            git(&work, &["add", "."]);
            git(&work, &["commit", "-q", "-m", &format!("{number}")]);
            git(&work, &["push", "-q", repository.path.to_str().unwrap(), "main"]);
        }
        work
    }
}

fn packs(repository: &Repository, ending: &str) -> usize {
    let entries = repository.path.join("objects/pack").read_dir().unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(ending)).count()
}

#[tokio::test]
async fn a_collection_leaves_one_pack_with_what_makes_clones_fast() {
    let here = Fixture::new();
    here.create(&["a", "empty"]);
    let a = here.all.find(&name("a")).unwrap();
    let work = here.push(&a, 20);
    let tip = git(&work, &["rev-parse", "main"]);
    let (keeper, _) = here.keeper(|_| {});
    let collected = keeper.collect(&a.name).await.unwrap();
    assert!(collected.after > 0 && collected.before > 0);
    assert_eq!((packs(&a, ".pack"), packs(&a, ".bitmap")), (1, 1));
    assert!(
        a.path.join("objects/info/commit-graph").exists()
            || a.path.join("objects/info/commit-graphs").exists()
    );
    git(&a.path, &["fsck", "--strict"]);
    assert_eq!(git(&a.path, &["rev-parse", "main"]), tip);
    assert!(!is_due(&a.path));
    // Nothing to do is done as well.
    keeper.collect(&a.name).await.unwrap();
    keeper.collect(&name("empty")).await.unwrap();
    let missing = keeper.collect(&name("none")).await;
    assert!(matches!(missing, Err(KeeperError::Repository(RepositoryError::Missing(_)))));
}

#[tokio::test]
async fn a_push_is_heard_of_and_looked_after_when_there_is_enough() {
    let here = Fixture::new();
    here.create(&["a"]);
    let a = here.all.find(&name("a")).unwrap();
    // A pack for each push.
    git(&a.path, &["config", "receive.unpackLimit", "1"]);
    let work = here.push(&a, 15);
    assert!(is_due(&a.path) && packs(&a, ".pack") > 12);
    let (keeper, events) = here.keeper(|_| {});
    let look = async {
        loop {
            events.send(Event::new(EventKind::Push, &a.name, None));
            tokio::task::yield_now().await;
            if packs(&a, ".pack") == 1 && packs(&a, ".bitmap") == 1 && !is_due(&a.path) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let seen = async {
        tokio::select! {
            () = keeper.run() => unreachable!(),
            () = look => {}
        }
    };
    timeout(LONG, seen).await.unwrap();
    git(&a.path, &["fsck", "--strict"]);
    assert_eq!(git(&a.path, &["rev-parse", "main"]), git(&work, &["rev-parse", "main"]));
    assert!(a.path.join("alknet.updated").exists());
}

#[tokio::test]
async fn only_one_looks_after_a_repository() {
    let here = Fixture::new();
    here.create(&["a"]);
    let folder = here.all.folder(&name("a")).unwrap().unwrap();
    let lock = folder.try_lock(collect::LOCK).unwrap().unwrap();
    let (keeper, _) = here.keeper(|_| {});
    let busy = keeper.collect(&name("a")).await;
    assert!(matches!(busy, Err(KeeperError::Busy(_))), "{busy:?}");
    drop(lock);
    keeper.collect(&name("a")).await.unwrap();
}

#[tokio::test]
async fn a_collection_that_is_too_slow_is_ended_and_harms_nothing() {
    let here = Fixture::new();
    here.create(&["a"]);
    let a = here.all.find(&name("a")).unwrap();
    here.push(&a, 3);
    let (keeper, _) = here.keeper(|config| config.deadline = Duration::ZERO);
    let late = keeper.collect(&a.name).await;
    assert!(matches!(late, Err(KeeperError::Git(RunError::Late(_)))), "{late:?}");
    git(&a.path, &["fsck", "--strict"]);
    // Ended in the wrong moment, git leaves a lock, which counts for nothing when it is old.
    for left in ["packed-refs.lock", "packed-refs.new"] {
        if let Ok(left) = File::open(a.path.join(left)) {
            left.set_modified(SystemTime::now() - Duration::from_secs(2 * 60 * 60)).unwrap();
        }
    }
    here.keeper(|_| {}).0.collect(&a.name).await.unwrap();
}

#[tokio::test]
async fn a_push_during_a_collection_loses_nothing() {
    let here = Fixture::new();
    here.create(&["a"]);
    let a = here.all.find(&name("a")).unwrap();
    here.push(&a, 2);
    let (keeper, _) = here.keeper(|_| {});
    let collects = async {
        for _ in 0..5 {
            keeper.collect(&a.name).await.unwrap();
        }
    };
    let pushes = tokio::task::spawn_blocking({
        let (from, to) = (here.folder.path().join("work"), a.path.clone());
        move || {
            for number in 0..10 {
                git(&from, &["commit", "-q", "--allow-empty", "-m", &format!("again {number}")]);
                git(&from, &["push", "-q", to.to_str().unwrap(), "main"]);
            }
            git(&from, &["rev-parse", "main"])
        }
    });
    let (tip, ()) = tokio::join!(pushes, collects);
    git(&a.path, &["fsck", "--strict"]);
    assert_eq!(git(&a.path, &["rev-parse", "main"]), tip.unwrap());
}

#[test]
fn only_what_is_old_is_tidied() {
    let here = Fixture::new();
    here.create(&["a"]);
    let path = here.all.find(&name("a")).unwrap().path;
    let old = SystemTime::now() - Duration::from_secs(2 * 24 * 60 * 60);
    for folder in ["objects/pack", "objects/tmp_objdir-incoming-x", "refs/heads/deep"] {
        fs::create_dir_all(path.join(folder)).unwrap();
    }
    let left =
        ["HEAD.lock", "packed-refs.new", "refs/heads/deep/x.lock", "objects/pack/tmp_pack_x"];
    for file in left {
        File::create(path.join(file)).unwrap().set_modified(old).unwrap();
    }
    File::open(path.join("objects/tmp_objdir-incoming-x")).unwrap().set_modified(old).unwrap();
    let in_use = ["packed-refs.lock", "refs/heads/y.lock", "objects/pack/tmp_pack_y"];
    for file in in_use {
        File::create(path.join(file)).unwrap();
    }
    tidy(&path).unwrap();
    assert!(left.iter().all(|file| !path.join(file).exists()));
    assert!(!path.join("objects/tmp_objdir-incoming-x").exists());
    assert!(in_use.iter().all(|file| path.join(file).exists()));
}

#[tokio::test]
async fn clones_begin_with_a_bundle_where_there_is_one() {
    let here = Fixture::new();
    here.create(&["team/a", "empty"]);
    let a = here.all.find(&name("team/a")).unwrap();
    here.push(&a, 5);
    let (keeper, _) = here.keeper(|config| config.bundles = true);
    keeper.collect(&a.name).await.unwrap();
    keeper.collect(&name("empty")).await.unwrap();
    // The git here serves as the node does, by protocol v2 and the repository's configuration.
    let url = format!("file://{}", a.path.display());
    let clone = here.folder.path().join("clone");
    let mut command = Command::new("git");
    command.args(["-c", "transfer.bundleURI=true", "-c", "protocol.version=2"]);
    command.args(["clone", "-q", &url]).arg(&clone);
    command.env("GIT_CONFIG_GLOBAL", "/dev/null");
    assert!(command.status().unwrap().success());
    assert_eq!(git(&clone, &["rev-parse", "HEAD"]), git(&a.path, &["rev-parse", "main"]));
    if supports_bundle_uri() {
        // Git leaves them where it has used one.
        let refs = ["for-each-ref", "--format=%(refname)", "refs/bundles"];
        assert_eq!(git(&clone, &refs), "refs/bundles/main");
    }
    // What is served of it, by its name alone.
    let advertised = git(&a.path, &["config", "--file", "config", "bundle.whole.uri"]);
    let file = advertised.strip_prefix("./bundles/").unwrap();
    let (_, length) = bundle::open(&a, file).unwrap().unwrap();
    assert_eq!(length, a.path.join("bundles").join(file).metadata().unwrap().len());
    for hostile in ["", "..", "../HEAD", "part", ".bundle", "x.bundle", "1/2.bundle", "1.bundle"] {
        assert!(bundle::open(&a, hostile).unwrap().is_none(), "{hostile:?}");
    }
    let link = a.path.join("bundles/7.bundle");
    symlink(a.path.join("HEAD"), link).unwrap();
    assert!(bundle::open(&a, "7.bundle").is_err());
    // Old ones go, but the one that somebody may just have been told of.
    keeper.collect(&a.name).await.unwrap();
    keeper.collect(&a.name).await.unwrap();
    let kept = a.path.join("bundles").read_dir().unwrap().count();
    assert_eq!(kept, 2);
}

/// What mirrors are bounded by and lists show: two bundles are not less than the rest.
#[tokio::test]
async fn bundles_do_not_count() {
    let here = Fixture::new();
    here.create(&["a"]);
    let a = here.all.find(&name("a")).unwrap();
    here.push(&a, 5);
    let (without, _) = here.keeper(|_| {});
    let before = without.collect(&a.name).await.unwrap().after;
    let (with, _) = here.keeper(|config| config.bundles = true);
    with.collect(&a.name).await.unwrap();
    with.collect(&a.name).await.unwrap();
    assert_eq!(bundles(&a), (2, true));
    // The lines that advertise one are in the repository's configuration.
    let after = a.measure().unwrap();
    assert!(after < before + 500, "{before} {after}");
}

/// The names of a repository's bundles, and whether one is advertised.
fn bundles(repository: &Repository) -> (usize, bool) {
    let entries = repository.path.join("bundles").read_dir().into_iter().flatten();
    let config = fs::read_to_string(repository.path.join("config")).unwrap();
    (entries.count(), config.contains("bundle"))
}

#[tokio::test]
async fn a_bundle_goes_with_what_it_has() {
    let here = Fixture::new();
    here.create(&["a"]);
    let a = here.all.find(&name("a")).unwrap();
    let work = here.push(&a, 2);
    let there = a.path.to_str().unwrap();
    let push = |what: &str| git(&work, &["push", "-q", "--force", there, what]);
    let secret = |branch: &str, text: &str| {
        git(&work, &["checkout", "-q", "--detach", "main"]);
        git(&work, &["commit", "-q", "--allow-empty", "-m", text]);
        push(&format!("HEAD:refs/heads/{branch}"));
        git(&work, &["checkout", "-q", "main"]);
    };
    git(&work, &["tag", "-m", "secret", "v1"]);
    for pushed in ["main:refs/heads/merged", "v1"] {
        push(pushed);
    }
    secret("topic", "one");
    // Also where nothing is collected.
    let (keeper, _) = here.keeper(|config| (config.bundles, config.automatic) = (true, false));
    keeper.collect(&a.name).await.unwrap();
    assert_eq!(bundles(&a), (1, true));
    // What is elsewhere as well is no loss.
    git(&work, &["commit", "-q", "--allow-empty", "-m", "more"]);
    push("main");
    push(":refs/heads/merged");
    keeper.look_after_all().await;
    assert_eq!(bundles(&a), (1, true));
    for lost in [":refs/heads/topic", ":refs/tags/v1"] {
        push(lost);
        keeper.look_after_all().await;
        assert_eq!(bundles(&a), (0, false), "{lost}");
        keeper.collect(&a.name).await.unwrap();
        assert_eq!(bundles(&a), (1, true));
    }
    secret("forced", "two");
    keeper.collect(&a.name).await.unwrap();
    secret("forced", "three");
    // The one before goes as well when a new one is written.
    keeper.collect(&a.name).await.unwrap();
    assert_eq!(bundles(&a), (1, true));
    secret("forced", "four");
    keeper.look_after_all().await;
    assert_eq!(bundles(&a), (0, false));
}

#[tokio::test]
async fn bundles_that_are_switched_off_are_taken_away() {
    let here = Fixture::new();
    here.create(&["a"]);
    let a = here.all.find(&name("a")).unwrap();
    here.push(&a, 1);
    for collects in [true, false] {
        let (with, _) = here.keeper(|config| config.bundles = true);
        with.collect(&a.name).await.unwrap();
        assert_eq!(bundles(&a), (1, true));
        let (without, _) = here.keeper(|config| config.automatic = false);
        match collects {
            true => drop(without.collect(&a.name).await.unwrap()),
            false => without.look_after_all().await,
        }
        assert_eq!(bundles(&a), (0, false));
        assert!(!a.path.join("bundles").exists());
        assert_eq!(git(&a.path, &["config", "core.bare"]), "true", "the rest stays");
    }
}

/// Lets a file, or a folder with all that is in it, be so many days old.
fn age(path: &Path, days: u64) {
    if path.is_dir() {
        path.read_dir().unwrap().for_each(|entry| age(&entry.unwrap().path(), days));
    }
    let moment = SystemTime::now() - Duration::from_secs(days * 24 * 60 * 60);
    File::open(path).unwrap().set_modified(moment).unwrap();
}

fn has(repository: &Repository, object: &str) -> bool {
    let mut command = Command::new("git");
    command.current_dir(&repository.path).args(["cat-file", "-e", object]);
    command.stderr(Stdio::null()).status().unwrap().success()
}

#[tokio::test]
async fn what_nothing_leads_to_goes_without_any_command() {
    let here = Fixture::new();
    here.create(&["a", "packed"]);
    for text in ["a", "packed"] {
        let it = here.all.find(&name(text)).unwrap();
        if text == "packed" {
            git(&it.path, &["config", "receive.unpackLimit", "1"]);
        }
        let work = here.push(&it, 1);
        let lost = git(&work, &["rev-parse", "main"]);
        git(&work, &["commit", "-q", "--amend", "-m", "another"]);
        git(&work, &["push", "-q", "--force", it.path.to_str().unwrap(), "main"]);
        let (keeper, _) = here.keeper(|_| {});
        let collected = it.path.join("alknet.collected");
        let look = async |keeper: &Keeper, days: u64| {
            age(&collected, days);
            keeper.look_after_all().await;
            has(&it, &lost)
        };
        keeper.look_after_all().await;
        age(&it.path.join("objects"), 15);
        assert!(look(&keeper, 6).await, "it is no week yet");
        let (manual, _) = here.keeper(|config| config.automatic = false);
        assert!(look(&manual, 8).await, "it is not wanted");
        git(&it.path, &["rev-parse", "main"]);
        // A push was heard of.
        here.all.touched(&it);
        assert!(!look(&keeper, 8).await);
        git(&it.path, &["fsck", "--strict", "--connectivity-only"]);
        assert!(collected.metadata().unwrap().modified().unwrap().elapsed().unwrap() < LONG);
        fs::remove_dir_all(&work).unwrap();
    }
}

#[test]
fn a_whole_collection_is_due_while_there_is_something_for_it() {
    let here = Fixture::new();
    here.create(&["a"]);
    let path = here.all.find(&name("a")).unwrap().path;
    let due = || is_whole_due(&path).unwrap();
    assert!(!due(), "a week begins");
    let (objects, collected) = (path.join("objects"), path.join("alknet.collected"));
    let rest = || {
        age(&objects, 20);
        age(&collected, 8);
    };
    rest();
    assert!(!due(), "nothing has changed");
    age(&objects, 1);
    assert!(due(), "there are new packs");
    age(&collected, 6);
    assert!(!due(), "it is no week");
    rest();
    let updated = path.join("alknet.updated");
    fs::write(&updated, "").unwrap();
    assert!(due(), "a ref has changed");
    age(&updated, 9);
    assert!(!due());
    for left in ["pack/pack-1.mtimes", "17/x"] {
        let left = objects.join(left);
        fs::create_dir_all(left.parent().unwrap()).unwrap();
        fs::write(&left, "").unwrap();
        rest();
        assert!(due(), "it waits for its time to go: {left:?}");
        fs::remove_file(left).unwrap();
        rest();
        assert!(!due());
    }
}

fn supports_bundle_uri() -> bool {
    let version = git(Path::new("/"), &["version"]);
    let mut numbers = version.split_whitespace().nth(2).unwrap().split('.');
    let mut number = || numbers.next().unwrap().parse::<u32>().unwrap();
    (number(), number()) >= (2, 40)
}
