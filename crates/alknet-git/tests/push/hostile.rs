//! Packs that no git would make.

use std::{fs, io::Write as _, path::Path, process::Stdio};

use flate2::{Compression, write::ZlibEncoder};
use gix::hash::{Kind, hasher};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use crate::rig::{LONG, Rig, connect, git, packs, refs, url};

const COMMIT: u8 = 1;
const TREE: u8 = 2;
const BLOB: u8 = 3;
const OFS_DELTA: u8 = 6;
const REF_DELTA: u8 = 7;

/// A pack with these entries, as they are written.
fn pack(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut pack = b"PACK\0\0\0\x02".to_vec();
    pack.extend(u32::try_from(entries.len()).unwrap().to_be_bytes());
    entries.iter().for_each(|entry| pack.extend(entry));
    let mut hash = hasher(Kind::Sha1);
    hash.update(&pack);
    pack.extend(hash.try_finalize().unwrap().as_slice());
    pack
}

/// An entry that says it has `size` bytes, and has these.
fn entry(kind: u8, size: u64, base: &[u8], content: &[u8]) -> Vec<u8> {
    let mut entry = Vec::new();
    let mut byte = (kind << 4) | u8::try_from(size & 15).unwrap();
    let mut rest = size >> 4;
    while rest > 0 {
        entry.push(byte | 0x80);
        byte = u8::try_from(rest & 0x7f).unwrap();
        rest >>= 7;
    }
    entry.push(byte);
    entry.extend(base);
    let mut deflated = ZlibEncoder::new(Vec::new(), Compression::best());
    deflated.write_all(content).unwrap();
    entry.extend(deflated.finish().unwrap());
    entry
}

fn plain(kind: u8, content: &[u8]) -> Vec<u8> {
    entry(kind, content.len() as u64, b"", content)
}

fn id_of(kind: &str, content: &[u8]) -> gix::ObjectId {
    let mut hash = hasher(Kind::Sha1);
    hash.update(format!("{kind} {}\0", content.len()).as_bytes());
    hash.update(content);
    hash.try_finalize().unwrap()
}

/// A commit of a tree.
fn commit(tree: gix::ObjectId) -> (Vec<u8>, gix::ObjectId) {
    let who = "Anna <anna@example.org> 1700000000 +0000";
    let text = format!("tree {tree}\nauthor {who}\ncommitter {who}\n\nx\n");
    (plain(COMMIT, text.as_bytes()), id_of("commit", text.as_bytes()))
}

/// A pack that is right, and its commit: a tree of one file.
fn good(content: &[u8]) -> (Vec<Vec<u8>>, gix::ObjectId) {
    let tree = [b"100644 file\0", id_of("blob", content).as_slice()].concat();
    let (entry, id) = commit(id_of("tree", &tree));
    (vec![plain(BLOB, content), plain(TREE, &tree), entry], id)
}

/// Pushes a pack as `refs/heads/x`; what the server says to it, which ends in time.
async fn push(rig: &mut Rig, pack: &[u8], id: gix::ObjectId) -> String {
    let zeros = gix::ObjectId::null(Kind::Sha1);
    command(rig, &format!("{zeros} {id} refs/heads/x"), pack).await
}

/// The same with a change as it is written.
async fn command(rig: &mut Rig, change: &str, pack: &[u8]) -> String {
    let anna = rig.port("anna", &["git"]).await;
    let mut stream = connect(anna).await;
    let name = "notes".parse().unwrap();
    let request = alknet_git::Request::new(alknet_git::Service::ReceivePack, name).version(0);
    stream.write_all(&request.to_line("x")).await.unwrap();
    let line = format!("{change}\0 report-status delete-refs\n");
    let commands = format!("{:04x}{line}0000", line.len() + 4);
    stream.write_all(commands.as_bytes()).await.unwrap();
    let (mut from, mut to) = stream.split();
    let send = async {
        // The server may have had enough.
        let _ = to.write_all(pack).await;
        let _ = to.shutdown().await;
    };
    let mut said = Vec::new();
    let ended = timeout(LONG, async { tokio::join!(send, from.read_to_end(&mut said)).1 }).await;
    let _ = ended.unwrap();
    String::from_utf8_lossy(&said).into_owned()
}

fn rig() -> (Rig, std::path::PathBuf) {
    let rig = Rig::with(|config| {
        config.limits.bounds.memory = 512 << 20;
        config.limits.bounds.pack = 8 << 20;
        config.limits.object = 4 << 20;
    });
    let repository = rig.make("notes", |_| ());
    (rig, repository)
}

#[tokio::test]
async fn a_pack_that_is_right_is_taken() {
    let (mut rig, repository) = rig();
    let (entries, id) = good(b"hello\n");
    let said = push(&mut rig, &pack(&entries), id).await;
    assert!(said.contains("ok refs/heads/x"), "{said}");
    assert_eq!(refs(&repository).await, format!("{id} refs/heads/x"));
}

#[tokio::test]
async fn packs_that_are_wrong_leave_nothing_behind() {
    let (mut rig, repository) = rig();
    let (entries, id) = good(b"hello\n");
    let whole = pack(&entries);
    let mut sum = whole.clone();
    *sum.last_mut().unwrap() ^= 1;
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 0x55;
    let mut count = whole.clone();
    count[11] = 200;
    let blob = id_of("blob", b"hello\n");
    let itself = blob.as_slice();
    let delta = [6, 6, 0x90, 6];
    let (far, nothing) = ([0xff, 0xff, 0xff, 0x7f], [0]);
    let huge = 1 << 60;
    let packs_of: Vec<(&str, Vec<u8>)> = vec![
        ("cut in the middle", whole[..whole.len() / 2].to_vec()),
        ("without its sum", whole[..whole.len() - 20].to_vec()),
        ("with a wrong sum", sum),
        ("with a flipped bit", flipped),
        ("with fewer entries than it says", count),
        ("no pack", b"PACKxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx".to_vec()),
        ("nothing", Vec::new()),
        ("of version 9", {
            let mut it = whole.clone();
            it[7] = 9;
            it
        }),
        ("of very many entries", [b"PACK\0\0\0\x02\xff\xff\xff\xff".as_slice(), &[0; 40]].concat()),
        ("without its tree", pack(&entries[2..])),
        ("without its blob", pack(&entries[1..])),
        ("a delta of nothing that is there", {
            pack(&[entries[1].clone(), entries[2].clone(), entry(REF_DELTA, 4, &[7; 20], &delta)])
        }),
        ("a delta of itself", {
            pack(&[entries[1].clone(), entries[2].clone(), entry(REF_DELTA, 4, itself, &delta)])
        }),
        ("a delta of what is before the pack", {
            pack(&[entries[1].clone(), entries[2].clone(), entry(OFS_DELTA, 4, &far, &delta)])
        }),
        ("a delta of itself by its place", {
            pack(&[entries[1].clone(), entries[2].clone(), entry(OFS_DELTA, 4, &nothing, &delta)])
        }),
        ("a blob that says it is huge", pack(&[entry(BLOB, huge, b"", b"x"), entries[2].clone()])),
        ("a tree that says it is huge", pack(&[entry(TREE, huge, b"", b"x"), entries[2].clone()])),
        ("a commit larger than memory", pack(&[entry(COMMIT, 8 << 30, b"", b"x")])),
        ("an entry of no kind", pack(&[entry(5, 1, b"", b"x"), entries[2].clone()])),
    ];
    for (what, pack) in packs_of {
        let said = push(&mut rig, &pack, id).await;
        assert!(!said.contains("ok refs/heads/x"), "{what}: {said}");
        rig.quiet(&repository).await;
        assert_eq!((refs(&repository).await.as_str(), packs(&repository)), ("", 0), "{what}");
    }
}

#[tokio::test]
async fn small_packs_that_become_large_are_refused() {
    let (mut rig, repository) = rig();
    let zeros = vec![0; 32 << 20];
    let (entries, id) = good(&zeros);
    let bomb = pack(&entries);
    assert!(bomb.len() < 100_000);
    let said = push(&mut rig, &bomb, id).await;
    assert!(said.contains("ng refs/heads/x pre-receive hook declined"), "{said}");

    // By a delta: the base, copied over and over.
    let base = vec![0; 1 << 20];
    let mut delta = vec![0x80, 0x80, 0x40, 0x80, 0x80, 0x80, 0x10];
    // Sizes of 1 MiB and 32 MiB; 32 times 64 KiB and so on, from the start.
    (0..512).for_each(|_| delta.push(0x80));
    let large = vec![0; 32 << 20];
    let tree = [b"100644 file\0", id_of("blob", &large).as_slice()].concat();
    let (commit, id) = commit(id_of("tree", &tree));
    let by = entry(REF_DELTA, delta.len() as u64, id_of("blob", &base).as_slice(), &delta);
    let said =
        push(&mut rig, &pack(&[plain(BLOB, &base), by, plain(TREE, &tree), commit]), id).await;
    assert!(said.contains("ng refs/heads/x pre-receive hook declined"), "{said}");

    // More than memory, and more than a pack may have.
    let tree = entry(TREE, 2 << 30, b"", &vec![0; 64 << 20]);
    let said = push(&mut rig, &pack(&[tree, entries[2].clone()]), id).await;
    assert!(!said.contains("ok refs"), "{said}");
    let mut state = 1_u64;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    });
    let (entries, id) = good(&noise.take(9 << 20).collect::<Vec<_>>());
    let said = push(&mut rig, &pack(&entries), id).await;
    assert!(!said.contains("ok refs"), "{said}");
    rig.quiet(&repository).await;
    assert_eq!((refs(&repository).await.as_str(), packs(&repository)), ("", 0));
}

/// Writes an object that git would not make.
async fn literally(folder: &Path, kind: &str, content: &[u8]) -> String {
    let mut child = git(folder)
        .args(["hash-object", "-w", "--literally", "--stdin", "-t", kind])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(content).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn trees_that_attack_whoever_checks_them_out_are_refused() {
    let (mut rig, repository) = rig();
    let anna = rig.port("anna", &["git"]).await;
    let work = rig.work("anna").await;
    let blob = literally(work.path(), "blob", b"x").await;
    let module = b"[submodule \"x\"]\n\tpath = x\n\turl = -u./payload\n";
    let module = literally(work.path(), "blob", module).await;
    let id = |hex: &str| gix::ObjectId::from_hex(hex.as_bytes()).unwrap();
    let trees: [(&str, Vec<u8>); 6] = [
        ("100644 .git", id(&blob).as_slice().to_vec()),
        ("100644 ..", id(&blob).as_slice().to_vec()),
        ("100644 .GIT", id(&blob).as_slice().to_vec()),
        ("100644 a/b", id(&blob).as_slice().to_vec()),
        ("100644 git~1", id(&blob).as_slice().to_vec()),
        ("100644 .gitmodules", id(&module).as_slice().to_vec()),
    ];
    for (name, object) in trees {
        let tree = [name.as_bytes(), b"\0", &object].concat();
        let tree = literally(work.path(), "tree", &tree).await;
        let commit = work.git(&["commit-tree", "-m", "x", &tree]).await;
        let change = format!("{commit}:refs/heads/x");
        let refused = work.fails(&["push", &url(anna, "notes"), &change]).await;
        assert!(refused.contains("remote: fatal: fsck error"), "{name}: {refused}");
        rig.quiet(&repository).await;
        assert_eq!((refs(&repository).await.as_str(), packs(&repository)), ("", 0), "{name}");
    }
    assert!(fs::read_dir(rig.path().join("repos")).unwrap().count() <= 2);
}

#[tokio::test]
async fn a_protected_ref_is_not_deleted_by_who_says_that_it_is_not_there() {
    let (mut rig, _) = rig();
    let protect = |it: &mut alknet_git::Settings| it.protected = vec!["x".parse().unwrap()];
    let name = "notes".parse().unwrap();
    rig.server.repositories().configure(&name, protect).unwrap();
    let repository = rig.server.repositories().get(&name).unwrap().unwrap().path;
    let (entries, id) = good(b"hello\n");
    let said = push(&mut rig, &pack(&entries), id).await;
    assert!(said.contains("ok refs/heads/x"), "{said}");
    let zeros = "0".repeat(40);
    let (other, there) = ("7".repeat(40), format!("{id} refs/heads/x"));
    for change in [
        format!("{zeros} {zeros} refs/heads/x"),
        format!("{other} {zeros} refs/heads/x"),
        format!("{id} {zeros} refs/heads/x"),
        format!("{zeros} {other} refs/heads/x"),
    ] {
        let pack = if change.contains(&format!("{zeros} refs")) { vec![] } else { pack(&entries) };
        let said = command(&mut rig, &change, &pack).await;
        assert!(said.contains("ng refs/heads/x"), "{change}: {said}");
        assert_eq!(refs(&repository).await, there, "{change}");
    }
}
