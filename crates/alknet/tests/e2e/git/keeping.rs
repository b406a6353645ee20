//! What a node does for its repositories by itself, and what is done to them beside it.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
};

use serde_json::{Value, json};

use super::{flows::Work, http, native};
use crate::{
    client::Client,
    node::{Home, Node},
    process::{SOON, eventually, output, stdout, text},
};

/// As clients take bundles.
const TAKES_BUNDLES: [&str; 2] = ["-c", "transfer.bundleURI=true"];
/// What they leave of one.
const FROM_BUNDLES: [&str; 3] = ["for-each-ref", "--format=%(refname)", "refs/bundles"];

/// Room for content of 400 KiB, and not for two copies of it as well.
const QUOTA: &str = "1MiB";

/// Collects the garbage of a repository, and says how many bundles there are then.
fn collect(home: &Home, repository: &str) -> usize {
    stdout(&output(&mut home.alknet(&["git", "gc", repository])));
    let folder = home.path().join(format!("repos/{repository}.git/bundles"));
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().ends_with(".bundle")).count()
}

#[test]
fn a_clone_by_https_begins_with_a_bundle_that_takes_no_room() {
    let rig = http::Rig::new();
    let remote = rig.remote(&rig.token("git"), "HTTP/2");
    let work = Work::new(&remote, "bundle");
    work.publish();
    let repository = work.repository("a");
    let quota = ["git", "configure", &repository, "--quota", QUOTA];
    stdout(&output(&mut rig.home.alknet(&quota)));
    for (day, bundles) in [(20, 1), (21, 2)] {
        assert_eq!(collect(&rig.home, &repository), bundles);
        work.commit("seed", day);
        work.git("seed", &["push", "-q", "origin", "main"]);
    }
    let (url, trace) = (work.url("a"), work.at("trace"));
    let clone = [&TAKES_BUNDLES[..], &["clone", "-q", &url, "copy"]].concat();
    let mut clone = work.command(".", &clone);
    let cloned = output(clone.env("GIT_TRACE2_EVENT", &trace));
    assert!(cloned.status.success() && cloned.stderr.is_empty(), "{}", text(&cloned));
    assert_eq!(work.git("copy", &["rev-parse", "HEAD"]), work.there("a", &["rev-parse", "main"]));
    if supports_bundle_uri(&work) {
        let taken = work.git("copy", &FROM_BUNDLES);
        assert!(taken.lines().any(|name| name == "refs/bundles/main"), "{taken}");
        assert!(fs::read_to_string(trace).unwrap().contains("/bundles/"));
    }
    // Without leave to read it, a bundle is as little there as its repository.
    let address = work.there("a", &["config", "bundle.whole.uri"]);
    let url = format!("{url}{}", address.strip_prefix('.').unwrap());
    let stranger = output(Command::new("curl").args(["-sk", "-w", "%{http_code}", &url]));
    assert!(stdout(&stranger).ends_with("401"), "{}", text(&stranger));
}

/// Git fetches bundles from web servers alone.
#[test]
fn a_clone_by_another_way_is_offered_none() {
    let rig = native::Rig::new("git");
    let remote = rig.remote("tls");
    let work = Work::new(&remote, "bundle");
    work.publish();
    let repository = work.repository("a");
    assert_eq!(collect(&rig.home, &repository), 1);
    let url = work.url("a");
    let clone = [&TAKES_BUNDLES[..], &["clone", "-q", &url, "copy"]].concat();
    let cloned = work.output(".", &clone);
    assert!(cloned.status.success() && cloned.stderr.is_empty(), "{}", text(&cloned));
    assert_eq!(work.git("copy", &FROM_BUNDLES), "");
    work.assert_same("seed", "a");
}

fn supports_bundle_uri(work: &Work<'_>) -> bool {
    let version = work.git(".", &["version"]);
    let mut numbers = version.split_whitespace().nth(2).unwrap().split('.');
    let mut number = || numbers.next().unwrap().parse::<u32>().unwrap();
    (number(), number()) >= (2, 40)
}

/// An `alknet call NODE git/events`, which ends with the value.
struct Listener {
    child: Child,
    lines: Receiver<String>,
}

impl Listener {
    /// Listens when this returns.
    fn new(home: &Home, client: &Client, node: &Node) -> Self {
        let address = node.address().to_string();
        let mut call = client.home.alknet(&["call", &address, "git/events", "--json"]);
        let mut child = call.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let (send, lines) = channel();
        let said = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            said.lines().map_while(Result::ok).try_for_each(|line| send.send(line))
        });
        let it = Self { child, lines };
        // What happens before it listens it is not told of.
        let make = |number: u32| {
            let name = format!("first/{number}");
            stdout(&output(&mut home.alknet(&["git", "create", &name])));
        };
        let mut number = 0;
        eventually("it listens", || {
            number += 1;
            make(number);
            it.lines.recv_timeout(SOON / 60).ok()
        });
        it
    }

    /// The next that is not about what was made to find out whether it listens.
    fn next(&self) -> Value {
        loop {
            let line = self.lines.recv_timeout(SOON).unwrap();
            let event = serde_json::from_str::<Value>(&line).unwrap()["output"].take();
            if !event["repository"].as_str().unwrap().starts_with("first/") {
                return event;
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn who_listens_to_a_node_is_told_what_commands_beside_it_do() {
    let (home, elsewhere) = (Home::new(), Home::new());
    let networks = "[git]\nmirror_networks = [\"127.0.0.0/8\"]\n";
    fs::write(home.path().join("alknet.toml"), networks).unwrap();
    let (node, source) = (Node::start(&home, &[]), Node::start(&elsewhere, &[]));
    let client = Client::known_to(&home, "reader", "git:read:*");
    let listener = Listener::new(&home, &client, &node);
    let run = |arguments: &[&str]| {
        let done = output(&mut home.alknet(&[&["git"], arguments].concat()));
        stdout(&done);
        assert!(!text(&done).contains("not told"), "{}", text(&done));
    };
    run(&["create", "team/a"]);
    run(&["configure", "team/a", "--description", "A"]);
    run(&["rename", "team/a", "team/b"]);
    run(&["delete", "team/b", "--yes"]);
    for (event, repository) in [
        ("created", "team/a"),
        ("settings", "team/a"),
        ("renamed", "team/b"),
        ("deleted", "team/b"),
    ] {
        let told = listener.next();
        assert_eq!((&told["event"], &told["repository"]), (&event.into(), &repository.into()));
        assert_eq!(told["by"], Value::Null);
    }
    // A mirror that is told to look is told of like one that looks by itself.
    stdout(&output(&mut elsewhere.alknet(&["git", "create", "tool"])));
    let there = elsewhere.path().join("repos/tool.git");
    let tip = commit(&there);
    let add = ["peer", "add", "copies", "--key", &home.id(), "--scope", "git:read:tool"];
    stdout(&output(&mut elsewhere.alknet(&add)));
    run(&["mirror", "copy", &format!("alknet://{}/tool", source.address())]);
    // The running node may be at it: what one does not bring the other has brought.
    eventually("a look", || {
        output(&mut home.alknet(&["git", "mirror", "copy", "--now"])).status.success().then_some(())
    });
    assert_eq!(listener.next()["event"], "created");
    let told = listener.next();
    let change = json!({ "reference": "refs/heads/main", "old": null, "new": tip });
    assert_eq!((&told["event"], &told["changes"]), (&"push".into(), &json!([change])));
}

/// Makes a first commit in a bare repository.
fn commit(repository: &Path) -> String {
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.arg("--git-dir").arg(repository).args(arguments);
        for who in ["AUTHOR", "COMMITTER"] {
            git.env(format!("GIT_{who}_NAME"), "A").env(format!("GIT_{who}_EMAIL"), "a@b.c");
        }
        stdout(&output(&mut git)).trim().to_owned()
    };
    let tree = git(&["hash-object", "-w", "-t", "tree", "--stdin"]);
    let tip = git(&["commit-tree", &tree, "-m", "one"]);
    git(&["update-ref", "refs/heads/main", &tip]);
    tip
}

/// More repositories than a node gives in one answer.
#[test]
fn all_repositories_of_a_node_are_listed() {
    const COUNT: usize = 1005;
    let home = Home::new();
    stdout(&output(&mut home.alknet(&["git", "create", "r0000"])));
    let repos = home.path().join("repos");
    for number in 1..COUNT {
        let path = repos.join(format!("r{number:04}.git"));
        for folder in ["objects", "refs"] {
            fs::create_dir_all(path.join(folder)).unwrap();
        }
        for file in ["HEAD", "config"] {
            fs::copy(repos.join("r0000.git").join(file), path.join(file)).unwrap();
        }
    }
    let node = Node::start(&home, &[]);
    let client = Client::known_to(&home, "reader", "git:read:*,git:admin:r100*");
    let address = node.address().to_string();
    let list = ["git", "list", "--node", &address, "--json"];
    let listed = output(&mut client.home.alknet(&list));
    assert!(!text(&listed).contains("than it has named"), "{}", text(&listed));
    let listed: Vec<Value> = serde_json::from_str(&stdout(&listed)).unwrap();
    let names: Vec<_> = listed.iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect();
    let all: Vec<_> = (0..COUNT).map(|number| format!("r{number:04}")).collect();
    assert_eq!(names, all);
    let gc = ["git", "gc", "--all", "--node", &address, "--json"];
    let collected = stdout(&output(&mut client.home.alknet(&gc)));
    let collected: Vec<Value> = serde_json::from_str(&collected).unwrap();
    let names: Vec<_> = collected.iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names, &all[1000..]);
}
