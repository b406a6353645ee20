//! Programs in places where git would look for hooks, and configuration that names programs.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// What git knows as hooks of a server (githooks(5)), and names that a shell or a careless
/// server would make something of.
const HOOKS: [&str; 14] = [
    "pre-receive",
    "update",
    "post-receive",
    "post-update",
    "proc-receive",
    "reference-transaction",
    "push-to-checkout",
    "pre-auto-gc",
    "fsmonitor-watchman",
    "--help",
    "-c",
    ";touch alknet-e2e-canary",
    "$(touch alknet-e2e-canary)",
    "pre-receive\n",
];

/// Writes programs that leave a mark beside `repos`.
fn programs(folder: &Path, mark: &Path, names: &[&str]) {
    fs::create_dir_all(folder).unwrap();
    for name in names {
        let program = folder.join(name);
        fs::write(&program, format!("#!/bin/sh\ntouch '{}'\n", mark.display())).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// A push and a fetch by an ordinary client.
#[track_caller]
fn use_it(rig: &Rig) {
    let work = rig.local.path().join("work");
    let push = ["push", "--quiet", &rig.url("notes"), "HEAD~1:refs/heads/another"];
    stdout(&output(&mut git(&work, &push)));
    let clone = TempDir::new_in(rig.local.path()).unwrap();
    let mut cloned = rig.git(&["clone", "--quiet", "--bare", &rig.url("notes")]);
    stdout(&output(cloned.arg(clone.path())));
    assert_eq!(tip(clone.path()), rig.tip);
}

#[test]
fn no_program_in_a_repository_is_run() {
    let rig = Rig::new();
    let (repository, mark) =
        (rig.home.path().join("repos/notes.git"), rig.local.path().join("mark"));
    programs(&repository.join("hooks"), &mark, &HOOKS);
    programs(&repository, &mark, &HOOKS[..6]);
    let (program, hooks) = (repository.join("hooks/update"), repository.join("hooks"));
    for (key, value) in [
        ("core.hooksPath", hooks.as_path()),
        ("core.fsmonitor", &program),
        ("core.sshCommand", &program),
        ("core.pager", &program),
        ("core.alternateRefsCommand", &program),
        ("uploadpack.packObjectsHook", &program),
        ("gpg.program", &program),
        ("gc.recentObjectsHook", &program),
    ] {
        stdout(&output(git(&repository, &["config", key]).arg(value)));
    }
    use_it(&rig);
    assert!(!mark.exists());
}

/// In the owner's folder the hooks are those of three names, and all else is a file.
#[test]
fn of_the_owners_folder_three_names_are_run() {
    let rig = Rig::new();
    let (folder, mark) = (rig.home.path().join("git-hooks"), rig.local.path().join("mark"));
    programs(&folder, &mark, &HOOKS[3..]);
    // Folders that names of repositories would lead to, if they could be such names.
    for inner in ["-", "--", "..\n", "notes.git", "NOTES", "$(touch x)"] {
        programs(&folder.join(inner), &mark, &HOOKS[..3]);
    }
    // Neither a folder nor a file that nobody can start is a hook.
    fs::create_dir(folder.join("pre-receive")).unwrap();
    fs::write(folder.join("post-receive"), "#!/bin/sh\nexit 1\n").unwrap();
    use_it(&rig);
    assert!(!mark.exists());
}

/// A hook sees names that pushers choose as data alone.
#[test]
fn a_hook_is_given_odd_names_as_they_are() {
    let rig = Rig::new();
    let (folder, seen) = (rig.home.path().join("git-hooks"), rig.local.path().join("seen"));
    fs::create_dir_all(&folder).unwrap();
    let update = folder.join("update");
    let script = format!("#!/bin/sh\nprintf '%s\\n' \"$#\" \"$1\" > '{}'\n", seen.display());
    fs::write(&update, script).unwrap();
    fs::set_permissions(&update, fs::Permissions::from_mode(0o755)).unwrap();
    let work = rig.local.path().join("work");
    for branch in ["$(touch alknet-e2e-canary)", ";touch\u{a0}x", "--help", "'a'\"b\"`c`"] {
        let reference = format!("refs/heads/{branch}").replace(' ', "\u{a0}");
        let target = format!("HEAD:{reference}");
        stdout(&output(&mut git(&work, &["push", "--quiet", &rig.url("notes"), &target])));
        assert_eq!(fs::read_to_string(&seen).unwrap(), format!("3\n{reference}\n"));
    }
    assert!(!rig.home.path().join("repos/notes.git").join(CANARY).exists());
}
