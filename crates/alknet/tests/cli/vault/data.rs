//! Data under the vault's key.

use std::{fs, io::Write as _, os::unix::fs::PermissionsExt as _, path::PathBuf, process::Stdio};

use crate::machine::Machine;

/// Runs a command with bytes on stdin; its exit code and what it wrote.
fn run(machine: &Machine, args: &[&str], input: &[u8]) -> (Option<i32>, Vec<u8>) {
    let mut command = machine.command(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that refuses early does not read its input.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    (output.status.code(), output.stdout)
}

fn machine() -> Machine {
    let machine = Machine::new();
    machine.ok(&["id"]);
    machine
}

fn encrypted(machine: &Machine, name: &str, content: &[u8]) -> PathBuf {
    let path = machine.folder().join(name);
    let (code, out) = run(machine, &["vault", "encrypt", "--context", "test"], content);
    assert_eq!(code, Some(0));
    fs::write(&path, out).unwrap();
    path
}

fn decrypted(machine: &Machine, content: &[u8]) -> Option<Vec<u8>> {
    let (code, out) = run(machine, &["vault", "decrypt", "--context", "test"], content);
    assert!(code == Some(0) || out.is_empty());
    (code == Some(0)).then_some(out)
}

#[test]
fn data_comes_back_to_its_own_context_alone() {
    let machine = machine();
    let data: Vec<u8> = (0..100_000_u32).map(|i| i.to_le_bytes()[0]).collect();
    for form in [
        &["vault", "encrypt", "--context", "test"][..],
        &["vault", "encrypt", "--text", "--context", "test"],
    ] {
        let (code, out) = run(&machine, form, &data);
        assert_eq!(code, Some(0));
        assert_eq!(decrypted(&machine, &out).unwrap(), data);
        for other in [&["vault", "decrypt"][..], &["vault", "decrypt", "--context", "tes"]] {
            assert_eq!(run(&machine, other, &out), (Some(1), Vec::new()));
        }
        let mut changed = out.clone();
        let middle = changed.len() / 2;
        changed[middle] = if changed[middle] == b'A' { b'B' } else { b'A' };
        assert_eq!(decrypted(&machine, &changed), None);
        assert_eq!(decrypted(&machine, &out[..out.len() - 2]), None);
    }
    assert_eq!(decrypted(&machine, b"plain"), None);
}

#[test]
fn a_rotation_encrypts_files_anew_and_leaves_the_others_readable() {
    let machine = machine();
    let (one, two) = (encrypted(&machine, "one", b"1"), encrypted(&machine, "two", b"2"));
    fs::set_permissions(&one, fs::Permissions::from_mode(0o640)).unwrap();
    let before = (fs::read(&one).unwrap(), fs::read(&two).unwrap());
    let link = machine.folder().join("link");
    std::os::unix::fs::symlink(&one, &link).unwrap();
    let rotate = ["vault", "rotate", "--context", "test"];
    machine.ok(&[&rotate[..], &[link.to_str().unwrap()]].concat());
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_ne!(fs::read(&one).unwrap(), before.0);
    assert_eq!(fs::read(&two).unwrap(), before.1);
    assert_eq!(fs::metadata(&one).unwrap().permissions().mode() & 0o777, 0o640);
    for (content, plain) in [(&before.0, b"1"), (&before.1, b"2")] {
        assert_eq!(decrypted(&machine, content).unwrap(), plain);
    }
    assert_eq!(decrypted(&machine, &fs::read(&one).unwrap()).unwrap(), b"1");
    let finish = [&rotate[..], &["--finish", one.to_str().unwrap(), two.to_str().unwrap()]];
    let done = machine.run(&finish.concat());
    assert!(done.stderr.contains("data key 2; 1 files"), "{done:?}");
}

#[test]
fn a_file_that_cannot_be_decrypted_stops_a_rotation_before_it_begins() {
    let machine = machine();
    let good = encrypted(&machine, "good", b"1");
    let before = fs::read(&good).unwrap();
    let bad = machine.folder().join("bad");
    fs::write(&bad, b"plain").unwrap();
    let vault = fs::read(machine.home().join("vault")).unwrap();
    let files = [good.to_str().unwrap(), bad.to_str().unwrap()];
    for context in ["test", "other"] {
        machine.fails(1, &[&["vault", "rotate", "--context", context], &files[..]].concat());
        assert_eq!(fs::read(&good).unwrap(), before);
        assert_eq!(fs::read(machine.home().join("vault")).unwrap(), vault);
    }
}

#[test]
fn damaged_text_is_said_to_be_no_ciphertext() {
    let machine = machine();
    let text = machine.run_with_input(&["vault", "encrypt", "--text"], "x").stdout;
    let middle = text.len() / 2;
    for damaged in [format!(" {}*{}", &text[..middle], &text[middle..]), "akv:".into()] {
        let done = machine.run_with_input(&["vault", "decrypt"], &damaged);
        assert_eq!(done.code, Some(1));
        assert!(!done.stderr.contains("format"), "{done:?}");
    }
}

/// Of the group too: whoever could read a file goes on reading it.
#[test]
fn a_rotation_leaves_a_file_to_its_owner() {
    use std::os::unix::fs::{MetadataExt as _, chown};
    let machine = machine();
    let path = encrypted(&machine, "one", b"1");
    let mine = fs::metadata(&path).unwrap();
    // Others are root's to give away; a member of several groups chooses.
    let groups = nix::unistd::getgroups().unwrap();
    let group = groups.iter().map(|group| group.as_raw()).find(|group| *group != mine.gid());
    let root = mine.uid() == 0;
    let (uid, gid) = if root { (Some(12_345), Some(54_321)) } else { (None, group) };
    chown(&path, uid, gid).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let owner = |path: &PathBuf| {
        let it = fs::metadata(path).unwrap();
        (it.uid(), it.gid(), it.mode() & 0o7777)
    };
    let before = (owner(&path), fs::read(&path).unwrap());
    machine.ok(&["vault", "rotate", "--context", "test", path.to_str().unwrap()]);
    assert_eq!(owner(&path), before.0);
    assert_ne!(fs::read(&path).unwrap(), before.1);
}
