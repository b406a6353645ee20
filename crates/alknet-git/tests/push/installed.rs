//! Gits that are not what the node needs.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use alknet_git::{InstalledGit, Repositories, Settings, Setup, SetupError};

use crate::rig::{Rig, hook_program, refs, script, url};

/// A program of this text.
fn program(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("git");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn a_git_that_is_too_old_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::new(folder.path().join("run"), "/nonexistent/program");
    for said in ["git version 2.36.9", "git version 1.99", "something else", ""] {
        let git = InstalledGit::named(program(folder.path(), &format!("echo '{said}'")));
        let refused = git.set_up(&setup).unwrap_err();
        assert!(matches!(&refused, SetupError::Old { found } if found == said), "{refused:?}");
    }
    let none = InstalledGit::none().set_up(&setup);
    assert!(matches!(none, Err(SetupError::Run(_))));
    assert!(!setup.folder.exists());
    let new = InstalledGit::named(program(folder.path(), "echo git version 2.37.0"));
    new.set_up(&setup).unwrap();
}

#[tokio::test]
async fn a_node_whose_program_is_replaced_goes_on_with_the_one_that_it_runs() {
    let (rig, folder) = (Rig::new(), tempfile::tempdir().unwrap());
    let (node, repos) = (folder.path().join("node"), folder.path().join("repos"));
    fs::copy(hook_program(), &node).unwrap();
    let repositories = Repositories::open(&repos).unwrap();
    let name = "notes".parse().unwrap();
    let repository = repositories.create(&name, &Settings::default()).unwrap().path;
    let work = rig.work("anna").await;
    // Git runs it once it has heard of the node which refs there are.
    let replace = "rm NODE\nprintf '#!/bin/sh\\nexit 1' >NODE\nchmod +x NODE";
    let replace = replace.replace("NODE", node.to_str().unwrap());
    script(&work.path().join(".git/hooks/pre-push"), &replace, 0o755);
    let to = format!("ext::{} {} %G/notes", node.display(), repos.display());
    work.git(&["-c", "protocol.ext.allow=always", "push", &to, "main"]).await;
    assert!(fs::read_to_string(&node).unwrap().ends_with("exit 1"));
    let head = work.git(&["rev-parse", "main"]).await;
    assert_eq!(refs(&repository).await, format!("{head} refs/heads/main"));
}

#[tokio::test]
async fn what_guards_a_push_is_told_by_arguments() {
    let folder = tempfile::tempdir().unwrap();
    let forgets = "unset GIT_CONFIG_COUNT GIT_CONFIG_GLOBAL\nexec git \"$@\"";
    let git = InstalledGit::named(program(folder.path(), forgets));
    let mut rig = Rig::set_up(git, |_| (), |_| ());
    let repository = rig.make("notes", |_| ());
    let anna = rig.port("anna", &["git:write:notes:refs/heads/mine"]).await;
    let work = rig.work("anna").await;
    let refused = work.fails(&["push", &url(anna, "notes"), "main", "main:mine"]).await;
    assert!(refused.contains("main -> main (you may not push to this ref)"), "{refused}");
    let head = work.git(&["rev-parse", "main"]).await;
    assert_eq!(refs(&repository).await, format!("{head} refs/heads/mine"));
}

#[tokio::test]
async fn a_push_that_git_did_not_ask_about_is_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let deaf = "unset GIT_CONFIG_GLOBAL\nwhile [ \"$1\" = -c ]; do shift 2; done\nexec git \"$@\"";
    let git = InstalledGit::named(program(folder.path(), deaf));
    let mut rig = Rig::set_up(git, |_| (), |_| ());
    rig.make("notes", |_| ());
    let anna = rig.port("anna", &["git"]).await;
    let work = rig.work("anna").await;
    work.git(&["push", &url(anna, "notes"), "main"]).await;
    let head = work.git(&["rev-parse", "main"]).await;
    let entries = rig.log.wait("git-push").await;
    assert_eq!(entries[0].changes[0].name, "refs/heads/main");
    assert_eq!(entries[0].changes[0].new, head);
    // Nothing is done where nothing is asked for.
    work.git(&["push", &url(anna, "notes"), "main"]).await;
    assert_eq!(rig.log.all("git-push").len(), 1);
}
