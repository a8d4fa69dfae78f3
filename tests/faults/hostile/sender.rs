//! A hostile sender against `serve`.

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use testkit::{Content, Process, TempTree, Watch, assert_same};

use super::{
    link::{ABORT, Heard, Link, PATIENCE, REFUSED},
    messages::{self, Case, Message, VOLUME, bomb, varint},
};
use crate::{counts, judge::wait_until_free, pod::Pod};

/// Cases at a time, each against a volume of its own.
const LANES: usize = 6;
/// How long it is waited for an answer that need not come.
const PAUSE: Duration = Duration::from_millis(40);
/// What the server may have resident in all, in bytes, with a window of 32 MiB for each of its sessions.
const MEMORY: u64 = 300 << 20;

/// The same where a sender floods it, with a memory budget of 512 MiB.
const PENDING: u64 = 700 << 20;
/// What such a sender announces, in bytes.
const FLOOD: usize = 900 << 20;

/// The exit code of a session over its memory budget.
const OVER_BUDGET: u8 = 22;

const WELCOME: u8 = 3;
const COMMIT: u8 = 55;

/// When a message is said.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// In place of the hello.
    First,
    Welcomed,
    /// Behind listings that have content asked for.
    Listed,
    /// Behind the end of the listing.
    Ended,
    /// In place of the goodbye.
    Committed,
}
use Phase::{Committed, Ended, First, Listed, Welcomed};

/// A server, volumes with something to lose, and something outside of them.
struct Stage {
    pod: Pod,
    serve: Process,
    lanes: Vec<TempTree>,
    outside: Vec<Watch>,
}

impl Stage {
    fn new() -> Self {
        let lanes: Vec<_> = (0..LANES).map(|_| TempTree::below(Path::new("/dev/shm"))).collect();
        let outside = lanes.iter().map(|lane| canary(lane.path())).collect();
        let names: Vec<_> = (0..LANES).map(|lane| format!("v{lane}")).collect();
        let volumes = names.iter().map(String::as_str).zip(lanes.iter().map(TempTree::path));
        let pod = Pod::new();
        let serve = pod.serve(&volumes.collect::<Vec<_>>(), &["--timeout", "20"]);
        Self { pod, serve, lanes, outside }
    }

    fn connect(&self) -> Link {
        Link::connect(self.pod.server, &self.pod.pki.source())
    }

    /// Says one message, or more, at a phase of a session with the volume of a lane.
    fn try_case(&self, lane: usize, phase: Phase, cases: &[Case]) {
        let tree = self.lanes[lane].clear();
        tree.file("old", "old").file("sub/inner", "older").file("large", vec![7; 2 << 20]);
        let mut link = self.connect();
        advance(&mut link, phase, &format!("v{lane}"));
        let last = cases.iter().map(|case| link.say(case.kind, &case.body)).last();
        let said = || {
            let names: Vec<_> = cases.iter().map(|case| case.name.as_str()).collect();
            format!("{phase:?}, {names:?}, {last:?}")
        };
        let must_refuse = cases.iter().any(|case| case.broken);
        if matches!(phase, Listed) {
            // Whoever waits for more would not tell what it thinks of what came.
            let end = messages::end_of_listing();
            link.say(end.kind, &end.body);
        }
        let patience = if must_refuse { PATIENCE } else { PAUSE };
        let heard = link.hear_one_of(&[ABORT, REFUSED, COMMIT], patience);
        if let Heard::Frame(ABORT | REFUSED, body) = &heard {
            let text = String::from_utf8_lossy(body);
            assert!(!text.contains("internal error"), "{}: {text}", said());
        }
        if must_refuse {
            let refused = match &heard {
                Heard::Frame(ABORT, body) => body.first() == Some(&2),
                Heard::Frame(REFUSED, body) => matches!(phase, First) && body.get(8) == Some(&7),
                _ => false,
            };
            assert!(refused, "{}: {heard:?}", said());
        }
        drop(link);
        wait_until_free(self.lanes[lane].path());
    }

    fn try_all(&self, plays: &[(Phase, Vec<Case>)]) {
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            for lane in 0..LANES {
                let next = &next;
                scope.spawn(move || {
                    while let Some((phase, cases)) = plays.get(next.fetch_add(1, Ordering::Relaxed))
                    {
                        self.try_case(lane, *phase, cases);
                    }
                });
            }
        });
    }

    /// Fails unless the server is what it was: in good health, small, and alone with its volumes.
    fn end(self) {
        for (lane, watch) in self.outside.iter().enumerate() {
            assert_eq!(watch.seen(), [""; 0], "outside of the volume {lane}");
        }
        let peak = self.serve.peak_memory();
        assert!(peak < MEMORY, "{peak} bytes");
        let source = TempTree::new();
        source.populate(1, 50);
        for (lane, tree) in self.lanes.iter().enumerate() {
            let identity = self.pod.pki.source();
            let route = [
                "--connect",
                &self.pod.server.to_string(),
                "--identity",
                identity.to_str().unwrap(),
            ];
            let volume = format!("v{lane}");
            Process::run(self.pod.sync_by(&route, source.path(), &volume, &["--delete"])).expect(0);
            assert_same(source.path(), tree.path());
        }
        self.serve.terminate();
        let stderr = self.serve.wait().stderr;
        assert!(!stderr.contains("panicked") && !stderr.contains("internal error"), "{stderr}");
    }
}

/// Something beside a volume that nobody may touch.
fn canary(volume: &Path) -> Watch {
    let path = volume.parent().unwrap().join("canary");
    std::fs::create_dir_all(path.join("sub")).unwrap();
    for name in ["old", "large", "sub/inner"] {
        std::fs::write(path.join(name), "outside").unwrap();
    }
    Watch::over(&path)
}

/// Brings a session to a phase.
fn advance(link: &mut Link, phase: Phase, volume: &str) {
    if matches!(phase, First) {
        return;
    }
    let mut hello = hello(volume, 30, false);
    if matches!(phase, Committed) {
        // What it lists there is empty.
        hello.fields[VOLUME + 12] = messages::Field::Byte { right: 1, wrong: &[] };
    }
    let hello = hello.case();
    link.say(hello.kind, &hello.body);
    let heard = link.hear(PATIENCE);
    assert!(matches!(heard, Heard::Frame(WELCOME, _)), "{heard:?}");
    let root = messages::root();
    link.say(root.kind, &root.body);
    match phase {
        First | Welcomed => {}
        Listed | Ended => {
            let listing = messages::listing_of_root();
            link.say(listing.kind, &listing.body);
            if matches!(phase, Ended) {
                let end = messages::end_of_listing();
                link.say(end.kind, &end.body);
            }
        }
        Committed => {
            for message in [messages::listing_of_nothing(), messages::end_of_listing()] {
                link.say(message.kind, &message.body);
            }
            let heard = link.hear_one_of(&[ABORT, COMMIT], PATIENCE);
            assert!(matches!(heard, Heard::Frame(COMMIT, _)), "{heard:?}");
        }
    }
}

/// A hello for `volume` with a time-out of its own.
fn hello(volume: &str, timeout: u64, delete: bool) -> Message {
    let mut hello = messages::hello(volume);
    hello.fields[VOLUME + 5] = messages::Field::Number { right: timeout, min: 0, max: u64::MAX };
    hello.fields[VOLUME + 6] = messages::Field::Byte { right: u8::from(delete), wrong: &[] };
    hello
}

#[test]
fn every_message_of_a_sender_spoilt_in_every_way() {
    let stage = Stage::new();
    let spoilt = messages::to_receiver().into_iter().flat_map(|message| message.spoilt());
    let plays: Vec<_> = spoilt.map(|case| (Listed, vec![case])).collect();
    stage.try_all(&plays);
    stage.end();
    counts::tell("hostile sender, messages spoilt", plays.len());
}

#[test]
fn every_opening_spoilt_in_every_way() {
    let stage = Stage::new();
    let openings = [messages::hello("v0"), messages::join()];
    let mut spoilt: Vec<_> = openings.iter().flat_map(Message::spoilt).collect();
    for volume in ["", "..", "../canary", "/", "v0/", "v0\0", "\u{1b}[2J", "v99"] {
        spoilt.push(messages::hello(volume).case());
    }
    for (index, opening) in openings.iter().enumerate() {
        let mut magic = opening.case();
        magic.body[index] ^= 0x20;
        spoilt.push(Case { broken: true, ..magic });
    }
    let plays: Vec<_> = spoilt.into_iter().map(|case| (First, vec![case])).collect();
    stage.try_all(&plays);
    stage.end();
    counts::tell("hostile sender, openings spoilt", plays.len());
}

#[test]
fn every_message_at_every_wrong_time() {
    let stage = Stage::new();
    let case = |message: &Message| message.case();
    let broken = |case: Case| Case { broken: true, ..case };
    let own: Vec<_> = messages::to_receiver().iter().map(case).collect();
    let openings =
        [messages::hello("v0"), messages::join(), messages::welcome(), messages::refused()];
    let openings = openings.each_ref().map(case).map(broken);
    // Numbers that both directions have are no sign of a mix-up.
    let mixed_up = messages::to_sender().into_iter().filter(|message| message.kind > 28);
    let mixed_up: Vec<_> = mixed_up.map(|message| broken(message.case())).collect();

    let mut plays = Vec::new();
    let mut play = |phase, cases: &[Case]| {
        plays.extend(cases.iter().map(|case| (phase, vec![case.clone()])));
    };
    play(First, &own.iter().cloned().map(broken).collect::<Vec<_>>());
    play(First, &mixed_up);
    play(First, &openings[2..]);
    for phase in [Welcomed, Listed, Ended, Committed] {
        play(phase, &own);
        play(phase, &mixed_up);
        play(phase, &openings);
    }
    let name = "GOODBYE in a bad wrapping".into();
    play(Committed, &[Case { name, kind: 27 | 0x80, body: vec![0], broken: true }]);
    plays.extend(own.iter().map(|case| (Listed, vec![case.clone(), case.clone()])));
    stage.try_all(&plays);
    stage.end();
    counts::tell("hostile sender, messages at the wrong time or twice", plays.len());
}

#[test]
fn bombs_and_lengths_beyond_everything() {
    let stage = Stage::new();
    let case = |name: &str, kind: u8, body| Case {
        name: name.into(),
        kind: kind | 0x80,
        body,
        broken: true,
    };
    let mut cases = Vec::new();
    for kind in [16, 18, 19, 27] {
        for claim in [0, 1, 2 << 20, (2 << 20) + 1, u64::MAX] {
            cases.push(case("64 MiB in 2 KiB", kind, bomb(512, claim)));
        }
        cases.push(case("less than it claims", kind, bomb(1, 2 << 20)));
        cases.push(case("a claim and nothing behind", kind, varint(2 << 20)));
    }
    let plays: Vec<_> = cases.into_iter().map(|case| (Listed, vec![case])).collect();
    stage.try_all(&plays);
    for phase in [First, Listed] {
        for length in [(2 << 20) + 1, 1 << 30, u32::MAX] {
            let mut link = stage.connect();
            advance(&mut link, phase, "v0");
            link.write(&[&length.to_le_bytes()[..], &[16]].concat());
            let heard = link.hear_one_of(&[ABORT, REFUSED], PATIENCE);
            assert!(matches!(heard, Heard::Frame(..)), "{phase:?} {length}: {heard:?}");
            drop(link);
            wait_until_free(stage.lanes[0].path());
        }
    }
    stage.end();
    counts::tell("hostile sender, bombs and lengths", plays.len() + 6);
}

/// Listings without end of what never comes to its end itself; each frame is taken in, so each brings new credit.
#[test]
fn what_is_announced_and_never_comes_does_not_fill_the_memory() {
    let value = [varint(60 << 10), vec![7; 60 << 10]].concat();
    let attribute = [varint(1), varint(6), b"user.a".to_vec(), value].concat();
    let ordinary = [0; 5];
    // What follows the name, and whether the server puts an end to it.
    let kinds = [
        ("directories", [&[2, 32][..], &ordinary, &attribute].concat(), true),
        ("files", [&[1, 32][..], &ordinary, &varint(1 << 20), &attribute].concat(), true),
        ("further names", [&[4, 33][..], &ordinary, &attribute, &varint(1)].concat(), false),
    ];
    for (what, rest, ends) in &kinds {
        let stage = Stage::new();
        let mut link = stage.connect();
        advance(&mut link, Welcomed, "v0");
        let ended = flood(&mut link, rest);
        let peak = stage.serve.peak_memory();
        assert_eq!(ended, *ends, "{what}");
        let limit = if *ends { PENDING } else { MEMORY };
        assert!(peak < limit, "{what}: {peak} bytes");
        drop(link);
        wait_until_free(stage.lanes[0].path());
    }
    counts::tell("hostile sender, floods", kinds.len());
}

/// Lists entries of the root without end; true where the server ended it with a word.
fn flood(link: &mut Link, rest: &[u8]) -> bool {
    // The window of `serve`, in bytes.
    let (mut left, mut id) = (16 << 20, 10);
    for _ in 0..FLOOD / (2 << 20) {
        let mut body = [vec![0], varint(0), varint(id)].concat();
        while body.len() + rest.len() + 20 < 2 << 20 {
            body.extend([varint(10), format!("{id:010}").into_bytes(), rest.to_vec()].concat());
            id += 1;
        }
        let cost = body.len() as u64 + 5;
        while left < cost {
            match link.hear(PATIENCE) {
                Heard::Frame(5, credit) => left += unvarint(&credit),
                Heard::Frame(ABORT, body) => return body[0] == OVER_BUDGET,
                Heard::Frame(..) => {}
                heard => panic!("{heard:?}"),
            }
        }
        left -= cost;
        if !link.say(16, &body) {
            return matches!(link.hear_one_of(&[ABORT], PATIENCE), Heard::Frame(ABORT, body) if body[0] == OVER_BUDGET);
        }
    }
    false
}

fn unvarint(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f))
}

/// A sender that is silent after the welcome is told so in time, whatever it asked for.
#[test]
fn no_sender_makes_the_server_more_patient() {
    let (pod, tree) = (Pod::new(), TempTree::new());
    tree.file("old", Content::from("old"));
    let _serve = pod.serve(&[("a", tree.path())], &["--timeout", "2"]);
    let wishes = [0, 1, 3600, u64::from(u32::MAX)];
    for wish in wishes {
        let mut link = Link::connect(pod.server, &pod.pki.source());
        let hello = hello("a", wish, true).case();
        link.say(hello.kind, &hello.body);
        assert!(matches!(link.hear(PATIENCE), Heard::Frame(WELCOME, _)));
        let begun = std::time::Instant::now();
        let heard = link.hear_one_of(&[ABORT], PATIENCE);
        assert!(matches!(&heard, Heard::Frame(ABORT, body) if body[0] == 30), "{wish}: {heard:?}");
        assert!(begun.elapsed() < Duration::from_secs(8), "{wish}: {:?}", begun.elapsed());
        drop(link);
        wait_until_free(tree.path());
    }
    counts::tell("hostile sender, time-outs asked for", wishes.len());
}

/// What is not asked for by a listing that is complete, and by the wish to delete, stays.
#[test]
fn no_sender_removes_more_than_it_may() {
    let stage = Stage::new();
    let flags = [(false, 3), (true, 1), (true, 2), (true, 0), (true, 3), (true, 5), (true, 7)];
    let cases = flags.map(|(delete, listing)| (delete, listing, false));
    // The last one is meant: without it nothing shows that the others come far enough to delete.
    for (delete, listing, meant) in cases.into_iter().chain([(true, 3, true)]) {
        let tree = stage.lanes[0].clear();
        tree.file("old", "old").file("sub/inner", "older");
        let mut link = stage.connect();
        let mut hello = hello("v0", 5, delete);
        hello.fields[VOLUME + 12] = messages::Field::Byte { right: u8::from(meant), wrong: &[] };
        let hello = hello.case();
        link.say(hello.kind, &hello.body);
        assert!(matches!(link.hear(PATIENCE), Heard::Frame(WELCOME, _)));
        // A root without entries; delete is set, and an empty source was not meant.
        let mut nothing = messages::listing_of_nothing();
        nothing.body[0] = listing;
        for message in [messages::root(), nothing, messages::end_of_listing()] {
            link.say(message.kind, &message.body);
        }
        link.hear_one_of(&[ABORT, COMMIT], PATIENCE);
        drop(link);
        wait_until_free(tree.path());
        let case = format!("delete {delete}, listing flags {listing}");
        for path in ["old", "sub/inner"] {
            assert_eq!(tree.at(path).exists(), !meant, "{path}: {case}");
        }
    }
    stage.end();
    counts::tell("hostile sender, listings that would delete", flags.len());
}
