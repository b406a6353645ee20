//! Clients that try to leave an export.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use alknet_sftp::{Export, ExportError, Grant, Session, Shared, View};

use crate::client::{
    APPEND, CREATE, Client, DENIED, EXCLUDE, NO_SUCH_FILE, OK, READ, TRUNCATE, UNSUPPORTED, WRITE,
    fields,
};

const MODE: u32 = 4;
const SECRET: &str = "nobody may read this";

/// An export `e` beside a folder `outside` with a secret in it.
struct Rig {
    dir: tempfile::TempDir,
    export: Export,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("inside")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/secret"), SECRET).unwrap();
        let export = Export::new("e", &dir.path().join("inside")).unwrap();
        Self { dir, export }
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join(path)
    }

    fn outside_is_as_it_was(&self) {
        let names: Vec<_> =
            fs::read_dir(self.at("outside")).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(names, ["secret"]);
        assert_eq!(fs::read_to_string(self.at("outside/secret")).unwrap(), SECRET);
        assert_eq!(fs::metadata(self.at("outside/secret")).unwrap().nlink(), 1);
        assert_eq!(fs::metadata(self.at("outside/secret")).unwrap().mode() & 0o7777, 0o644);
    }
}

/// One folder as all that there is.
#[tokio::test]
async fn an_export_as_the_root_is_left_by_nobody() {
    let rig = Rig::new();
    fs::write(rig.at("inside/f"), "mine").unwrap();
    symlink("../outside/secret", rig.at("inside/out")).unwrap();
    symlink("/f", rig.at("inside/absolute")).unwrap();
    let grant = Grant::new(&rig.export, true, true).unwrap();
    let session = Session::new(View::root(grant), Shared::default());
    let mut client = Client::of(session).await;
    assert_eq!(client.list("/").await, [&b"absolute"[..], b"f", b"out"]);
    for path in ["f", "/f", "../../f", "/./x/../f"] {
        assert_eq!(client.content(path).await.unwrap(), b"mine", "{path}");
    }
    let outside = rig.at("outside/secret").to_str().unwrap().to_owned();
    for path in ["out", "absolute", "../outside/secret", &outside, "/etc/passwd", "/e/f"] {
        assert!(client.content(path).await.is_err(), "{path}");
    }
    assert_eq!(client.ask(16, fields().text("..")).await.path(), "/");
    assert_eq!(client.ask(14, fields().text("/new").u32(0)).await.status(), OK);
    for path in ["/", ".", ".."] {
        assert_eq!(client.ask(15, fields().text(path)).await.status(), DENIED, "{path}");
    }
    assert_eq!(client.ask(15, fields().text("/new")).await.status(), OK);
    assert_eq!(client.extended("home-directory", fields().text("")).await.path(), "/");
    rig.outside_is_as_it_was();
}

#[tokio::test]
async fn the_root_has_the_exports_and_nothing_can_be_done_to_it() {
    let rig = Rig::new();
    fs::write(rig.at("inside/f"), "x").unwrap();
    let mut client = Client::exports(std::slice::from_ref(&rig.export)).await;
    assert_eq!(client.list("/").await, [b"e"]);
    assert_eq!(client.list("../../..").await, [b"e"]);
    assert_eq!(client.list("e").await, [b"f"]);
    assert_eq!(client.ask(17, fields().text("/")).await.size_and_mode().1, 0o040_555);
    for path in ["f", "/etc/passwd", "/proc/self/environ", "../etc/passwd", "/e2"] {
        assert_eq!(client.content(path).await, Err(NO_SUCH_FILE), "{path}");
    }
    assert_eq!(client.ask(14, fields().text("/new").u32(0)).await.status(), NO_SUCH_FILE);
    for path in ["/", "/e", "/e/", "e/..", "e/.", "/e/f/.."] {
        for kind in [13, 15] {
            let answer = client.ask(kind, fields().text(path)).await;
            assert_eq!(answer.status(), DENIED, "{kind} {path}");
        }
        let renamed = client.ask(18, fields().text(path).text("/e/x")).await;
        assert_eq!(renamed.status(), DENIED);
    }
    assert_eq!(client.extended("home-directory", fields().text("")).await.path(), "/");
    assert_eq!(
        client.extended("home-directory", fields().text("root")).await.status(),
        NO_SUCH_FILE
    );
    let expand = "expand-path@openssh.com";
    assert_eq!(client.extended(expand, fields().text("~/e/f")).await.path(), "/e/f");
    assert_eq!(client.extended(expand, fields().text("~root")).await.status(), NO_SUCH_FILE);
    let names = fields().text([0; 4]).text([0; 4]);
    let names = client.extended("users-groups-by-id@openssh.com", names).await;
    assert_eq!(names.status(), UNSUPPORTED);
    for (path, real) in [("", "/"), ("..", "/"), ("/e/../../x", "/x"), ("e/a/../b", "/e/b")] {
        assert_eq!(client.ask(16, fields().text(path)).await.path(), real);
    }
}

/// Every request that takes a path, with ways out of the export in it.
#[tokio::test]
async fn no_request_leads_out() {
    let rig = Rig::new();
    symlink(rig.at("outside"), rig.at("inside/absolute")).unwrap();
    symlink("../outside", rig.at("inside/relative")).unwrap();
    symlink("../outside/secret", rig.at("inside/file")).unwrap();
    symlink("/proc/self/cwd", rig.at("inside/magic")).unwrap();
    symlink("relative", rig.at("inside/chain")).unwrap();
    symlink("../outside/new", rig.at("inside/dangling")).unwrap();
    fs::write(rig.at("inside/mine"), "mine").unwrap();
    let mut client = Client::exports(std::slice::from_ref(&rig.export)).await;
    let ways = [
        "e/absolute/secret",
        "e/relative/secret",
        "e/file",
        "e/chain/secret",
        "e/magic/secret",
        "e/dangling",
        "e/relative/new",
        "e/chain/../chain/secret",
    ];
    for path in ways {
        for flags in
            [READ, WRITE, WRITE | CREATE, WRITE | CREATE | TRUNCATE, WRITE | APPEND | CREATE]
        {
            let opened = client.open(path, flags).await;
            assert!([DENIED, NO_SUCH_FILE].contains(&opened.status()), "{path} {flags}");
        }
        for (kind, more) in [
            (17, fields()),
            (9, fields().u32(MODE).u32(0o777)),
            (9, fields().u32(1).u64(0)),
            (11, fields()),
        ] {
            let mut request = fields().text(path);
            request.0.extend(more.0);
            let status = client.ask(kind, request).await.status();
            assert!([DENIED, NO_SUCH_FILE].contains(&status), "{kind} {path}");
        }
        let space = client.extended("statvfs@openssh.com", fields().text(path)).await;
        assert!([DENIED, NO_SUCH_FILE].contains(&space.status()));
    }
    // What is done to a name, in folders that are not there.
    for folder in ["e/absolute", "e/relative", "e/chain", "e/magic"] {
        let inside = format!("{folder}/secret");
        let new = format!("{folder}/new");
        for (kind, request) in [
            (7, fields().text(&inside)),
            (13, fields().text(&inside)),
            (14, fields().text(&new).u32(0)),
            (15, fields().text(&inside)),
            (18, fields().text(&inside).text("e/stolen")),
            (18, fields().text("e/mine").text(&new)),
            (19, fields().text(&inside)),
            (20, fields().text("x").text(&new)),
        ] {
            let status = client.ask(kind, request).await.status();
            assert!([DENIED, NO_SUCH_FILE].contains(&status), "{kind} {folder}: {status}");
        }
        for name in ["posix-rename@openssh.com", "hardlink@openssh.com"] {
            for (from, to) in [(inside.as_str(), "e/stolen"), ("e/mine", new.as_str())] {
                let answer = client.extended(name, fields().text(from).text(to)).await;
                assert!([DENIED, NO_SUCH_FILE].contains(&answer.status()), "{name} {from} {to}");
            }
        }
    }
    rig.outside_is_as_it_was();
    assert_eq!(client.open("e/file", READ).await.message(), "the path leads out of e");
    // The links themselves are there to be seen, renamed and removed.
    assert_eq!(client.ask(7, fields().text("e/file")).await.kind, 105);
    assert_eq!(client.ask(19, fields().text("e/file")).await.path(), "../outside/secret");
    assert_eq!(client.ask(18, fields().text("e/file").text("e/moved")).await.status(), OK);
    assert_eq!(client.ask(13, fields().text("e/moved")).await.status(), OK);
    rig.outside_is_as_it_was();
}

#[tokio::test]
async fn links_within_are_followed_and_those_that_are_made_lead_down() {
    let rig = Rig::new();
    fs::create_dir_all(rig.at("inside/a/b")).unwrap();
    fs::write(rig.at("inside/f"), "found").unwrap();
    symlink("../../f", rig.at("inside/a/b/up")).unwrap();
    let mut client = Client::exports(std::slice::from_ref(&rig.export)).await;
    assert_eq!(client.content("e/a/b/up").await.unwrap(), b"found");
    // `..` after a name that is a link leads out, whatever the text says.
    assert_eq!(client.ask(20, fields().text(".").text("e/d")).await.status(), OK);
    for target in ["/etc/passwd", "../../../f", "../../f", "d/..", "d/../x", "x/../../../../f"] {
        let made = client.ask(20, fields().text(target).text("e/a/b/bad")).await;
        assert_eq!(made.status(), DENIED, "{target}");
    }
    // Through a folder that is a link, `..` goes back the way that it came.
    assert_eq!(client.ask(20, fields().text("a/b").text("e/short")).await.status(), OK);
    assert_eq!(client.content("e/short/../f").await.unwrap(), b"found");
}

/// What is open for reading can be changed by its descriptor as far as the kernel cares.
#[tokio::test]
async fn attributes_of_what_is_open_are_changed_by_writers_alone() {
    let rig = Rig::new();
    fs::write(rig.at("inside/f"), "x").unwrap();
    let mode = |path: &str| fs::metadata(rig.at(path)).unwrap().mode() & 0o7777;
    let before = (mode("inside"), mode("inside/f"));
    let mut reader = Client::granted([(&rig.export, true, false)].into_iter()).await;
    for path in ["e", "e/f"] {
        let handle = reader.opened(path, READ).await;
        for change in [
            fields().u32(MODE).u32(0),
            fields().u32(8).u32(1).u32(1),
            fields().u32(1).u64(0),
            fields().u32(2).u32(0).u32(0),
        ] {
            let mut request = fields().text(&handle);
            request.0.extend(change.0);
            let answer = reader.ask(10, request).await;
            assert_eq!(answer.status(), DENIED, "{path}");
            assert_eq!(answer.message(), "e is read-only here");
        }
    }
    assert_eq!((mode("inside"), mode("inside/f")), before);
    assert_ne!(fs::metadata(rig.at("inside/f")).unwrap().mtime(), 1);
    let mut writer = Client::exports(std::slice::from_ref(&rig.export)).await;
    let handle = writer.opened("e/f", READ).await;
    let change = fields().text(&handle).u32(MODE).u32(0o640);
    assert_eq!(writer.ask(10, change).await.status(), OK);
    assert_eq!(mode("inside/f"), 0o640);
}

/// What is for uploads only does not become readable by being moved.
#[tokio::test]
async fn nothing_is_moved_out_of_a_drop_box() {
    let rig = Rig::new();
    let other = tempfile::tempdir().unwrap();
    let mine = Export::new("mine", other.path()).unwrap();
    fs::write(rig.at("inside/tax"), "x").unwrap();
    let mut client =
        Client::granted([(&rig.export, false, true), (&mine, true, true)].into_iter()).await;
    let names = |to: &str| fields().text("e/tax").text(to);
    assert_eq!(client.ask(18, names("mine/tax")).await.status(), DENIED);
    let moved = client.extended("posix-rename@openssh.com", names("mine/tax")).await;
    assert_eq!(moved.message(), "e is for uploads only");
    assert_eq!(client.ask(18, names("e/other")).await.status(), OK);
}

/// A folder is exchanged for a link that leads out, and back, while thousands of opens and
/// look-ups go through it.
#[tokio::test]
async fn a_link_swapped_in_during_an_open_is_not_followed() {
    let rig = Rig::new();
    for folder in ["inside/swap", "inside/real"] {
        fs::create_dir(rig.at(folder)).unwrap();
        fs::write(rig.at(folder).join("secret"), "harmless").unwrap();
    }
    symlink("../outside", rig.at("inside/link")).unwrap();
    fs::write(rig.at("inside/swapped"), "harmless").unwrap();
    fs::write(rig.at("inside/plain"), "harmless").unwrap();
    symlink("../outside/secret", rig.at("inside/leak")).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let inside = rig.at("inside");
    let swapper = {
        let stop = stop.clone();
        std::thread::spawn(move || {
            let dir = fs::File::open(&inside).unwrap();
            let exchange = |a: &str, b: &str| {
                use rustix::fs::{RenameFlags, renameat_with};
                renameat_with(&dir, a, &dir, b, RenameFlags::EXCHANGE).unwrap();
            };
            let mut swaps = 0u64;
            while !stop.load(Ordering::Relaxed) {
                exchange("swap", "link");
                exchange("swapped", "leak");
                swaps += 1;
            }
            swaps
        })
    };
    let mut client = Client::exports(std::slice::from_ref(&rig.export)).await;
    let (mut found, mut refused) = (0, 0);
    for n in 0..4000 {
        let path = if n % 2 == 0 { "e/swap/secret" } else { "e/swapped" };
        match client.content(path).await {
            Ok(content) => {
                assert_eq!(content, b"harmless");
                found += 1;
            }
            Err(status) => {
                assert!([DENIED, NO_SUCH_FILE].contains(&status), "{status}");
                refused += 1;
            }
        }
        // Whatever of these hits the folder must miss the one outside.
        if n % 4 == 0 {
            client.ask(13, fields().text("e/swap/secret2")).await;
            client.ask(9, fields().text("e/swap/secret").u32(MODE).u32(0o100_644)).await;
            client.ask(14, fields().text("e/swap/new").u32(0)).await;
            client.ask(15, fields().text("e/swap/new")).await;
            let link = fields().text("e/swap/secret").text("e/stolen");
            client.extended("hardlink@openssh.com", link).await;
            client.ask(13, fields().text("e/stolen")).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    assert!(swapper.join().unwrap() > 100);
    assert!(found > 0 && refused > 0, "{found} {refused}");
    rig.outside_is_as_it_was();
}

#[tokio::test]
async fn reading_and_writing_are_granted_apart() {
    let rig = Rig::new();
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let readable = Export::new("readable", dir.path()).unwrap();
    let drop_box = Export::new("drop-box", other.path()).unwrap();
    fs::write(dir.path().join("f"), "f").unwrap();
    fs::write(other.path().join("g"), "g").unwrap();
    let grants = [(&readable, true, false), (&drop_box, false, true), (&rig.export, false, false)];
    let mut client = Client::granted(grants.into_iter()).await;
    assert_eq!(client.list("/").await, [&b"drop-box"[..], b"readable"]);
    assert_eq!(client.content("readable/f").await.unwrap(), b"f");
    for flags in [WRITE, READ | WRITE, WRITE | CREATE, READ | CREATE, READ | TRUNCATE] {
        let opened = client.open("readable/f", flags).await;
        assert_eq!(
            (opened.status(), opened.message()),
            (DENIED, "readable is read-only here".into())
        );
    }
    let link = |from: &str, to: &str| fields().text(from).text(to);
    for (kind, request) in [
        (9, fields().text("readable/f").u32(MODE).u32(0)),
        (13, fields().text("readable/f")),
        (14, fields().text("readable/d").u32(0)),
        (18, link("readable/f", "readable/g")),
        (18, link("readable/f", "drop-box/f")),
        (18, link("drop-box/g", "readable/g")),
        (20, link("x", "readable/x")),
    ] {
        assert_eq!(client.ask(kind, request).await.status(), DENIED, "{kind}");
    }
    for (from, to) in [("readable/f", "drop-box/f"), ("drop-box/g", "drop-box/h")] {
        let made = client.extended("hardlink@openssh.com", link(from, to)).await;
        assert_eq!(made.status(), DENIED, "{from} {to}");
    }
    // Into the other one things go, and do not come out again.
    let file = client.opened("drop-box/new", WRITE | CREATE | EXCLUDE).await;
    assert_eq!(client.write(&file, 0, b"new").await.status(), OK);
    assert_ne!(client.read(&file, 0, 3).await.status(), OK);
    client.close(&file).await;
    assert_eq!(client.content("drop-box/new").await, Err(DENIED));
    assert_eq!(client.open("drop-box/new", READ | WRITE).await.status(), DENIED);
    assert_eq!(client.ask(11, fields().text("drop-box")).await.status(), DENIED);
    assert_eq!(client.ask(17, fields().text("drop-box/new")).await.size_and_mode().0, 3);
    for path in ["e", "/e/x"] {
        assert_eq!(client.open(path, READ).await.status(), NO_SUCH_FILE);
    }
}

#[tokio::test]
async fn no_rights_of_the_node_are_lent() {
    let rig = Rig::new();
    fs::write(rig.at("inside/f"), "x").unwrap();
    nix::unistd::mkfifo(&rig.at("inside/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut client = Client::exports(std::slice::from_ref(&rig.export)).await;
    let mode = fields().text("e/f").u32(MODE).u32(0o106_755);
    assert_eq!(client.ask(9, mode).await.status(), OK);
    assert_eq!(fs::metadata(rig.at("inside/f")).unwrap().mode() & 0o7777, 0o755);
    let create = fields().text("e/new").u32(WRITE | CREATE).u32(MODE).u32(0o104_755);
    assert_eq!(client.ask(3, create).await.kind, 102);
    assert_eq!(fs::metadata(rig.at("inside/new")).unwrap().permissions().mode() & 0o7000, 0);
    let owner = fields().text("e/f").u32(2).u32(12345).u32(12345);
    assert_eq!(client.ask(9, owner).await.status(), DENIED);
    assert_eq!(client.open("e/pipe", READ).await.status(), DENIED);
}

#[test]
fn what_cannot_be_exported() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["", "..", ".hidden", "a/b", "a:b", "a b", "*", "a\n"] {
        let error = Export::new(name, dir.path()).unwrap_err();
        assert!(matches!(error, ExportError::Name(_)), "{name:?}");
    }
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [file.as_path(), Path::new("/no/such/folder")] {
        assert!(matches!(Export::new("e", path), Err(ExportError::Folder { .. })));
    }
}
