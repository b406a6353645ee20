//! Uploads that are whole or nothing, and quotas.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
};

use alknet_sftp::Export;

use crate::client::{
    APPEND, CREATE, Client, DENIED, EXCLUDE, FAILURE, OK, READ, TRUNCATE, WRITE, fields, packet,
};

const NEW: u32 = WRITE | CREATE | TRUNCATE;

fn atomic() -> (tempfile::TempDir, Export) {
    let dir = tempfile::tempdir().unwrap();
    let export = Export::new("e", dir.path()).unwrap().with_atomic_uploads();
    (dir, export)
}

fn names(dir: &tempfile::TempDir) -> Vec<String> {
    let name = |it: std::io::Result<fs::DirEntry>| it.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<String> = fs::read_dir(dir.path()).unwrap().map(name).collect();
    names.sort();
    names
}

#[tokio::test]
async fn an_upload_has_its_name_when_it_is_whole() {
    let (dir, export) = atomic();
    fs::write(dir.path().join("f"), "before").unwrap();
    fs::set_permissions(dir.path().join("f"), fs::Permissions::from_mode(0o604)).unwrap();
    let mut client = Client::exports(&[export]).await;
    let file = client.opened("e/f", NEW).await;
    assert_eq!(client.write(&file, 0, b"after").await.status(), OK);
    assert_eq!(client.content("e/f").await.unwrap(), b"before");
    assert_eq!(client.extended("fsync@openssh.com", fields().text(&file)).await.status(), OK);
    assert_eq!(client.close(&file).await.status(), OK);
    assert_eq!(client.content("e/f").await.unwrap(), b"after");
    assert_eq!(fs::metadata(dir.path().join("f")).unwrap().mode() & 0o777, 0o604);
    // A new one, and one that nobody may have made meanwhile.
    let new = client.opened("e/new", WRITE | CREATE).await;
    assert_eq!(names(&dir), ["f"]);
    assert_eq!(client.close(&new).await.status(), OK);
    let mine = client.opened("e/mine", WRITE | CREATE | EXCLUDE).await;
    fs::write(dir.path().join("mine"), "theirs").unwrap();
    assert_eq!(client.close(&mine).await.status(), FAILURE);
    assert_eq!(client.content("e/mine").await.unwrap(), b"theirs");
    assert_eq!(client.open("e/mine", WRITE | CREATE | EXCLUDE).await.status(), FAILURE);
    assert_eq!(names(&dir), ["f", "mine", "new"]);
}

#[tokio::test]
async fn to_go_on_with_a_file_changes_it_in_place() {
    let (dir, export) = atomic();
    fs::write(dir.path().join("f"), "half").unwrap();
    let mut client = Client::exports(&[export]).await;
    let file = client.opened("e/f", WRITE | CREATE | APPEND).await;
    assert_eq!(client.write(&file, 4, b" and half").await.status(), OK);
    assert_eq!(client.content("e/f").await.unwrap(), b"half and half");
    client.vanish().await;
    assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"half and half");
}

#[tokio::test]
async fn an_upload_that_is_broken_off_leaves_nothing() {
    let (dir, export) = atomic();
    fs::write(dir.path().join("f"), "before").unwrap();
    for ending in 0..3 {
        let mut client = Client::exports(std::slice::from_ref(&export)).await;
        for name in ["e/f", "e/new"] {
            let file = client.opened(name, NEW).await;
            assert_eq!(client.write(&file, 0, b"part").await.status(), OK);
        }
        match ending {
            0 => client.vanish().await,
            1 => client.end().await.unwrap(),
            _ => client.abort().await,
        }
        assert_eq!(names(&dir), ["f"]);
        assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"before");
    }
}

#[tokio::test]
async fn links_folders_and_what_is_write_protected_are_not_replaced() {
    let (dir, export) = atomic();
    fs::write(dir.path().join("target"), "before").unwrap();
    symlink("target", dir.path().join("link")).unwrap();
    fs::create_dir(dir.path().join("folder")).unwrap();
    let mut client = Client::exports(&[export]).await;
    assert_eq!(client.open("e/link", NEW).await.status(), FAILURE);
    assert_eq!(client.open("e/folder", NEW).await.status(), FAILURE);
    assert_eq!(names(&dir), ["folder", "link", "target"]);
}

#[tokio::test]
async fn a_quota_is_kept_and_what_did_not_fit_leaves_no_half_file() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("old"), [0; 400]).unwrap();
    let export = Export::new("e", dir.path()).unwrap().with_quota(1000).with_atomic_uploads();
    let mut client = Client::exports(&[export]).await;
    let file = client.opened("e/f", NEW).await;
    assert_eq!(client.write(&file, 0, &[1; 500]).await.status(), OK);
    let full = client.write(&file, 500, &[1; 101]).await;
    assert_eq!((full.status(), full.message().as_str()), (FAILURE, "quota of 1000 bytes exceeded"));
    let closed = client.close(&file).await;
    assert_eq!(closed.status(), FAILURE);
    assert!(closed.message().contains("quota of 1000 bytes exceeded"));
    assert_eq!(names(&dir), ["old"]);
    // What was dropped takes no room; to write over it takes none either.
    let file = client.opened("e/f", NEW).await;
    assert_eq!(client.write(&file, 0, &[1; 600]).await.status(), OK);
    assert_eq!(client.write(&file, 100, &[2; 500]).await.status(), OK);
    assert_eq!(client.close(&file).await.status(), OK);
    // Nor is there another way around it.
    let file = client.opened("e/f", WRITE).await;
    assert_eq!(client.write(&file, 600, b"x").await.status(), FAILURE);
    assert_eq!(client.write(&file, 1 << 40, b"x").await.status(), FAILURE);
    for (kind, name) in [(10, &file[..]), (9, b"e/f")] {
        let size = fields().text(name).u32(1).u64(601);
        assert_eq!(client.ask(kind, size).await.status(), FAILURE, "{kind}");
    }
    let from = client.opened("e/old", READ).await;
    let copy = fields().text(&from).u64(0).u64(0).text(&file).u64(600);
    assert_eq!(client.extended("copy-data", copy).await.message(), "quota of 1000 bytes exceeded");
    // Removing gives room, when it is no longer open.
    client.close(&from).await;
    assert_eq!(client.ask(13, fields().text("e/old")).await.status(), OK);
    assert_eq!(client.write(&file, 600, &[3; 400]).await.status(), OK);
    let space = client.extended("statvfs@openssh.com", fields().text("e")).await;
    assert_eq!(space.kind, 201);
}

#[tokio::test]
async fn sessions_count_together() {
    let dir = tempfile::tempdir().unwrap();
    let export = Export::new("e", dir.path()).unwrap().with_quota(100);
    let mut one = Client::exports(std::slice::from_ref(&export)).await;
    let mut two = Client::exports(&[export]).await;
    let a = one.opened("e/a", NEW).await;
    let b = two.opened("e/b", NEW).await;
    assert_eq!(one.write(&a, 0, &[0; 60]).await.status(), OK);
    assert_eq!(two.write(&b, 0, &[0; 60]).await.status(), FAILURE);
    one.close(&a).await;
    assert_eq!(one.ask(13, fields().text("e/a")).await.status(), OK);
    let truncated = one.opened("e/c", NEW).await;
    assert_eq!(one.write(&truncated, 0, &[0; 40]).await.status(), OK);
    let again = one.opened("e/c", NEW).await;
    assert_eq!(two.write(&b, 0, &[0; 60]).await.status(), OK);
    one.close(&again).await;
}

/// A file system of 64 KiB, which takes root to make. Whoever is not root has the same path
/// taken by quotas.
fn small_disk() -> Option<(tempfile::TempDir, Unmount)> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
        .arg(dir.path())
        .status()
        .unwrap();
    assert!(mounted.success());
    let unmount = Unmount(dir.path().to_owned());
    Some((dir, unmount))
}

#[tokio::test]
async fn a_full_disk_is_told_and_the_upload_is_dropped() {
    let Some((dir, _unmount)) = small_disk() else { return };
    for atomic in [true, false] {
        let export = Export::new("e", dir.path()).unwrap();
        let export = if atomic { export.with_atomic_uploads() } else { export };
        let mut client = Client::exports(&[export]).await;
        let file = client.opened("e/f", NEW).await;
        let full = client.write(&file, 0, &vec![1; 200_000]).await;
        let message = "No space left on device";
        assert_eq!((full.status(), full.message().as_str()), (FAILURE, message));
        let closed = client.close(&file).await;
        assert!(closed.message().contains(message), "{}", closed.message());
        assert!(names(&dir).is_empty());
        client.end().await.unwrap();
    }
    // In an account of their own people find what OpenSSH's server would leave.
    let mut client = Client::account(dir.path()).await;
    let file = client.opened("f", NEW).await;
    assert_eq!(client.write(&file, 0, &[1; 5]).await.status(), OK);
    assert_eq!(client.write(&file, 5, &vec![1; 200_000]).await.status(), FAILURE);
    assert_eq!(client.close(&file).await.status(), OK);
    assert_eq!(names(&dir), ["f"]);
    client.end().await.unwrap();
}

/// What an upload made and could not make whole goes; what was there before, or is not its own
/// any more, stays.
#[tokio::test]
async fn without_atomic_uploads_a_quota_leaves_no_half_file_of_its_own_making() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("old"), "half").unwrap();
    let export = Export::new("e", dir.path()).unwrap().with_quota(100);
    let mut client = Client::exports(std::slice::from_ref(&export)).await;
    let full = async |client: &mut Client, path: &str, flags: u32| {
        let file = client.opened(path, flags).await;
        assert_eq!(client.write(&file, 0, &[1; 50]).await.status(), OK);
        assert_eq!(client.write(&file, 50, &[1; 51]).await.status(), FAILURE);
        file
    };
    for flags in [NEW, WRITE | CREATE, WRITE | CREATE | EXCLUDE] {
        let file = full(&mut client, "e/f", flags).await;
        // Later pieces may be small enough.
        assert_eq!(client.write(&file, 60, b"x").await.status(), OK);
        let closed = client.close(&file).await;
        assert_eq!(closed.status(), FAILURE);
        assert_eq!(
            closed.message(),
            "the upload is not whole and was removed: quota of 100 bytes exceeded"
        );
        assert_eq!(names(&dir), ["old"]);
    }
    // To resume goes on with what was there, and to write over it keeps what fitted.
    for flags in [WRITE, WRITE | CREATE, NEW] {
        fs::write(dir.path().join("old"), "half").unwrap();
        let anew = Export::new("e", dir.path()).unwrap().with_quota(100);
        let mut client = Client::exports(&[anew]).await;
        let file = full(&mut client, "e/old", flags).await;
        assert_eq!(client.close(&file).await.status(), OK);
        assert_eq!(fs::read(dir.path().join("old")).unwrap(), [1; 50]);
    }
    fs::remove_file(dir.path().join("old")).unwrap();
    // Nor does it take what somebody else has put there, or still writes to.
    let anew = Export::new("e", dir.path()).unwrap().with_quota(100);
    let mut client = Client::exports(std::slice::from_ref(&anew)).await;
    let file = full(&mut client, "e/f", NEW).await;
    fs::rename(dir.path().join("f"), dir.path().join("moved")).unwrap();
    fs::write(dir.path().join("f"), "").unwrap();
    assert_eq!(client.close(&file).await.status(), OK);
    assert_eq!(names(&dir), ["f", "moved"]);
    for name in names(&dir) {
        assert_eq!(client.ask(13, fields().text(format!("e/{name}"))).await.status(), OK);
    }
    let file = full(&mut client, "e/f", NEW).await;
    let again = client.opened("e/f", WRITE).await;
    assert_eq!(client.close(&file).await.status(), OK);
    assert_eq!(client.close(&again).await.status(), OK);
    assert_eq!(client.ask(13, fields().text("e/f")).await.status(), OK);
    // The end of the session closes it too.
    full(&mut client, "e/f", NEW).await;
    client.end().await.unwrap();
    assert!(names(&dir).is_empty());
}

/// What is not written yet has its room already: it can be filled without growing.
#[tokio::test]
async fn a_hole_takes_room() {
    let dir = tempfile::tempdir().unwrap();
    let export = Export::new("e", dir.path()).unwrap().with_quota(100);
    let mut client = Client::exports(&[export]).await;
    let file = client.opened("e/f", NEW).await;
    assert_eq!(client.write(&file, 89, b"x").await.status(), OK);
    let more = client.opened("e/g", NEW).await;
    assert_eq!(client.write(&more, 0, &[0; 11]).await.status(), FAILURE);
    assert_eq!(client.write(&more, 0, &[0; 10]).await.status(), OK);
}

/// Another name takes no room, and gives none; the file counts until its last name is gone.
#[tokio::test]
async fn a_file_with_several_names_counts_once() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(dir.path().join("f"), [0; 60]).unwrap();
    let export = Export::new("e", dir.path()).unwrap().with_quota(100);
    let free = Export::new("free", other.path()).unwrap();
    let mut client = Client::exports(&[export, free.clone()]).await;
    let names = |from: &str, to: &str| fields().text(from).text(to);
    for name in ["e/a", "e/b", "e/c"] {
        let linked = client.extended("hardlink@openssh.com", names("e/f", name)).await;
        assert_eq!(linked.status(), OK);
    }
    // A count that is made now has it once.
    let anew = Export::new("e", dir.path()).unwrap().with_quota(100);
    let mut client = Client::exports(&[anew, free]).await;
    let file = client.opened("e/new", NEW).await;
    assert_eq!(client.write(&file, 0, &[0; 40]).await.status(), OK);
    for name in ["e/a", "e/b", "e/c"] {
        assert_eq!(client.ask(13, fields().text(name)).await.status(), OK);
        assert_eq!(client.write(&file, 40, b"x").await.status(), FAILURE);
        let linked = client.extended("hardlink@openssh.com", names("e/f", name)).await;
        assert_eq!(linked.status(), OK);
    }
    // With one name here and one elsewhere nobody could tell which is the last.
    let linked = client.extended("hardlink@openssh.com", names("e/f", "free/f")).await;
    assert_eq!(linked.status(), FAILURE);
    let message = "e has a quota: a file with several names is in one export alone";
    assert_eq!(linked.message(), message);
    assert_eq!(client.ask(18, names("e/f", "free/f")).await.message(), message);
    for name in ["e/a", "e/b", "e/c"] {
        assert_eq!(client.ask(13, fields().text(name)).await.status(), OK);
    }
    assert_eq!(client.ask(18, names("e/f", "free/f")).await.status(), OK);
    assert_eq!(client.write(&file, 40, &[0; 60]).await.status(), OK);
    assert_eq!(client.write(&file, 100, b"x").await.status(), FAILURE);
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Writes that a client has sent before it vanished do not make a whole of a part.
#[tokio::test]
async fn a_close_that_was_never_reached_commits_nothing() {
    let (dir, export) = atomic();
    let mut client = Client::exports(&[export]).await;
    let file = client.opened("e/f", NEW).await;
    let mut bytes = packet(6, 1, fields().text(&file).u64(0).text("x"));
    let close = packet(4, 2, fields().text(&file));
    bytes.extend(&close[..close.len() - 1]);
    client.send(&bytes).await;
    client.vanish().await;
    assert!(names(&dir).is_empty());
    let _ = DENIED;
}

#[tokio::test]
async fn what_is_open_counts_when_its_name_is_gone() {
    for atomic in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let export = Export::new("e", dir.path()).unwrap().with_quota(100);
        let export = if atomic { export.with_atomic_uploads() } else { export };
        let mut client = Client::exports(&[export]).await;
        let mut keep = client.opened("e/f", NEW).await;
        assert_eq!(client.write(&keep, 0, &[0; 100]).await.status(), OK);
        if atomic {
            client.close(&keep).await;
            keep = client.opened("e/f", READ).await;
        }
        assert_eq!(client.ask(13, fields().text("e/f")).await.status(), OK);
        let more = client.opened("e/g", NEW).await;
        assert_eq!(client.write(&more, 0, b"x").await.status(), FAILURE);
        client.close(&more).await;
        client.close(&keep).await;
        let more = client.opened("e/g", NEW).await;
        assert_eq!(client.write(&more, 0, &[0; 100]).await.status(), OK, "{atomic}");
        // To replace it by an empty one gives its room back.
        client.close(&more).await;
        let new = client.opened("e/new", NEW).await;
        client.close(&new).await;
        let names = fields().text("e/new").text("e/g");
        let moved = client.extended("posix-rename@openssh.com", names).await;
        assert_eq!(moved.status(), OK);
        let more = client.opened("e/h", NEW).await;
        assert_eq!(client.write(&more, 0, &[0; 100]).await.status(), OK, "{atomic}");
    }
}

#[tokio::test]
async fn an_upload_that_comes_to_nothing_gives_its_room_back() {
    let dir = tempfile::tempdir().unwrap();
    let export = Export::new("e", dir.path()).unwrap().with_quota(100).with_atomic_uploads();
    let mut client = Client::exports(&[export]).await;
    let file = client.opened("e/f", WRITE | CREATE | EXCLUDE).await;
    assert_eq!(client.write(&file, 0, &[0; 80]).await.status(), OK);
    fs::write(dir.path().join("f"), "").unwrap();
    assert_eq!(client.close(&file).await.status(), FAILURE);
    let file = client.opened("e/g", NEW).await;
    assert_eq!(client.write(&file, 0, &[0; 100]).await.status(), OK);
}

/// No client makes what cannot be counted: then nobody could write any more.
#[tokio::test]
async fn an_export_with_a_quota_stays_countable() {
    let dir = tempfile::tempdir().unwrap();
    let export = Export::new("e", dir.path()).unwrap().with_quota(100);
    let mut client = Client::exports(std::slice::from_ref(&export)).await;
    let (mut path, mut made) = (String::from("e"), 0);
    loop {
        path.push_str("/d");
        let answer = client.ask(14, fields().text(&path).u32(0)).await;
        if answer.status() != OK {
            assert_eq!(answer.message(), "folders here do not go that deep");
            break;
        }
        made += 1;
        assert!(made < 200);
    }
    // Nor by a link, and not by moving one that has others in it.
    let deep = format!("e{}", "/d".repeat(made));
    assert_eq!(client.ask(20, fields().text(&deep[2..]).text("e/l")).await.status(), OK);
    assert_eq!(client.ask(14, fields().text("e/l/x").u32(0)).await.status(), FAILURE);
    for path in ["e/x", "e/x/y"] {
        assert_eq!(client.ask(14, fields().text(path).u32(0)).await.status(), OK);
    }
    let above = format!("e{}/x", "/d".repeat(made - 1));
    assert_eq!(client.ask(18, fields().text("e/x").text(&above)).await.status(), FAILURE);
    assert_eq!(client.ask(18, fields().text("e/x/y").text(&above)).await.status(), OK);
    assert_eq!(client.ask(18, fields().text("e/x").text("e/z")).await.status(), OK);
    // What cannot be looked into cannot be counted either.
    assert_eq!(client.ask(14, fields().text("e/a").u32(4).u32(0)).await.status(), OK);
    assert_eq!(client.ask(9, fields().text("e/z").u32(4).u32(0)).await.status(), OK);
    for name in ["a", "z"] {
        assert_eq!(fs::metadata(dir.path().join(name)).unwrap().mode() & 0o777, 0o700);
    }
    let anew = Export::new("e", dir.path()).unwrap().with_quota(100);
    let mut client = Client::exports(&[anew]).await;
    let file = client.opened("e/f", NEW).await;
    assert_eq!(client.write(&file, 0, b"x").await.status(), OK);
}

#[tokio::test]
async fn a_folder_is_not_moved_into_a_quota() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let free = Export::new("free", one.path()).unwrap();
    let tight = Export::new("tight", two.path()).unwrap().with_quota(100);
    fs::create_dir(one.path().join("d")).unwrap();
    fs::write(one.path().join("d/f"), [0; 101]).unwrap();
    fs::hard_link(one.path().join("d/f"), one.path().join("f")).unwrap();
    let mut client = Client::exports(&[free, tight]).await;
    for name in ["d", "f"] {
        let names = fields().text(format!("free/{name}")).text(format!("tight/{name}"));
        assert_eq!(client.ask(18, names).await.status(), FAILURE, "{name}");
    }
    assert!(names(&two).is_empty());
}

/// Somebody who may write here does not keep others from it by names that they foresee.
#[tokio::test]
async fn temporary_names_cannot_be_taken_beforehand() {
    let (dir, export) = atomic();
    for number in 0..1000 {
        let name = format!(".alknet-upload-{}-{number}", std::process::id());
        fs::write(dir.path().join(name), "").unwrap();
    }
    let mut client = Client::exports(&[export]).await;
    let file = client.opened("e/f", NEW).await;
    assert_eq!(client.close(&file).await.status(), OK);
}
