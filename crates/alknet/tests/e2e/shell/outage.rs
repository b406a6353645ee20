//! Sessions whose network goes and comes back.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{
    Viewer,
    link::{Cut, Link},
    sessions,
};
use crate::{
    client::{Client, WAYS},
    node::{Home, Node},
    process::{Deadline, LONG},
};

/// How soon after the network is back the session has to be.
const SOON: Duration = Duration::from_secs(2);

/// Writes a number every 20 milliseconds, and takes so many bytes, both as they are; ends
/// when all have come.
fn program(bytes: usize) -> String {
    format!(
        "stty raw -echo; echo ready; \
         (n=1; while [ ! -e over ]; do echo $n; n=$((n+1)); sleep 0.02; done; echo $n end) & \
         head -c {bytes} > typed; touch over; wait"
    )
}

/// Waits for a moment: the length of an outage is what is tried.
fn pass(time: Duration) {
    let until = Instant::now() + time;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        thread::park_timeout(left);
    }
}

struct Trial {
    home: Home,
    node: Node,
    link: Link,
    ann: Client,
    typed: Vec<u8>,
}

impl Trial {
    fn new() -> Self {
        let (home, link) = (Home::new(), Link::new());
        let node = Node::start_at(&home, &format!("{}:0", link.node()), &[]);
        let ann = Client::known_to(&home, "ann", "shell,ssh");
        Self { home, node, link, ann, typed: Vec::new() }
    }

    fn view(&self, via: &str, bytes: usize) -> Viewer {
        let run = program(bytes);
        let attach = sessions(&self.ann, &self.node, "attach", &["--via", via, via, "--", &run]);
        let viewer = Viewer::start(self.link.inside(&attach));
        viewer.sees("\n20\n");
        viewer
    }

    fn types(&mut self, viewer: &mut Viewer, piece: u32) {
        let bytes: Vec<u8> = (0..25).flat_map(|n| (piece * 25 + n).to_be_bytes()).collect();
        viewer.types(&bytes);
        self.typed.extend(bytes);
    }

    /// One outage, with input before, in and after it; how long the session took to be back.
    fn outage(&mut self, viewer: &mut Viewer, number: u32, cut: Cut, length: Duration) -> Duration {
        self.types(viewer, number * 3);
        self.link.cut(cut);
        self.types(viewer, number * 3 + 1);
        pass(length);
        // Before the command that restores it: nothing gets through until it has begun.
        let back = Instant::now();
        let last = viewer.seen.0.lock().unwrap().last.unwrap();
        assert!(back - last > length / 2, "the network was not cut: {:?}", back - last);
        self.link.restore(cut);
        self.types(viewer, number * 3 + 2);
        viewer.until("output after the outage", |seen| seen.last.is_some_and(|last| last > back));
        back.elapsed()
    }

    /// That nothing was lost or doubled in either direction.
    #[track_caller]
    fn check(&mut self, viewer: Viewer) {
        let (status, seen, said) = viewer.ends();
        assert_eq!(status, Some(0), "{said}");
        let seen = String::from_utf8(seen).unwrap();
        let mut lines = seen.lines();
        assert_eq!(lines.next(), Some("ready"));
        let numbers: Vec<&str> = lines.collect();
        let (last, numbers) = numbers.split_last().unwrap();
        for (n, line) in numbers.iter().enumerate() {
            assert_eq!(*line, (n + 1).to_string());
        }
        assert_eq!(*last, format!("{} end", numbers.len() + 1));
        let typed = std::fs::read(self.home.path().join("account/typed")).unwrap();
        assert!(typed == self.typed, "{} bytes of {}", typed.len(), self.typed.len());
    }
}

/// Outages of a session over one transport, each of a length of its own.
fn outages(via: &str, count: u32, length: impl Fn(u32) -> Duration) -> Vec<Duration> {
    let mut trial = Trial::new();
    let mut viewer = trial.view(via, usize::try_from(count).unwrap() * 300);
    let mut times = Vec::new();
    for number in 0..count {
        let cut = if number % 2 == 0 { Cut::Silent } else { Cut::Down };
        let time = trial.outage(&mut viewer, number, cut, length(number));
        eprintln!("{via} {number}: {cut:?} for {:?}, back in {time:?}", length(number));
        times.push(time);
    }
    trial.check(viewer);
    times
}

/// A hundred in all, of 0.7 to 3.7 seconds.
#[test]
fn in_a_hundred_outages_nothing_is_lost_and_it_is_back_within_two_seconds() {
    let threads = WAYS.map(|via| {
        thread::spawn(move || {
            let length = |number| Duration::from_millis(700 + u64::from(number * 2917 % 3001));
            (via, outages(via, 25, length))
        })
    });
    for thread in threads {
        let (via, mut times) = thread.join().unwrap();
        times.sort();
        let (middle, last) = (times[times.len() / 2], times[times.len() - 1]);
        eprintln!("{via}: {:?} / {middle:?} / {last:?} of {}", times[0], times.len());
        // With so many, one may come while other tests have the processors.
        assert!(middle < SOON && last < 2 * SOON, "{via}: {times:?}");
    }
}

#[test]
fn over_quic_it_moves_with_the_clients_address_without_a_new_attachment() {
    let mut trial = Trial::new();
    let mut viewer = trial.view("quic", 400);
    for number in 0..3 {
        trial.types(&mut viewer, number);
        trial.link.renumber();
        let back = Instant::now();
        viewer
            .until("output from the new address", |seen| seen.last.is_some_and(|last| last > back));
    }
    // The program ends with the last of its input.
    trial.types(&mut viewer, 3);
    let begun = trial.home.audit();
    let begun = begun.iter().filter(|it| it["event"] == "session-start").count();
    assert_eq!(begun, 1, "the connection itself has moved");
    trial.check(viewer);
}

#[test]
fn over_quic_a_transfer_by_ssh_goes_on_from_another_address() {
    const LENGTH: usize = 64 << 20;
    let mut trial = Trial::new();
    let mut ssh = trial.ann.ssh(&trial.node, "quic");
    ssh.arg(format!("head -c {LENGTH} /dev/zero | tr '\\0' x; echo done"));
    let viewer = Viewer::start(trial.link.inside(&ssh));
    for n in 1..4 {
        viewer.until("a part of it", |seen| seen.bytes.len() > n * LENGTH / 8);
        trial.link.renumber();
    }
    let _guard = Deadline::kill(viewer.child.id(), LONG);
    let (status, seen, said) = viewer.ends();
    assert_eq!(status, Some(0), "{said}");
    assert!(seen.len() == LENGTH + 5 && seen.ends_with(b"xdone\n"), "{} bytes", seen.len());
}
