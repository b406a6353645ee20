use std::collections::BTreeMap;

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::{
    client::state::{Heard, State},
    name::Name,
    wire::{Attached, Decoder, Sender, Terminal, Which},
};

fn attach(viewer: u8, attempt: u64, output: Option<u64>) -> Attach {
    Attach {
        viewer: Id::from_bytes([viewer; 16]),
        attempt,
        which: Which::default(),
        create: false,
        command: None,
        account: None,
        terminal: Terminal { term: String::new(), columns: 80, rows: 24, width: 0, height: 0 },
        env: BTreeMap::new(),
        read_only: false,
        output,
        history: 0,
    }
}

fn hub() -> Hub {
    Hub::new(Size { columns: 80, rows: 24, width: 0, height: 0 }, 4)
}

fn drain(hub: &mut Hub, place: Place) -> Vec<Frame> {
    let mut frames = Vec::new();
    loop {
        match hub.next(place, Instant::now()) {
            Next::Frame(frame) => frames.push(frame),
            Next::Last(frame) => {
                frames.push(frame);
                return frames;
            }
            Next::Wait | Next::Over => return frames,
        }
    }
}

fn text(frames: &[Frame]) -> String {
    let outputs = frames.iter().filter_map(|frame| match frame {
        Frame::Output(_, bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        _ => None,
    });
    outputs.collect()
}

#[test]
fn input_is_taken_once_and_never_from_an_attachment_that_was_taken_over() {
    let (mut hub, now) = (hub(), Instant::now());
    let (old, _) = hub.attach(&attach(1, 1, None), true, None, now).unwrap();
    hub.arrived(old, Frame::Input(0, Bytes::from_static(b"abc")), now).unwrap();
    let (new, beginning) = hub.attach(&attach(1, 2, Some(0)), false, None, now).unwrap();
    assert_eq!(beginning, Beginning { resumed: true, input: 3, output: 0 });
    // What the old stream still carries, and what the new one repeats.
    hub.arrived(old, Frame::Input(3, Bytes::from_static(b"d")), now).unwrap();
    hub.arrived(new, Frame::Input(0, Bytes::from_static(b"abcd")), now).unwrap();
    hub.arrived(new, Frame::Input(1, Bytes::from_static(b"bc")), now).unwrap();
    let typed: Vec<u8> = std::iter::from_fn(|| hub.take_input()).flat_map(|(_, it)| it).collect();
    assert_eq!(typed, b"abcd");
    assert!(hub.arrived(new, Frame::Input(5, Bytes::from_static(b"f")), now).is_err());
    assert!(matches!(hub.next(old, now), Next::Last(_)));
    let late = hub.attach(&attach(1, 2, Some(0)), false, None, now).unwrap_err();
    assert_eq!(late.code, RefusalCode::Stale);
}

#[test]
fn the_first_viewer_sees_what_was_written_before_it_came() {
    let (mut hub, now) = (hub(), Instant::now());
    hub.output(b"early");
    let (place, beginning) = hub.attach(&attach(1, 1, None), true, None, now).unwrap();
    assert_eq!(beginning, Beginning { resumed: true, input: 0, output: 0 });
    assert_eq!(text(&drain(&mut hub, place)), "early");
}

#[test]
fn output_goes_on_where_the_viewer_is_and_a_gap_is_a_screen() {
    let (mut hub, now) = (hub(), Instant::now());
    let (place, _) = hub.attach(&attach(1, 1, None), true, None, now).unwrap();
    hub.output(b"hello ");
    assert_eq!(text(&drain(&mut hub, place)), "hello ");
    hub.arrived(place, Frame::Ack(6), now).unwrap();
    hub.lost(place);
    hub.output(b"world");
    let (place, beginning) = hub.attach(&attach(1, 2, Some(6)), false, None, now).unwrap();
    assert!(beginning.resumed && beginning.output == 6);
    assert_eq!(text(&drain(&mut hub, place)), "world");
    assert!(hub.arrived(place, Frame::Ack(12), now).is_err());
    hub.lost(place);
    hub.output(&vec![b'x'; 5 * 1024 * 1024]);
    let (place, beginning) = hub.attach(&attach(1, 3, Some(11)), false, None, now).unwrap();
    assert!(!beginning.resumed);
    let frames = drain(&mut hub, place);
    assert!(matches!(&frames[0], Frame::Control(json) if json.ends_with(b"\"missed\":5242880}")));
    assert!(matches!(frames[1], Frame::Screen(_)));
    hub.output(b"!");
    assert_eq!(text(&drain(&mut hub, place)), "!");
}

#[test]
fn an_absent_viewer_holds_the_program_for_a_while_and_a_read_only_one_never() {
    let (mut hub, now) = (hub(), Instant::now());
    let (place, _) = hub.attach(&attach(1, 1, None), true, None, now).unwrap();
    let mut other = attach(2, 1, None);
    other.read_only = true;
    hub.attach(&other, false, None, now).unwrap();
    hub.output(&vec![b'x'; 300 * 1024]);
    // The only one that types holds it for as long as it likes.
    assert_eq!(hub.hold(now + Duration::from_secs(3600)), Hold::UntilRead);
    hub.lost(place);
    assert_eq!(hub.hold(now), Hold::No);
    hub.output(&vec![b'x'; 4 * 1024 * 1024 - 300 * 1024]);
    assert_eq!(hub.hold(now), Hold::Until(now + GRACE));
    assert_eq!(hub.hold(now + GRACE), Hold::No);
    // Somebody else is there: patience is short.
    let (third, _) = hub.attach(&attach(3, 1, None), false, None, now).unwrap();
    assert_eq!(hub.hold(now), Hold::Until(now + GRACE_SHARED));
    hub.lost(third);
}

#[test]
fn a_stalled_viewer_does_not_stop_the_others_for_long() {
    let (mut hub, now) = (hub(), Instant::now());
    let (stalled, _) = hub.attach(&attach(1, 1, None), true, None, now).unwrap();
    let (good, _) = hub.attach(&attach(2, 1, None), false, None, now).unwrap();
    drain(&mut hub, good);
    hub.output(&vec![b'x'; 256 * 1024]);
    let later = now + Duration::from_secs(100);
    while let Next::Frame(_) = hub.next(stalled, later) {}
    drain(&mut hub, good);
    hub.arrived(good, Frame::Ack(256 * 1024), later).unwrap();
    assert_eq!(hub.hold(later), Hold::Until(later + GRACE_SHARED));
    assert_eq!(hub.hold(later + GRACE_SHARED), Hold::No);
}

#[test]
fn the_terminal_has_the_size_of_the_smallest_that_types() {
    let (mut hub, now) = (hub(), Instant::now());
    let size = |columns, rows| Size { columns, rows, width: 0, height: 0 };
    let (first, _) = hub.attach(&attach(1, 1, None), true, None, now).unwrap();
    let mut small = attach(2, 1, None);
    (small.terminal.columns, small.terminal.rows) = (60, 40);
    let (second, _) = hub.attach(&small, false, None, now).unwrap();
    assert_eq!(hub.take_resize(), Some(size(60, 24)));
    small.read_only = true;
    small.viewer = Id::from_bytes([3; 16]);
    small.terminal.rows = 5;
    hub.attach(&small, false, None, now).unwrap();
    assert_eq!(hub.take_resize(), None);
    hub.detach(second);
    assert_eq!(hub.take_resize(), Some(size(80, 24)));
    hub.arrived(first, Frame::Resize(size(100, 30)), now).unwrap();
    assert_eq!(hub.take_resize(), Some(size(100, 30)));
    hub.arrived(first, Frame::Resize(size(0, 0)), now).unwrap();
    assert_eq!(hub.take_resize(), None);
}

#[test]
fn viewers_and_their_input_are_bounded() {
    let (mut hub, now) = (hub(), Instant::now());
    let places: Vec<Place> =
        (0..4).map(|n| hub.attach(&attach(n, 1, None), n == 0, None, now).unwrap().0).collect();
    let refused = hub.attach(&attach(9, 1, None), false, None, now).unwrap_err();
    assert_eq!(refused.code, RefusalCode::Limit);
    hub.lost(places[2]);
    hub.attach(&attach(9, 1, None), false, None, now).unwrap();
    // The one that was forgotten for it cannot go on.
    let gone = hub.attach(&attach(2, 2, Some(0)), false, None, now).unwrap_err();
    assert_eq!(gone.code, RefusalCode::Gone);
    let flood = Bytes::from(vec![0; 64 * 1024]);
    hub.arrived(places[0], Frame::Input(0, flood), now).unwrap();
    let more = Frame::Input(64 * 1024, Bytes::from_static(b"x"));
    assert_eq!(hub.arrived(places[0], more, now).unwrap_err().code, RefusalCode::Protocol);
}

#[test]
fn the_end_comes_after_all_output() {
    let (mut hub, now) = (hub(), Instant::now());
    let (place, _) = hub.attach(&attach(1, 1, None), true, None, now).unwrap();
    hub.output(b"bye");
    hub.exited(Exit { status: Some(3), signal: None });
    let frames = drain(&mut hub, place);
    assert_eq!(text(&frames[..1]), "bye");
    assert_eq!(frames.len(), 2);
    hub.lost(place);
    // It was lost on the way.
    let (place, _) = hub.attach(&attach(1, 2, Some(0)), false, None, now).unwrap();
    assert_eq!(drain(&mut hub, place), frames);
    let late = hub.attach(&attach(2, 1, None), false, None, now).unwrap_err();
    assert_eq!(late.code, RefusalCode::Gone);
}

#[test]
fn a_screen_that_did_not_arrive_is_painted_again() {
    let (mut hub, now) = (hub(), Instant::now());
    let (place, _) = hub.attach(&attach(1, 1, None), true, None, now).unwrap();
    hub.output(b"hello ");
    drain(&mut hub, place);
    hub.arrived(place, Frame::Ack(6), now).unwrap();
    hub.lost(place);
    hub.output(&vec![b'x'; 5 * 1024 * 1024]);
    for attempt in 2..5 {
        let (place, beginning) =
            hub.attach(&attach(1, attempt, Some(6)), false, None, now).unwrap();
        assert!(!beginning.resumed, "{attempt}");
        let Next::Frame(Frame::Control(json)) = hub.next(place, now) else { panic!() };
        assert!(json.ends_with(b"\"missed\":5242880}"), "{json:?}");
        hub.lost(place);
    }
    let seen = Some(6 + 5 * 1024 * 1024);
    let (_, beginning) = hub.attach(&attach(1, 9, seen), false, None, now).unwrap();
    assert!(beginning.resumed && Some(beginning.output) == seen);
}

#[test]
fn an_ack_of_what_an_earlier_attachment_sent_is_none_of_what_was_never_sent() {
    let (mut hub, now) = (hub(), Instant::now());
    let (place, _) = hub.attach(&attach(1, 1, None), true, None, now).unwrap();
    hub.output(b"hello world");
    drain(&mut hub, place);
    let (place, _) = hub.attach(&attach(1, 2, Some(0)), false, None, now).unwrap();
    // It arrived after the new attachment had been asked for.
    hub.arrived(place, Frame::Ack(11), now).unwrap();
    assert_eq!(text(&drain(&mut hub, place)), "hello world");
    assert!(hub.arrived(place, Frame::Ack(12), now).is_err());
    hub.output(b"!");
    assert_eq!((text(&drain(&mut hub, place)), hub.ring.start()), ("!".into(), 11));
}

#[test]
fn what_a_forgotten_viewer_typed_is_not_credited_to_the_next_one() {
    let (mut hub, now) = (hub(), Instant::now());
    let (place, _) = hub.attach(&attach(1, 1, None), true, None, now).unwrap();
    hub.arrived(place, Frame::Input(0, Bytes::from_static(b"0123456789")), now).unwrap();
    hub.arrived(place, Frame::Detach, now).unwrap();
    let (place, beginning) = hub.attach(&attach(1, 2, None), false, None, now).unwrap();
    assert_eq!(beginning.input, 0);
    let (serial, bytes) = hub.take_input().unwrap();
    hub.taken(serial, bytes.len());
    assert!(!drain(&mut hub, place).iter().any(|it| matches!(it, Frame::Ack(_))));
    hub.arrived(place, Frame::Input(0, Bytes::from_static(b"x")), now).unwrap();
    let (serial, bytes) = hub.take_input().unwrap();
    hub.taken(serial, bytes.len());
    assert_eq!(drain(&mut hub, place), [Frame::Ack(1)]);
}

#[test]
fn a_new_session_begins_at_its_beginning() {
    let (mut hub, now) = (hub(), Instant::now());
    let (_, beginning) = hub.attach(&attach(1, 1, Some(5)), true, None, now).unwrap();
    assert_eq!(beginning, Beginning { resumed: true, input: 0, output: 0 });
}

#[test]
fn a_read_only_viewer_types_nothing() {
    let (mut hub, now) = (hub(), Instant::now());
    let mut onlooker = attach(1, 1, None);
    onlooker.read_only = true;
    let (place, _) = hub.attach(&onlooker, true, None, now).unwrap();
    let typed = Frame::Input(0, Bytes::from_static(b"x"));
    assert_eq!(hub.arrived(place, typed, now).unwrap_err().code, RefusalCode::Protocol);
}

#[test]
fn input_that_the_program_does_not_take_survives_a_new_attachment() {
    let mut world = World::new();
    world.stuck = true;
    world.type_in(&vec![b'x'; 200 * 1024]);
    for _ in 0..3 {
        world.deliver(0, usize::MAX, usize::MAX);
        world.connect(0);
    }
    world.stuck = false;
    for _ in 0..8 {
        world.deliver(0, usize::MAX, usize::MAX);
    }
    assert!(world.taken == world.typed && world.state.is_idle());
}

/// One stream between a hub and a client, which may end after any byte in either direction.
struct Line {
    place: Place,
    up: BytesMut,
    down: BytesMut,
    node: Decoder,
    client: Decoder,
}

/// A viewer, its node and what lies between.
struct World {
    hub: Hub,
    state: State,
    lines: Vec<Line>,
    attempt: u64,
    typed: Vec<u8>,
    written: Vec<u8>,
    shown: Vec<u8>,
    taken: Vec<u8>,
    /// Whether the program takes no input.
    stuck: bool,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            hub: hub(),
            state: State::default(),
            lines: Vec::new(),
            attempt: 0,
            typed: Vec::new(),
            written: Vec::new(),
            shown: Vec::new(),
            taken: Vec::new(),
            stuck: false,
            now: Instant::now(),
        };
        world.connect(0);
        world
    }

    /// A newer attachment. The client reads no more of the one before; the node may.
    fn connect(&mut self, late: usize) {
        self.attempt += 1;
        let request = attach(1, self.attempt, self.state.place());
        // The old line may say more while the request is on its way.
        for _ in 0..late {
            self.deliver(0, usize::MAX, usize::MAX);
        }
        let fresh = self.attempt == 1;
        let (place, begun) = self.hub.attach(&request, fresh, None, self.now).unwrap();
        let attached = Attached {
            session: request.viewer,
            name: Name::main(),
            created: fresh,
            resumed: begun.resumed,
            read_only: false,
            input: begun.input,
            output: begun.output,
            input_window: INPUT_WINDOW,
            output_window: OUTPUT_WINDOW,
            columns: 80,
            rows: 24,
            viewers: 1,
            account: String::new(),
        };
        self.state.attached(&attached).unwrap();
        let (node, client) = (Decoder::new(Sender::Client), Decoder::new(Sender::Node));
        let line = Line { place, up: BytesMut::new(), down: BytesMut::new(), node, client };
        self.lines.insert(0, line);
        self.lines.truncate(3);
    }

    /// Moves so many bytes each way on a line; only the newest reaches the client.
    fn deliver(&mut self, line: usize, up: usize, down: usize) {
        let newest = line == 0;
        let Some(line) = self.lines.get_mut(line) else { return };
        if newest {
            while let Some(frame) = self.state.next() {
                frame.encode(&mut line.up);
            }
            while let Next::Frame(frame) = self.hub.next(line.place, self.now) {
                frame.encode(&mut line.down);
            }
        }
        let moved = line.up.split_to(up.min(line.up.len()));
        line.node.buffer().extend_from_slice(&moved);
        while let Some(frame) = line.node.frame().unwrap() {
            self.hub.arrived(line.place, frame, self.now).unwrap();
        }
        while !self.stuck
            && let Some((viewer, bytes)) = self.hub.take_input()
        {
            self.taken.extend_from_slice(&bytes);
            self.hub.taken(viewer, bytes.len());
        }
        if newest {
            let moved = line.down.split_to(down.min(line.down.len()));
            line.client.buffer().extend_from_slice(&moved);
            while let Some(frame) = line.client.frame().unwrap() {
                if let Heard::Output(bytes, end) = self.state.heard(frame).unwrap() {
                    self.shown.extend_from_slice(&bytes);
                    self.state.written(end);
                }
                if let Some(end) = self.state.painted() {
                    // The screen stands for all before it.
                    self.shown = self.written[..usize::try_from(end).unwrap()].to_vec();
                    self.state.written(end);
                }
            }
        }
    }

    fn type_in(&mut self, bytes: &[u8]) {
        self.typed.extend_from_slice(bytes);
        self.state.typed(bytes);
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Write(bytes) => {
                self.written.extend_from_slice(bytes);
                self.hub.output(bytes);
            }
            Step::Type(bytes) => self.type_in(bytes),
            Step::Stick(stuck) => self.stuck = *stuck,
            Step::Move { line, up, down } => self.deliver(*line, *up, *down),
            Step::Lose => {
                if let Some(line) = self.lines.first() {
                    self.hub.lost(line.place);
                }
            }
            Step::Connect(late) => self.connect(*late),
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Write(Vec<u8>),
    Type(Vec<u8>),
    Stick(bool),
    Move { line: usize, up: usize, down: usize },
    Lose,
    Connect(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = || proptest::collection::vec(any::<u8>(), 1..40);
    prop_oneof![
        3 => bytes().prop_map(Step::Write),
        3 => bytes().prop_map(Step::Type),
        6 => (0usize..3, 0usize..60, 0usize..60)
            .prop_map(|(line, up, down)| Step::Move { line, up, down }),
        1 => Just(Step::Lose),
        1 => any::<bool>().prop_map(Step::Stick),
        2 => (0usize..2).prop_map(Step::Connect),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Whatever is cut where, and whichever old stream still speaks: every byte arrives
    /// once, in order, in both directions. Where the node keeps little a screen stands for
    /// what was missed.
    #[test]
    fn no_byte_is_lost_or_doubled(
        kept in prop_oneof![Just(None), (0usize..100).prop_map(Some)],
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let mut world = World::new();
        world.hub.most_kept = kept.unwrap_or(world.hub.most_kept);
        for step in &steps {
            world.step(step);
            prop_assert!(world.typed.starts_with(&world.taken));
            prop_assert!(world.written.starts_with(&world.shown));
        }
        world.stuck = false;
        world.connect(0);
        for _ in 0..4 {
            world.deliver(0, usize::MAX, usize::MAX);
        }
        prop_assert_eq!(&world.taken, &world.typed);
        prop_assert_eq!(&world.shown, &world.written);
        prop_assert!(world.state.is_idle());
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    /// No frames of a client make the node panic or keep more than it may.
    #[test]
    fn hostile_frames_are_refused(frames in proptest::collection::vec((0u8..6, any::<u64>(), 0usize..70_000), 1..40)) {
        let (mut hub, now) = (hub(), Instant::now());
        let (place, _) = hub.attach(&attach(1, 1, None), true, None, now).unwrap();
        for (kind, number, length) in frames {
            let frame = match kind {
                0 => Frame::Ack(number),
                1 => Frame::Input(number % 70_000, Bytes::from(vec![0; length.clamp(1, MAX)])),
                2 => Frame::Control(Bytes::from_static(b"{}")),
                3 => Frame::Pong(number),
                4 => Frame::Resize(Size { columns: u16::try_from(number % 70_000).unwrap_or(0), rows: u16::try_from(length).unwrap_or(0), width: 0, height: 0 }),
                _ => { hub.output(&vec![b'x'; length]); Frame::Ping(number) }
            };
            let _ = hub.arrived(place, frame, now);
            while let Next::Frame(_) = hub.next(place, now) {}
            prop_assert!(hub.typed_len <= 64 * 1024);
        }
    }
}

const MAX: usize = 64 * 1024;
