//! Requests on all files of an account, as OpenSSH's server does them.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, PermissionsExt as _, symlink},
    },
};

use alknet_sftp::Rules;

use crate::client::{
    APPEND, BAD_MESSAGE, CREATE, Client, DENIED, EOF, EXCLUDE, FAILURE, NO_SUCH_FILE, OK, READ,
    TRUNCATE, UNSUPPORTED, WRITE, fields, number, text,
};

const SIZE: u32 = 1;
const OWNER: u32 = 2;
const MODE: u32 = 4;
const TIMES: u32 = 8;

fn folder() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap();
    (dir, path)
}

#[tokio::test]
async fn extensions_are_announced() {
    let (_dir, path) = folder();
    let view = alknet_sftp::View::account(&path).unwrap();
    let mut client = Client::raw(alknet_sftp::Session::new(view, alknet_sftp::Shared::default()));
    client.send(&[0, 0, 0, 5, 1, 0, 0, 0, 6]).await;
    let hello = client.answer().await;
    assert_eq!((hello.kind, hello.id), (2, 3));
    let mut rest = &hello.body[..];
    let mut found = Vec::new();
    while !rest.is_empty() {
        let name = String::from_utf8(text(&mut rest)).unwrap();
        found.push(format!("{name} {}", String::from_utf8(text(&mut rest)).unwrap()));
    }
    assert_eq!(
        found,
        [
            "posix-rename@openssh.com 1",
            "statvfs@openssh.com 2",
            "fstatvfs@openssh.com 2",
            "hardlink@openssh.com 1",
            "fsync@openssh.com 1",
            "lsetstat@openssh.com 1",
            "limits@openssh.com 1",
            "expand-path@openssh.com 1",
            "copy-data 1",
            "home-directory 1",
            "users-groups-by-id@openssh.com 1",
        ]
    );
}

#[tokio::test]
async fn files_are_written_read_and_appended_to() {
    let (_dir, path) = folder();
    let mut client = Client::account(&path).await;
    let file = client.opened("f", READ | WRITE | CREATE | TRUNCATE).await;
    assert_eq!(client.write(&file, 5, b"world").await.status(), OK);
    assert_eq!(client.write(&file, 0, b"hello").await.status(), OK);
    assert_eq!(&client.read(&file, 0, 100).await.body[4..], b"helloworld");
    assert_eq!(client.read(&file, 10, 100).await.status(), EOF);
    assert_eq!(client.ask(8, fields().text(&file)).await.size_and_mode().0, 10);
    assert_eq!(client.extended("fsync@openssh.com", fields().text(&file)).await.status(), OK);
    assert_eq!(client.close(&file).await.status(), OK);
    let more = client.opened("f", WRITE | APPEND).await;
    // Where appending is concerned the offset says nothing.
    assert_eq!(client.write(&more, 0, b"!").await.status(), OK);
    client.close(&more).await;
    assert_eq!(client.content("f").await.unwrap(), b"helloworld!");
    assert_eq!(client.open("f", WRITE | CREATE | EXCLUDE).await.status(), FAILURE);
    assert_eq!(client.open("none", READ).await.status(), NO_SUCH_FILE);
    assert_eq!(client.open("f/x", READ).await.status(), NO_SUCH_FILE);
    assert_eq!(client.open(vec![b'x'; 300], WRITE | CREATE).await.status(), BAD_MESSAGE);
    assert_eq!(client.open(vec![b'/'; 100_000], READ).await.status(), BAD_MESSAGE);
    assert_eq!(client.open("f\0g", READ).await.status(), BAD_MESSAGE);
    assert_eq!(client.open("", READ).await.status(), NO_SUCH_FILE);
}

#[tokio::test]
async fn names_are_bytes() {
    let (_dir, path) = folder();
    let name = b"\xff\xfe caf\xe9 \n\x1b[2J";
    fs::write(path.join(OsStr::from_bytes(name)), "content").unwrap();
    let mut client = Client::account(&path).await;
    assert_eq!(client.list(".").await, [name]);
    assert_eq!(client.content(name).await.unwrap(), b"content");
    let to = b"\x80".to_vec();
    assert_eq!(client.ask(18, fields().text(name).text(&to)).await.status(), OK);
    assert_eq!(client.list(".").await, [&b"\x80"[..]]);
    assert_eq!(client.ask(20, fields().text(&to).text(b"\x81")).await.status(), OK);
    let target = client.ask(19, fields().text(b"\x81")).await;
    assert_eq!(target.names()[0].0, to);
    let real = client.ask(16, fields().text(b"\x81")).await;
    assert_eq!(real.names()[0].0, [path.as_os_str().as_bytes(), b"/\x80"].concat());
}

#[tokio::test]
async fn a_large_folder_is_listed_whole_with_lines_as_ls_has_them() {
    let (_dir, path) = folder();
    for n in 0..1000 {
        fs::write(path.join(format!("{n:04}-{}", "x".repeat(200))), "").unwrap();
    }
    let mut client = Client::account(&path).await;
    assert_eq!(client.list(path.as_os_str().as_bytes()).await.len(), 1000);
    fs::create_dir(path.join("small")).unwrap();
    fs::write(path.join("small/f"), "12345").unwrap();
    fs::set_permissions(path.join("small/f"), fs::Permissions::from_mode(0o640)).unwrap();
    let handle = Client::handle(&client.ask(11, fields().text("small")).await);
    let names = client.ask(12, fields().text(&handle)).await.names();
    let (_, long) = names.into_iter().find(|(name, _)| name == b"f").unwrap();
    let long = String::from_utf8(long).unwrap();
    let words: Vec<&str> = long.split_whitespace().collect();
    assert_eq!((words[0], words[1], words[4], words[8]), ("-rw-r-----", "1", "5", "f"));
    assert_eq!(long.find("    1 "), Some(10), "{long}");
    assert_eq!(client.ask(11, fields().text("small/f")).await.status(), NO_SUCH_FILE);
}

#[tokio::test]
async fn attributes_are_set_in_order_and_the_last_fault_counts() {
    let (_dir, path) = folder();
    fs::write(path.join("f"), "0123456789").unwrap();
    symlink("f", path.join("link")).unwrap();
    let mut client = Client::account(&path).await;
    let all = |name: &str, flags| {
        let mut all = fields().text(name).u32(flags);
        for (bit, value) in [
            (SIZE, fields().u64(4)),
            (MODE, fields().u32(0o100_604)),
            (TIMES, fields().u32(1000).u32(2000)),
        ] {
            if flags & bit != 0 {
                all.0.extend(value.0);
            }
        }
        all
    };
    assert_eq!(client.ask(9, all("link", SIZE | MODE | TIMES)).await.status(), OK);
    let found = fs::metadata(path.join("f")).unwrap();
    assert_eq!((found.len(), found.mode() & 0o7777), (4, 0o604));
    assert_eq!((found.atime(), found.mtime()), (1000, 2000));
    let nothing = fields().text("none").u32(MODE).u32(0o600);
    assert_eq!(client.ask(9, nothing).await.status(), NO_SUCH_FILE);
    // Of the link itself: its times, and no size.
    let lset = |flags| all("link", flags);
    assert_eq!(client.extended("lsetstat@openssh.com", lset(TIMES)).await.status(), OK);
    assert_eq!(fs::symlink_metadata(path.join("link")).unwrap().mtime(), 2000);
    assert_eq!(client.extended("lsetstat@openssh.com", lset(SIZE)).await.status(), BAD_MESSAGE);
    // Of an open file.
    let file = client.opened("f", WRITE).await;
    let set = fields().text(&file).u32(MODE).u32(0o700);
    assert_eq!(client.ask(10, set).await.status(), OK);
    assert_eq!(fs::metadata(path.join("f")).unwrap().mode() & 0o7777, 0o700);
    let owner = fields().text(&file).u32(OWNER).u32(found.uid()).u32(found.gid());
    assert_eq!(client.ask(10, owner).await.status(), OK);
}

#[tokio::test]
async fn names_change_as_openssh_has_it() {
    let (_dir, path) = folder();
    fs::write(path.join("a"), "a").unwrap();
    fs::write(path.join("b"), "b").unwrap();
    let mut client = Client::account(&path).await;
    let two = |a: &str, b: &str| fields().text(a).text(b);
    assert_eq!(client.ask(18, two("a", "b")).await.status(), FAILURE);
    assert_eq!(fs::read(path.join("b")).unwrap(), b"b");
    assert_eq!(client.ask(18, two("none", "c")).await.status(), NO_SUCH_FILE);
    assert_eq!(client.ask(18, two("a", "c")).await.status(), OK);
    assert_eq!(client.extended("posix-rename@openssh.com", two("c", "b")).await.status(), OK);
    assert_eq!(fs::read(path.join("b")).unwrap(), b"a");
    assert_eq!(client.extended("hardlink@openssh.com", two("b", "d")).await.status(), OK);
    assert_eq!(fs::metadata(path.join("d")).unwrap().nlink(), 2);
    // OpenSSH's order: the target first.
    assert_eq!(client.ask(20, two("target", "link")).await.status(), OK);
    assert_eq!(fs::read_link(path.join("link")).unwrap().to_str(), Some("target"));
    assert_eq!(client.ask(14, fields().text("dir").u32(MODE).u32(0o711)).await.status(), OK);
    assert_eq!(fs::metadata(path.join("dir")).unwrap().mode() & 0o777, 0o711);
    assert_eq!(client.ask(14, fields().text("dir").u32(0)).await.status(), FAILURE);
    assert_eq!(client.ask(13, fields().text("dir")).await.status(), FAILURE);
    assert_eq!(client.ask(15, fields().text("dir")).await.status(), OK);
    assert_eq!(client.ask(13, fields().text("link")).await.status(), OK);
    assert_eq!(client.ask(15, fields().text("d")).await.status(), NO_SUCH_FILE);
}

#[tokio::test]
async fn paths_are_told() {
    let (_dir, path) = folder();
    fs::create_dir_all(path.join("a/b")).unwrap();
    symlink("a/b", path.join("link")).unwrap();
    let mut client = Client::account(&path).await;
    let at = |more: &str| path.join(more).to_str().unwrap().to_owned();
    for (asked, told) in [("", ""), (".", ""), ("link", "a/b"), ("link/..", "a"), ("new", "new")] {
        let answer = client.ask(16, fields().text(asked)).await;
        assert_eq!(answer.path().trim_end_matches('/'), at(told).trim_end_matches('/'));
    }
    assert_eq!(client.ask(16, fields().text("new/x")).await.status(), NO_SUCH_FILE);
    let expand = "expand-path@openssh.com";
    assert_eq!(client.extended(expand, fields().text("~/a")).await.path(), at("a"));
    assert_eq!(client.extended(expand, fields().text("~")).await.path(), path.to_str().unwrap());
    let nobody = fields().text("~no-such-account/x");
    assert_eq!(client.extended(expand, nobody).await.status(), NO_SUCH_FILE);
    let me = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap();
    let home = me.dir.to_str().unwrap();
    assert_eq!(client.extended("home-directory", fields().text("")).await.path(), home);
    assert_eq!(client.extended("home-directory", fields().text(&me.name)).await.path(), home);
    let ids = fields().text(me.uid.as_raw().to_be_bytes()).text(me.gid.as_raw().to_be_bytes());
    let names = client.extended("users-groups-by-id@openssh.com", ids).await;
    let mut users = text(&mut &names.body[..]);
    assert_eq!(users.split_off(4), me.name.as_bytes());
}

#[tokio::test]
async fn limits_and_free_space_are_told() {
    let (_dir, path) = folder();
    let mut client = Client::account(&path).await;
    let limits = client.extended("limits@openssh.com", fields()).await;
    let values: Vec<u64> =
        limits.body.chunks(8).map(|it| u64::from_be_bytes(it.try_into().unwrap())).collect();
    assert_eq!(values, [262_144, 261_120, 261_120, 512]);
    let space = client.extended("statvfs@openssh.com", fields().text(".")).await;
    assert_eq!((space.kind, space.body.len()), (201, 88));
    let file = client.opened("f", WRITE | CREATE).await;
    let same = client.extended("fstatvfs@openssh.com", fields().text(&file)).await;
    assert_eq!(same.body[..16], space.body[..16]);
}

#[tokio::test]
async fn data_is_copied_from_file_to_file() {
    let (_dir, path) = folder();
    let content: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
    fs::write(path.join("from"), &content).unwrap();
    let mut client = Client::account(&path).await;
    let from = client.opened("from", READ).await;
    let to = client.opened("to", WRITE | CREATE).await;
    let copy = |offset, length| fields().text(&from).u64(offset).u64(length).text(&to).u64(offset);
    assert_eq!(client.extended("copy-data", copy(0, 1000)).await.status(), OK);
    assert_eq!(client.extended("copy-data", copy(1000, 0)).await.status(), OK);
    assert_eq!(fs::read(path.join("to")).unwrap(), content);
    // To a file that is appended to the kernel does not copy by itself.
    let end = client.opened("to", WRITE | APPEND).await;
    let append = fields().text(&from).u64(0).u64(0).text(&end).u64(0);
    assert_eq!(client.extended("copy-data", append).await.status(), OK);
    assert_eq!(fs::metadata(path.join("to")).unwrap().len(), 200_000);
    let other = client.opened("from", WRITE).await;
    let itself = fields().text(&from).u64(0).u64(0).text(&other).u64(0);
    assert_eq!(client.extended("copy-data", itself).await.status(), FAILURE);
}

#[tokio::test]
async fn a_named_pipe_holds_nobody_up() {
    let (_dir, path) = folder();
    nix::unistd::mkfifo(&path.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut client = Client::account(&path).await;
    assert_eq!(client.open("pipe", WRITE).await.status(), FAILURE);
    let handle = client.opened("pipe", READ).await;
    assert_ne!(client.read(&handle, 0, 10).await.status(), OK);
}

#[tokio::test]
async fn what_is_refused_is_neither_done_nor_announced() {
    let (_dir, path) = folder();
    fs::write(path.join("f"), "x").unwrap();
    let read_only = Rules { read_only: true, ..Rules::default() };
    let mut client = Client::account_with(&path, read_only).await;
    for flags in [WRITE, READ | CREATE, READ | TRUNCATE, WRITE | APPEND] {
        assert_eq!(client.open("f", flags).await.status(), DENIED);
    }
    assert_eq!(client.content("f").await.unwrap(), b"x");
    let changes = [
        (9, fields().text("f").u32(MODE).u32(0)),
        (13, fields().text("f")),
        (14, fields().text("d").u32(0)),
        (15, fields().text("d")),
        (18, fields().text("f").text("g")),
        (20, fields().text("f").text("g")),
    ];
    for (kind, request) in changes {
        assert_eq!(client.ask(kind, request).await.status(), DENIED, "{kind}");
    }
    for name in ["posix-rename@openssh.com", "hardlink@openssh.com"] {
        assert_eq!(client.extended(name, fields().text("f").text("g")).await.status(), DENIED);
    }
    assert_eq!(client.list(".").await, [b"f"]);

    let denied = Rules { denied: ["remove".into()].into(), ..Rules::default() };
    let mut client = Client::account_with(&path, denied).await;
    assert_eq!(client.ask(13, fields().text("f")).await.status(), DENIED);
    let allowed = Rules { allowed: Some(["stat".into()].into()), ..Rules::default() };
    let mut client = Client::account_with(&path, allowed).await;
    assert_eq!(client.ask(17, fields().text("f")).await.size_and_mode().0, 1);
    assert_eq!(client.ask(7, fields().text("f")).await.status(), DENIED);
    assert_eq!(client.open("f", READ).await.status(), DENIED);
    let unknown = client.ask(77, fields()).await;
    assert_eq!(unknown.status(), UNSUPPORTED);
    let _ = number(&mut &unknown.body[..]);
}
