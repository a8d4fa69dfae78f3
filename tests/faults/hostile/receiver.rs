//! A hostile receiver against `sync`.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use testkit::{Content, Finished, Process, Snapshot, TempTree};

use super::{
    link::{ABORT, Heard, Link, PATIENCE},
    messages::{self, Case, Message, bomb},
};
use crate::{
    counts,
    pod::Pod,
    support::{assert_untouched, report},
};

const LANES: usize = 4;
/// How long the sender may still be heard when it need not end.
const PAUSE: Duration = Duration::from_millis(40);
/// What a `sync` may have resident while it is flooded, in bytes.
const MEMORY: u64 = 150 << 20;

const END_OF_LISTING: u8 = 17;
const GOODBYE: u8 = 27;

/// When a message is said.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// In place of the welcome.
    First,
    /// When everything is listed, and one file is being compared.
    Asked,
    /// Behind a commit record that is wrong.
    Committed,
}
use Phase::{Asked, Committed, First};

struct Stage {
    pod: Pod,
    source: TempTree,
    before: Snapshot,
}

impl Stage {
    fn new() -> Self {
        let source = TempTree::new();
        source.file("large", Content::random(1, 2 << 20)).file("sub/inner", "inner");
        let before = Snapshot::of(source.path());
        Self { pod: Pod::new(), source, before }
    }

    /// A `sync` that meets `play` in place of a server.
    fn against(
        &self,
        lane: usize,
        timeout: u32,
        play: impl FnOnce(&mut Link, &Process),
    ) -> Finished {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let identity = self.pod.pki.source();
        let address = listener.local_addr().unwrap().to_string();
        let route = ["--connect", &address, "--identity", identity.to_str().unwrap()];
        let timeout = timeout.to_string();
        let options = ["--delete", "--attempts", "1", "--wait", "0", "--timeout", &timeout];
        let volume = format!("v{lane}");
        let sync = Process::start(self.pod.sync_by(&route, self.source.path(), &volume, &options));
        let mut link = Link::accept(&listener, &self.pod.pki.destination());
        assert!(matches!(link.hear(PATIENCE), Heard::Frame(1, _)));
        play(&mut link, &sync);
        drop(link);
        sync.wait()
    }

    fn try_case(&self, lane: usize, phase: Phase, cases: &[Case]) {
        let must_refuse = cases.iter().any(|case| case.broken);
        let mut heard = Heard::Silence;
        let finished = self.against(lane, 20, |link, _| {
            advance(link, phase);
            for case in cases {
                link.say(case.kind, &case.body);
            }
            let patience = if must_refuse { PATIENCE } else { PAUSE };
            heard = link.hear_one_of(&[ABORT, GOODBYE], patience);
        });
        let names: Vec<_> = cases.iter().map(|case| case.name.as_str()).collect();
        let said =
            format!("{phase:?}, {names:?}: {heard:?}, {}\n{}", finished.status, finished.stderr);
        let code = finished.code();
        assert_ne!(code, 0, "a false success: {said}");
        if must_refuse {
            assert_eq!(code, 2, "{said}");
        }
        assert!(
            !finished.stderr.contains("panicked") && !said.contains("internal error"),
            "{said}"
        );
        let told = finished.stderr.lines().filter(|line| line.starts_with("pvferry: ")).count();
        assert!(told >= 1, "no reason given: {said}");
        let shown = [&finished.stderr, &finished.stdout];
        let harmless = |text: &&String| !text.contains(|c: char| c.is_control() && c != '\n');
        assert!(shown.iter().all(harmless), "control characters: {said}");
        assert_eq!(report(&finished)["exit_code"], code);
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
        assert_untouched(&self.before, self.source.path());
    }
}

/// Brings a session to a phase.
fn advance(link: &mut Link, phase: Phase) {
    if matches!(phase, First) {
        return;
    }
    let mut welcome = messages::welcome();
    // Nothing is lost: there would be a note of it.
    welcome.fields.truncate(welcome.fields.len() - 2);
    let mut welcome = welcome.case();
    welcome.body.push(0);
    link.say(welcome.kind, &welcome.body);
    let heard = link.hear_one_of(&[END_OF_LISTING, ABORT], PATIENCE);
    assert!(matches!(heard, Heard::Frame(END_OF_LISTING, _)), "{heard:?}");
    let of_kind = |kind, name| {
        let mut messages = messages::to_sender().into_iter();
        messages.find(|message| message.kind == kind && message.name.contains(name)).unwrap().case()
    };
    match phase {
        First => {}
        Asked => {
            let plan = of_kind(48, "delta");
            link.say(plan.kind, &plan.body);
        }
        Committed => {
            for first in [1, 3] {
                link.say(48, &[first, 0, 0, 0, 0]);
            }
            let commit = of_kind(55, "");
            link.say(commit.kind, &commit.body);
            let heard = link.hear_one_of(&[GOODBYE, ABORT], PATIENCE);
            assert!(matches!(heard, Heard::Frame(GOODBYE, _)), "{heard:?}");
        }
    }
}

#[test]
fn every_message_of_a_receiver_spoilt_in_every_way() {
    let stage = Stage::new();
    let spoilt = messages::to_sender().into_iter().flat_map(|message| message.spoilt());
    let plays: Vec<_> = spoilt.map(|case| (Asked, vec![case])).collect();
    stage.try_all(&plays);
    counts::tell("hostile receiver, messages spoilt", plays.len());
}

#[test]
fn every_answer_to_a_hello_spoilt_in_every_way() {
    let stage = Stage::new();
    let spoilt = [messages::welcome(), messages::refused()];
    let plays: Vec<_> =
        spoilt.iter().flat_map(Message::spoilt).map(|case| (First, vec![case])).collect();
    stage.try_all(&plays);
    counts::tell("hostile receiver, answers to a hello spoilt", plays.len());
}

#[test]
fn every_message_at_every_wrong_time() {
    let stage = Stage::new();
    let broken = |message: Message| Case { broken: true, ..message.case() };
    let own: Vec<_> = messages::to_sender().iter().map(Message::case).collect();
    let mixed_up = messages::to_receiver().into_iter().filter(|message| message.kind > 7);
    let mixed_up: Vec<_> = mixed_up.map(broken).collect();
    let mut plays = Vec::new();
    let mut play = |phase, cases: &[Case]| {
        plays.extend(cases.iter().map(|case| (phase, vec![case.clone()])));
    };
    play(First, &messages::to_sender().into_iter().map(broken).collect::<Vec<_>>());
    play(First, &[broken(messages::hello("a")), broken(messages::join())]);
    play(Asked, &mixed_up);
    // A stream that joins may be refused.
    play(Asked, &[broken(messages::welcome()), messages::refused().case()]);
    let wrapped =
        Case { name: "bomb".into(), kind: 50 | 0x80, body: bomb(512, 2 << 20), broken: true };
    play(Asked, &[wrapped]);
    play(Committed, &own);
    plays.extend(own.iter().map(|case| (Asked, vec![case.clone(), case.clone()])));
    stage.try_all(&plays);
    counts::tell("hostile receiver, messages at the wrong time or twice", plays.len());
}

#[test]
fn no_receiver_makes_a_sender_more_patient() {
    let stage = Stage::new();
    for phase in [First, Asked] {
        let begun = Instant::now();
        let finished = stage.against(0, 2, |link, _| {
            advance(link, phase);
            link.hear_one_of(&[ABORT], PATIENCE);
        });
        let code = finished.code();
        assert!([30, 35, 2, 5, 12].contains(&code), "{phase:?} {code} {}", finished.stderr);
        assert!(begun.elapsed() < Duration::from_secs(19), "{phase:?} {:?}", begun.elapsed());
    }
    counts::tell("hostile receiver, silences", 2);
}

/// What a receiver may say without being asked is much; it is not kept.
#[test]
fn a_flood_is_not_kept() {
    let stage = Stage::new();
    let text = |text: &str| [messages::varint(text.len() as u64), text.into()].concat();
    let long = "x".repeat(8 << 10);
    let floods: [(u8, Vec<u8>); 4] = [
        (53, [vec![23], text(&long), text(&long)].concat()),
        (54, text(&long)),
        (51, [vec![9, 0], vec![7; 16 << 10]].concat()),
        (5, messages::varint(u64::MAX)),
    ];
    for (kind, body) in &floods {
        let mut peak = 0;
        let finished = stage.against(0, 20, |link, sync| {
            advance(link, Asked);
            for _ in 0..(100 << 20) / (body.len() + 5).max(1 << 12) {
                if !link.say(*kind, body) {
                    break;
                }
            }
            link.hear_one_of(&[ABORT], PAUSE);
            peak = sync.peak_memory();
        });
        assert_ne!(finished.code(), 0);
        assert!(peak < MEMORY, "{kind}: {peak} bytes");
    }
    counts::tell("hostile receiver, floods", floods.len());
}
