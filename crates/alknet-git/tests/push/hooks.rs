//! The hooks of the node's owner.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use alknet_git::OwnerHooks;

use crate::rig::{Rig, disappears, packs, refs, script, url};

/// A server with a folder of hooks.
fn rig(deadline: Duration) -> (Rig, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let hooks = OwnerHooks::new(folder.path()).with_deadline(deadline);
    (Rig::with(|config| config.hooks = Some(hooks)), folder)
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn they_run_in_their_order_and_know_the_push() {
    let (mut rig, hooks) = rig(LONG);
    let repository = rig.make("team/notes", |_| ());
    let said = hooks.path().join("said");
    let note = |what: &str| {
        format!(
            "{{ echo \"{what} $*\"; [ {what} = update ] || cat; }} >>{}\necho {what} speaks",
            said.display()
        )
    };
    for (folder, mark) in [("", "all"), ("team/notes", "own")] {
        for name in ["pre-receive", "post-receive"] {
            let path = hooks.path().join(folder).join(name);
            script(&path, &note(&format!("{mark}-{name}")), 0o755);
        }
    }
    script(&hooks.path().join("update"), &note("update"), 0o755);
    script(
        &hooks.path().join("team/notes/update"),
        &format!("env | sort >{}; git cat-file -e $3", hooks.path().join("env").display()),
        0o755,
    );
    let anna = rig.port("anna", &["git"]).await;
    let (to, work) = (url(anna, "team/notes"), rig.work("anna").await);
    let pushed = work.run(&["push", "-o", "one", "-o", "two", &to, "main"]).await;
    let shown = String::from_utf8(pushed.stderr).unwrap();
    for name in ["all-pre-receive", "update", "own-post-receive"] {
        assert!(shown.contains(&format!("remote: {name} speaks")), "{shown}");
    }
    let head = work.git(&["rev-parse", "main"]).await;
    let (zeros, line) = ("0".repeat(40), format!("{} {head} refs/heads/main", "0".repeat(40)));
    let expected = [
        "all-pre-receive ",
        &line,
        "own-pre-receive ",
        &line,
        &format!("update refs/heads/main {zeros} {head}"),
        "all-post-receive ",
        &line,
        "own-post-receive ",
        &line,
    ];
    assert_eq!(fs::read_to_string(said).unwrap().lines().collect::<Vec<_>>(), expected);
    let environment = fs::read_to_string(hooks.path().join("env")).unwrap();
    for variable in [
        "ALKNET_REPOSITORY=team/notes",
        "ALKNET_IDENTITY=id-anna",
        "ALKNET_IDENTITY_NAME=anna",
        "GIT_PUSH_OPTION_COUNT=2",
        "GIT_PUSH_OPTION_1=two",
        &format!("GIT_DIR={}", repository.display()),
    ] {
        assert!(environment.lines().any(|line| line == variable), "{variable}: {environment}");
    }
    // Nothing of the node's own.
    assert!(!environment.contains("CARGO") && !environment.contains("ALKNET_PUSH"));
}

#[tokio::test]
async fn they_see_the_objects_and_refuse_all_or_one() {
    let (mut rig, hooks) = rig(LONG);
    let repository = rig.make("notes", |_| ());
    let pre = "while read old new ref; do
        test -n \"$GIT_QUARANTINE_PATH\" || exit 1
        git cat-file commit $new | grep -q forbidden && { echo not this; exit 1; }
        done; exit 0";
    script(&hooks.path().join("pre-receive"), pre, 0o755);
    let update = "case $1 in refs/heads/no*) echo never >&2; exit 1;; esac";
    script(&hooks.path().join("update"), update, 0o755);
    let anna = rig.port("anna", &["git"]).await;
    let (to, work) = (url(anna, "notes"), rig.work("anna").await);
    let refused = work.fails(&["push", &to, "main", "main:nothing"]).await;
    assert!(refused.contains("remote: never"), "{refused}");
    assert!(refused.contains("main -> nothing (a hook of the node's owner declined)"), "{refused}");
    let head = work.git(&["rev-parse", "main"]).await;
    assert_eq!(refs(&repository).await, format!("{head} refs/heads/main"));
    work.fails(&["push", "--atomic", &to, "main:a", "main:nothing"]).await;
    assert_eq!(refs(&repository).await, format!("{head} refs/heads/main"));

    work.commit("forbidden").await;
    let before = packs(&repository);
    let refused = work.fails(&["push", &to, "main"]).await;
    assert!(refused.contains("remote: not this"), "{refused}");
    assert_eq!(packs(&repository), before);
    assert_eq!(refs(&repository).await, format!("{head} refs/heads/main"));
}

#[tokio::test]
async fn one_that_takes_too_long_refuses_and_is_gone() {
    // Long enough to say who it is.
    let (mut rig, hooks) = rig(Duration::from_secs(5));
    let repository = rig.make("notes", |_| ());
    let alive = hooks.path().join("alive");
    let text = format!("echo $$ >{}; sleep 1000 & wait", alive.display());
    script(&hooks.path().join("pre-receive"), &text, 0o755);
    let anna = rig.port("anna", &["git"]).await;
    let work = rig.work("anna").await;
    let refused = work.fails(&["push", &url(anna, "notes"), "main"]).await;
    assert!(refused.contains("remote: a hook took too long"), "{refused}");
    assert_eq!(refs(&repository).await, "");
    let id = fs::read_to_string(alive).unwrap();
    disappears(&Path::new("/proc").join(id.trim())).await;
}

#[tokio::test]
async fn one_that_somebody_else_could_change_refuses() {
    type Spoil = fn(&Path) -> PathBuf;
    let spoils: [Spoil; 3] = [
        |hook| hook.to_owned(),
        |hook| hook.parent().unwrap().to_owned(),
        |hook| {
            let real = hook.with_file_name("elsewhere");
            fs::rename(hook, &real).unwrap();
            std::os::unix::fs::symlink(&real, hook).unwrap();
            real
        },
    ];
    let cases = ["pre-receive", "update"].into_iter().flat_map(|name| spoils.map(|it| (name, it)));
    for (nth, (name, spoil)) in cases.enumerate() {
        let (mut rig, hooks) = rig(LONG);
        let repository = rig.make("notes", |_| ());
        let ran = hooks.path().join("ran");
        let hook = hooks.path().join("notes").join(name);
        script(&hook, &format!("touch {}", ran.display()), 0o755);
        fs::set_permissions(spoil(&hook), fs::Permissions::from_mode(0o777)).unwrap();
        let anna = rig.port("anna", &["git"]).await;
        let work = rig.work("anna").await;
        let refused = work.fails(&["push", &url(anna, "notes"), "main"]).await;
        assert!(refused.contains("a hook of the node's owner cannot be run"), "{nth}: {refused}");
        assert!(!refused.contains(hooks.path().to_str().unwrap()), "{refused}");
        assert!(!ran.exists());
        assert_eq!(refs(&repository).await, "");
    }
}

#[tokio::test]
async fn no_other_file_is_ever_run() {
    let (mut rig, hooks) = rig(LONG);
    let repository = rig.make("notes", |_| ());
    let ran = hooks.path().join("ran");
    let text = format!("echo $0 >>{}", ran.display());
    let odd = [
        "pre-receive.sample",
        "pre-receive ",
        "-pre-receive",
        "post-update",
        "proc-receive",
        "reference-transaction",
        "push-to-checkout",
        "other/pre-receive",
        "notes/x/pre-receive",
    ];
    odd.iter().for_each(|name| script(&hooks.path().join(name), &text, 0o755));
    script(&hooks.path().join("notes/update"), &text, 0o644);
    fs::create_dir_all(hooks.path().join("notes/pre-receive")).unwrap();
    for name in ["pre-receive", "update", "post-receive", "post-update", "reference-transaction"] {
        script(&repository.join("hooks").join(name), &text, 0o755);
    }
    let config = fs::read_to_string(repository.join("config")).unwrap();
    let own = format!("{config}[core]\n\thooksPath = {}\n", repository.join("hooks").display());
    fs::write(repository.join("config"), own).unwrap();
    let anna = rig.port("anna", &["git"]).await;
    let work = rig.work("anna").await;
    work.git(&["push", &url(anna, "notes"), "main"]).await;
    assert!(!ran.exists(), "{}", fs::read_to_string(ran).unwrap_or_default());
}
