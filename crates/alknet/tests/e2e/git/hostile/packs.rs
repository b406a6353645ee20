//! Packs that are none, and packs that are far more than they look.

use std::io::Write as _;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use flate2::{Compression, write::ZlibEncoder};

use super::*;
use crate::process::output_of;

/// Kinds of entries (gitformat-pack, section "Object types").
const COMMIT: u8 = 1;
const TREE: u8 = 2;
const BLOB: u8 = 3;
const OFS_DELTA: u8 = 6;
const REF_DELTA: u8 = 7;
/// What a delta's base has, and how often the delta repeats it: 2 GiB.
const BASE: usize = 16 << 20;
const COPIES: usize = 128;
/// What a bomb may take of the disk.
const DISK: u64 = 64 << 20;

/// An entry of a pack: its kind, the size it states, what comes before the data, the data.
struct Entry {
    kind: u8,
    size: u64,
    base: Vec<u8>,
    data: Vec<u8>,
}

impl Entry {
    fn new(kind: u8, data: &[u8]) -> Self {
        Self { kind, size: data.len() as u64, base: Vec::new(), data: deflated(data) }
    }

    fn delta(kind: u8, base: Vec<u8>, delta: &[u8]) -> Self {
        Self { base, ..Self::new(kind, delta) }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut size = self.size >> 4;
        let low = u8::try_from(self.size & 15).unwrap();
        let mut bytes = vec![self.kind << 4 | low | if size > 0 { 0x80 } else { 0 }];
        while size > 0 {
            let more = if size > 127 { 0x80 } else { 0 };
            bytes.push(u8::try_from(size & 127).unwrap() | more);
            size >>= 7;
        }
        [bytes, self.base.clone(), self.data.clone()].concat()
    }
}

fn deflated(data: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// A pack of entries as they are.
fn pack(entries: &[Entry]) -> Vec<u8> {
    let bytes = Vec::from_iter(entries.iter().map(Entry::bytes));
    sealed(2, u32::try_from(entries.len()).unwrap(), &bytes.concat())
}

fn sealed(version: u32, count: u32, body: &[u8]) -> Vec<u8> {
    let mut pack =
        [b"PACK".as_slice(), &version.to_be_bytes(), &count.to_be_bytes(), body].concat();
    let sum = digest(&SHA1_FOR_LEGACY_USE_ONLY, &pack);
    pack.extend(sum.as_ref());
    pack
}

/// The id of an object.
fn id(kind: &str, data: &[u8]) -> Vec<u8> {
    let object = [format!("{kind} {}\0", data.len()).as_bytes(), data].concat();
    digest(&SHA1_FOR_LEGACY_USE_ONLY, &object).as_ref().to_vec()
}

/// A size in a delta (gitformat-pack, section "Deltified representation").
fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 127 {
        bytes.push(u8::try_from(value & 127).unwrap() | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap());
    bytes
}

/// A delta of copies from the beginning of its base, 65,536 bytes each.
fn copies(base: usize, count: usize) -> Vec<u8> {
    let mut delta = [varint(base), varint(count * 0x1_0000)].concat();
    // No offset and no size stand for 0 and 65,536.
    delta.extend(std::iter::repeat_n(0x80, count));
    delta
}

/// A commit of a tree, and the id of it.
fn commit(tree: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let who = "T <t@example.org> 1700000000 +0000";
    let text = format!("tree {}\nauthor {who}\ncommitter {who}\n\nx\n", hex::encode(tree));
    let id = id("commit", text.as_bytes());
    (text.into_bytes(), id)
}

fn entry_of_tree(mode: &str, name: &[u8], id: &[u8]) -> Vec<u8> {
    [mode.as_bytes(), b" ", name, b"\0", id].concat()
}

/// A pack with a commit of one file, which is the new tip.
fn commit_of(mode: &str, name: &[u8], data: &[u8]) -> (String, Vec<u8>) {
    let blob = id("blob", data);
    let tree = entry_of_tree(mode, name, &blob);
    let (commit, tip) = commit(&id("tree", &tree));
    let entries = [Entry::new(COMMIT, &commit), Entry::new(TREE, &tree), Entry::new(BLOB, data)];
    (hex::encode(tip), pack(&entries))
}

fn create(tip: &str) -> String {
    format!("{ZERO} {tip} refs/heads/evil")
}

#[tokio::test]
async fn packs_that_are_none_are_refused() {
    let rig = Rig::new();
    let (tip, whole) = commit_of("100644", b"file", &b"content\n".repeat(99));
    let body = &whole[12..whole.len() - 20];
    let mut packs = vec![
        Vec::new(),
        b"PACK".to_vec(),
        b"KCAP\0\0\0\x02\0\0\0\0".to_vec(),
        sealed(2, 0, b""),
        sealed(4, 3, body),
        sealed(2, 2, body),
        sealed(2, 4, body),
        sealed(2, u32::MAX, body),
    ];
    packs.extend((1..9).map(|cut| whole[..whole.len() * cut / 9].to_vec()));
    packs.extend((0..whole.len()).step_by(7).map(|at| {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        flipped
    }));
    for (index, pack) in packs.iter().enumerate() {
        let answer = rig.push(&create(&tip), pack).await;
        assert!(!answer.contains("ok refs/heads/evil"), "{index}: {answer}");
    }
    rig.unharmed();
    // And it is for what was done to it that it was refused.
    let answer = rig.push(&create(&tip), &whole).await;
    assert!(answer.contains("ok refs/heads/evil"), "{answer}");
}

#[tokio::test]
async fn entries_that_are_none_are_refused() {
    let rig = Rig::new();
    let base = b"base of a delta\n".repeat(64);
    let blob = || Entry::new(BLOB, &base);
    let plain = copies(base.len(), 1);
    let known = id("blob", &base);
    let mut liar = blob();
    liar.size = 3;
    let mut empty = blob();
    empty.size = 1 << 60;
    let mut endless = blob();
    endless.size = u64::MAX;
    let mut noise = blob();
    noise.data = vec![0xaa; 64];
    let bad: [Vec<Entry>; 15] = [
        vec![liar],
        vec![empty],
        vec![endless],
        vec![noise],
        vec![Entry::new(0, b"x")],
        vec![Entry::new(5, b"x")],
        // Based on itself, on something ahead of it, before the pack, and on nothing.
        vec![Entry::delta(OFS_DELTA, vec![0], &plain)],
        vec![blob(), Entry::delta(OFS_DELTA, vec![0], &plain)],
        vec![blob(), Entry::delta(OFS_DELTA, vec![0x7f], &plain)],
        vec![blob(), Entry::delta(OFS_DELTA, vec![0xff; 20], &plain)],
        vec![Entry::delta(REF_DELTA, vec![0x11; 20], &plain)],
        // Each other's base.
        vec![
            Entry::delta(REF_DELTA, vec![0x22; 20], &plain),
            Entry::delta(REF_DELTA, vec![0x33; 20], &plain),
        ],
        // Beyond the end of the base, another size than promised, an instruction that is none.
        vec![blob(), Entry::delta(REF_DELTA, known.clone(), &copies(base.len(), 1))],
        vec![
            blob(),
            Entry::delta(
                REF_DELTA,
                known.clone(),
                &[varint(base.len()), vec![5, 1, b'x']].concat(),
            ),
        ],
        vec![blob(), Entry::delta(REF_DELTA, known, &[varint(base.len()), vec![1, 0]].concat())],
    ];
    for (index, entries) in bad.iter().enumerate() {
        let answer = rig.push(&create(&hex::encode(id("blob", &base))), &pack(entries)).await;
        assert!(!answer.contains("ok refs/heads/evil"), "{index}: {answer}");
    }
    rig.unharmed();
}

/// What is whole as a pack, and would harm whoever checks it out or relies on it.
#[tokio::test]
async fn objects_that_harm_are_refused() {
    let rig = Rig::new();
    let mut pushes = Vec::new();
    for (mode, name) in [
        ("100644", &b".."[..]),
        ("100644", b"."),
        ("100644", b".git"),
        ("100644", b".GIT"),
        ("100644", b"git~1"),
        ("100644", b"../../hooks/post-receive"),
        ("100644", b"a/b"),
        ("100644", b""),
    ] {
        let (tip, pack) = commit_of(mode, name, b"content\n");
        pushes.push((create(&tip), pack));
    }
    // Submodules whose URL or path is an option (CVE-2018-17456), a link for .gitmodules.
    let modules = b"[submodule \"a\"]\n\tpath = a\n\turl = -u./payload\n";
    let (tip, pack) = commit_of("100644", b".gitmodules", modules);
    pushes.push((create(&tip), pack));
    let (tip, pack) = commit_of("120000", b".gitmodules", b"elsewhere");
    pushes.push((create(&tip), pack));
    // A commit without its tree, and one that is no commit.
    let (text, tip) = commit(&[0x44; 20]);
    pushes.push((create(&hex::encode(tip)), self::pack(&[Entry::new(COMMIT, &text)])));
    let tip = hex::encode(id("commit", b"nothing"));
    pushes.push((create(&tip), self::pack(&[Entry::new(COMMIT, b"nothing")])));
    for (command, pack) in pushes {
        let answer = rig.push(&command, &pack).await;
        assert!(!answer.contains("ok refs/heads/evil"), "{answer}");
    }
    rig.unharmed();
}

/// A few kilobytes that become 2 GiB in memory, if whoever unpacks them lets them.
#[tokio::test]
async fn a_delta_that_explodes_is_refused() {
    let rig = Rig::new();
    let base = vec![0; BASE];
    let known = id("blob", &base);
    let mut delta = [varint(BASE), varint(COPIES * BASE)].concat();
    // All of the base but its last byte, which no size of three bytes can state, and that.
    let last = u32::try_from(BASE - 1).unwrap().to_le_bytes();
    for _ in 0..COPIES {
        delta.extend([0xf0, 0xff, 0xff, 0xff]);
        delta.extend([0x97, last[0], last[1], last[2], 1]);
    }
    let bomb = pack(&[Entry::new(BLOB, &base), Entry::delta(REF_DELTA, known, &delta)]);
    assert!(bomb.len() < 1 << 20);
    let memory = Memory::watch(rig.node.pid());
    let answer = rig.push(&create(&hex::encode(id("blob", &base))), &bomb).await;
    let grown = memory.grown();
    assert!(!answer.contains("ok refs/heads/evil"), "{answer}");
    assert!(grown < GROWTH, "grown by {grown} bytes");
    rig.unharmed();
}

/// Objects that compress a thousand times are kept as they came, and never held whole.
#[test]
fn zeros_take_little_room() {
    let rig = Rig::new();
    let work = rig.local.path().join("work");
    // Larger than git holds in memory by its own rules, and some that it would.
    for (file, megabytes) in [("one", 600), ("two", 200), ("three", 201)] {
        let file = fs::File::create(work.join(file)).unwrap();
        file.set_len(megabytes << 20).unwrap();
    }
    stdout(&output(&mut git(&work, &["-c", "core.compression=1", "add", "."])));
    stdout(&output(&mut git(&work, &["commit", "--quiet", "--message", "zeros"])));
    let mut push = git(&work, &["push", "--quiet", &rig.url("notes"), "HEAD:refs/heads/zeros"]);
    let memory = Memory::watch(rig.node.pid());
    // Taken or refused: both are a way to stay whole.
    let pushed = output_of(push.spawn().unwrap(), LONG).status.success();
    let grown = memory.grown();
    assert!(grown < GROWTH, "grown by {grown} bytes");
    let sizes = tree(&rig.home).into_values().map(|(_, content)| content.len() as u64);
    let held = sizes.sum::<u64>();
    assert!(held < DISK, "{held} bytes, pushed: {pushed}");
    let clone = rig.local.path().join("clone");
    let mut clone_again = rig.git(&["clone", "--quiet", "--bare", &rig.url("notes")]);
    stdout(&output_of_long(clone_again.arg("--filter=blob:none").arg(&clone)));
    assert_eq!(tip(&clone), rig.tip);
}

fn output_of_long(command: &mut Command) -> std::process::Output {
    use std::process::Stdio;
    output_of(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap(), LONG)
}

/// A commit whose folders hold each other ten times, ten deep: 10^10 files for whoever walks
/// all of them. The objects are few, and git takes them.
#[tokio::test]
async fn folders_within_folders_are_no_work_for_the_node() {
    let rig = Rig::new();
    let blob = id("blob", b"boom\n");
    let mut entries = vec![Entry::new(BLOB, b"boom\n")];
    let (mut inner, mut mode) = (blob, "100644");
    for _ in 0..10 {
        let names = (0..10).map(|number| format!("d{number}"));
        let tree = names.flat_map(|name| entry_of_tree(mode, name.as_bytes(), &inner));
        let tree = Vec::from_iter(tree);
        entries.push(Entry::new(TREE, &tree));
        (inner, mode) = (id("tree", &tree), "40000");
    }
    let (text, tip) = commit(&inner);
    entries.push(Entry::new(COMMIT, &text));
    let memory = Memory::watch(rig.node.pid());
    let answer = rig.push(&create(&hex::encode(tip)), &pack(&entries)).await;
    assert!(answer.contains("ok refs/heads/evil"), "{answer}");
    let clone = rig.local.path().join("clone");
    let mut all = rig.git(&["clone", "--quiet", "--bare", &rig.url("notes")]);
    stdout(&output_of_long(all.arg(&clone)));
    // An archive of it has no end; whoever asks for one gets a part, or is refused.
    let mut archive = line("git-upload-archive /notes\0host=x\0");
    archive.extend(line("argument --format=tar\n"));
    archive.extend(line("argument refs/heads/evil\n"));
    archive.extend(b"0000");
    let connection = rig.connect("tls").await;
    let mut stream = connection.open_bi().await.unwrap();
    stream.write_all(&archive).await.unwrap();
    let _ = timeout(SOON, stream.read(&mut [0; 4096])).await.unwrap();
    drop((stream, connection));
    let pid = rig.node.pid();
    eventually("git's processes have ended", || (children(pid) == 0).then_some(()));
    let grown = memory.grown();
    assert!(grown < GROWTH, "grown by {grown} bytes");
}
