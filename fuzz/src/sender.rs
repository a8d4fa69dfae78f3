//! The whole sending end against a receiver that says what it likes.
//!
//! Whatever it says: the sender reads nothing but its volume and changes nothing, and it takes no session for a
//! success whose commit record does not hold its own manifest, which nobody here can know.

use std::{collections::HashMap, fs, sync::LazyLock};

use arbitrary::Unstructured;
use delta::{HashKey, Layout, SignatureBlock, leaf_hashes};
use parking_lot::Mutex;
use session::{Error, Source, Summary, handshake};
use wire::{
    Commit, EntryId, Frame, Hello, Opening, Options, Plan, Problem, Reply, RootKind, ToReceiver,
    ToSender, VERSION, Want, WeakStrong, Welcome,
};

use crate::{
    heard::{Line, line},
    script::{byte, number, pick, rarely, some_bytes},
    stage::{SECRET, Seen, Stage, block_on, context, look_at, noise, way_out},
};

/// The source is only read, so it is made once.
static SOURCE: LazyLock<Mutex<(Stage, Vec<Seen>)>> = LazyLock::new(|| {
    let stage = Stage::new();
    stage.clear();
    let volume = stage.volume();
    let write = |name: &str, content: &[u8]| fs::write(volume.join(name), content);
    let made = fs::create_dir(volume.join("empty"))
        .and_then(|()| write("large", &LARGE_FILE))
        .and_then(|()| way_out(&volume, "link", "../outside/secret"))
        .and_then(|()| write("moved", &MOVED_FILE))
        .and_then(|()| way_out(&volume, "out", "../outside"))
        .and_then(|()| write("small", b"small"))
        .and_then(|()| fs::create_dir(volume.join("sub")))
        .and_then(|()| write("sub/inner", b"inner"));
    made.expect("the source is made");
    let seen = look_at(&volume);
    Mutex::new((stage, seen))
});

/// Ids follow from the order of names: empty, large, link, moved, out, small, sub; then inner.
const LARGE: u64 = 2;
const MOVED: u64 = 4;
const SUB: u64 = 7;
const INNER: u64 = 8;

static LARGE_FILE: LazyLock<Vec<u8>> = LazyLock::new(|| noise(3, 200_000));
static MOVED_FILE: LazyLock<Vec<u8>> = LazyLock::new(|| noise(4, 400_000));

/// A script: what the receiver welcomes the sender with, then messages.
pub fn sender(bytes: &[u8]) {
    let mut u = Unstructured::new(bytes);
    let source = SOURCE.lock();
    let (stage, seen) = &*source;
    let flags = byte(&mut u);
    let options = Options {
        delete: flags & 1 != 0,
        checksum: flags & 2 != 0,
        dry_run: flags & 12 == 12,
        verify: flags & 16 != 0,
        itemize: flags & 32 != 0,
        ..Options::default()
    };
    let dry_run = options.dry_run;
    let root = volume::Dir::open_root(&stage.volume()).expect("the source is opened");
    let (sent, heard) = block_on(async {
        let (near, far) = tokio::io::duplex(1 << 20);
        tokio::join!(send(near, options, root), play(far, &mut u))
    });
    match sent {
        Ok(summary) => assert!(dry_run || summary.exit_code != 0, "a false success"),
        Err(Error::Protocol(why)) => assert!(!why.contains("internal"), "{why}"),
        Err(error) => assert_ne!(error.exit_code(), 0, "{error}"),
    }
    let leaks =
        heard.split(|byte| *byte == SECRET[0]).any(|behind| behind.starts_with(&SECRET[1..]));
    assert!(!leaks, "what lies outside the volume was sent");
    stage.check_outside();
    assert_eq!(&look_at(&stage.volume()), seen, "the source was changed");
}

async fn send(
    mut stream: tokio::io::DuplexStream,
    options: Options,
    root: volume::Dir,
) -> Result<Summary, Error> {
    let hello = Hello {
        versions: (VERSION, VERSION),
        nonce: [7; 32],
        volume: "a".into(),
        root: RootKind::Tree,
        probe: false,
        window: 4 << 20,
        streams: 1,
        io_timeout: 20,
        options,
    };
    let agreed = handshake::open(&mut stream, hello).await?;
    session::send(vec![stream], agreed, Source::Tree(root), context()).await
}

/// Plays the receiver; all that the sender said.
async fn play(mut stream: tokio::io::DuplexStream, u: &mut Unstructured<'_>) -> Vec<u8> {
    let Ok(opening) = handshake::read_opening(&mut stream).await else { return Vec::new() };
    if rarely(u, 8) {
        let (mut line, ear) = line(stream);
        let answer = some_bytes(u, 255);
        let say = async {
            line.say_bytes(&answer).await;
            line.hang_up().await;
        };
        return tokio::join!(say, ear.listen()).1;
    }
    let welcome = Welcome {
        version: if rarely(u, 4) { number(u) as u32 } else { VERSION },
        nonce: [8; 32],
        session: [9; 16],
        fresh: byte(u).is_multiple_of(4),
        window: 4 << 20,
        streams: 1,
        losses: Vec::new(),
    };
    let answer = Reply::Welcome(Box::new(welcome));
    if handshake::reply(&mut stream, &answer).await.is_err() {
        return Vec::new();
    }
    let said = said(&opening, &answer);
    let session = blake3::derive_key("pvferry 2026 session", &said);
    let key = HashKey::new(blake3::derive_key("pvferry 2026 content", &session));
    let mut actor = Actor { key, manners: byte(u), bases: HashMap::new(), listed: false };
    let (mut line, ear) = line(stream);
    let script = async {
        while !actor.listed && actor.hear_one(&mut line, 20).await {}
        while !u.is_empty() && !line.is_over {
            actor.say_one(&mut line, u).await;
            while let Some(frame) = line.next_now() {
                actor.answer(&mut line, frame).await;
            }
        }
        while actor.hear_one(&mut line, 1).await {}
        line.say(&ToSender::Commit(Commit::default()).encode()).await;
        line.hang_up().await;
    };
    tokio::join!(script, ear.listen()).1
}

fn said(opening: &Opening, answer: &Reply) -> Vec<u8> {
    [opening.encode().head, answer.encode().head].concat()
}

/// The receiver of a script, and what it pretends to have.
struct Actor {
    key: HashKey,
    /// How it answers what it is asked.
    manners: u8,
    bases: HashMap<u64, Vec<u8>>,
    listed: bool,
}

impl Actor {
    /// Takes in one message, if one comes soon.
    async fn hear_one(&mut self, line: &mut Line, times: u32) -> bool {
        match line.next(times).await {
            Some(frame) => {
                self.answer(line, frame).await;
                true
            }
            None => false,
        }
    }

    async fn answer(&mut self, line: &mut Line, frame: Frame) {
        let message = ToReceiver::decode(frame).expect("the sender says what is a message");
        let answer = match message {
            ToReceiver::EndOfListing(_) => {
                self.listed = true;
                return;
            }
            ToReceiver::LeafRequest(id, segment) => self.leaves(id, segment),
            ToReceiver::BlockRequest(id, from, len, block_len) => {
                self.blocks(id, from, len, block_len)
            }
            _ => return,
        };
        if let Some(answer) = answer {
            line.say(&answer.encode()).await;
        }
    }

    fn leaves(&self, id: EntryId, segment: u32) -> Option<ToSender> {
        let basis = self.bases.get(&id.0)?;
        let layout = Layout::for_len(basis.len() as u64);
        let range = layout.segment_range(segment.into(), basis.len() as u64);
        let piece = &basis[range.start as usize..range.end as usize];
        let mut hashes: Vec<_> =
            leaf_hashes(&self.key, layout, piece).into_iter().map(|hash| hash.0).collect();
        match self.manners % 8 {
            0 => return None,
            1 => drop(hashes.pop()),
            2 => hashes.fill([1; 16]),
            _ => {}
        }
        Some(ToSender::Leaves(id, segment, hashes))
    }

    fn blocks(&self, id: EntryId, from: u64, len: u64, block_len: u32) -> Option<ToSender> {
        let basis = self.bases.get(&id.0)?;
        let piece = basis.get(from as usize..(from + len) as usize)?;
        let mut blocks: Vec<_> = piece
            .chunks(block_len as usize)
            .map(|block| SignatureBlock::of(&self.key, block))
            .map(|block| WeakStrong { weak: block.weak, strong: block.strong.0 })
            .collect();
        match (self.manners >> 3) % 8 {
            0 => return None,
            1 => drop(blocks.pop()),
            2 => blocks.iter_mut().for_each(|block| block.strong = [1; 16]),
            3 => blocks.reverse(),
            _ => {}
        }
        Some(ToSender::Blocks(id, blocks, self.manners < 0xf0))
    }

    async fn say_one(&mut self, line: &mut Line, u: &mut Unstructured<'_>) {
        let message = match byte(u) % 16 {
            0..3 => self.plan(u),
            3 => {
                let wants = (0..byte(u) % 4).map(|_| (id(u), self.want(u)));
                ToSender::Wanted(wants.collect())
            }
            4..7 => {
                let id = id(u);
                let layout = |basis: &Vec<u8>| Layout::for_len(basis.len() as u64);
                let basis = self.bases.get(&id.0).cloned().unwrap_or_default();
                let segments = basis.chunks(layout(&basis).segment_len() as usize);
                let hashes: Vec<_> = segments.map(|segment| self.key.hash(segment).0).collect();
                ToSender::Signature(id, 0, hashes, !rarely(u, 8))
            }
            7 => {
                let hashes = vec![[byte(u); 16]; usize::from(byte(u))];
                ToSender::Signature(id(u), number(u) as u32, hashes, byte(u).is_multiple_of(2))
            }
            8 => ToSender::Leaves(id(u), number(u) as u32, vec![[1; 16]; usize::from(byte(u))]),
            9 => {
                let block = WeakStrong { weak: number(u) as u32, strong: [2; 16] };
                ToSender::Blocks(
                    id(u),
                    vec![block; usize::from(byte(u))],
                    byte(u).is_multiple_of(2),
                )
            }
            10 => ToSender::Problem(Problem {
                name: "a".into(),
                what: "b".into(),
                exit_code: byte(u).max(1),
            }),
            11 => ToSender::Action("create a".into()),
            12 if byte(u).is_multiple_of(2) => ToSender::Ping,
            12 => ToSender::Credit(number(u)),
            13 => ToSender::Abort(byte(u).max(1), "no more".into()),
            14 => {
                while self.hear_one(line, 1).await {}
                let entries = number(u);
                ToSender::Commit(Commit { entries, problems: number(u), ..Commit::default() })
            }
            _ => {
                let kind = byte(u);
                line.say_raw(kind, &some_bytes(u, 200)).await;
                return;
            }
        };
        line.say(&message.encode()).await;
    }

    /// A plan of a listing that came, or of none.
    fn plan(&mut self, u: &mut Unstructured<'_>) -> ToSender {
        let (first, count) = match byte(u) % 8 {
            0..5 => (1, 7),
            5 | 6 => (INNER, 1),
            _ => (number(u), 7),
        };
        let mut plan = Plan { first, ..Plan::default() };
        for index in 0..count {
            let id = EntryId(first.wrapping_add(index));
            let is_dir = matches!(id.0, 1 | SUB);
            match byte(u) % 8 {
                0 | 1 if is_dir => plan.new_directories.push(index as u32),
                1 => plan.later.push(index as u32),
                2..6 if !is_dir || rarely(u, 4) => {
                    let want = self.want_of(u, id);
                    plan.wants.push((index as u32, want));
                }
                _ => {}
            }
        }
        ToSender::Plan(plan)
    }

    fn want(&mut self, u: &mut Unstructured<'_>) -> Want {
        match byte(u) % 4 {
            0 => Want::Whole,
            1 => Want::Delta { basis_len: number(u) >> 18, segment_log2: 16 + byte(u) % 15 },
            _ => self.want_of(u, EntryId(LARGE)),
        }
    }

    /// Asks for a file against a basis that is like it, or not.
    fn want_of(&mut self, u: &mut Unstructured<'_>, id: EntryId) -> Want {
        let content = match id.0 {
            LARGE => LARGE_FILE.clone(),
            MOVED => MOVED_FILE.clone(),
            INNER => b"inner".to_vec(),
            _ => b"small".to_vec(),
        };
        let basis = match byte(u) % 8 {
            0 => return Want::Whole,
            1 => content,
            2 => [&noise(5, 100)[..], &content].concat(),
            3 => content[content.len() / 3..].to_vec(),
            4 => {
                let mut content = content;
                let at = number(u) as usize % content.len();
                content[at] ^= 1;
                content
            }
            5 => [&content[..], &noise(6, 70_000)].concat(),
            6 => vec![0; content.len()],
            _ => noise(7, content.len()),
        };
        let basis_len = basis.len() as u64;
        self.bases.insert(id.0, basis);
        Want::Delta { basis_len, segment_log2: Layout::for_len(basis_len).segment_log2() }
    }
}

fn id(u: &mut Unstructured<'_>) -> EntryId {
    EntryId(if rarely(u, 4) {
        number(u)
    } else {
        pick(u, &[LARGE, MOVED, LARGE, MOVED, INNER, 6, 1, 0])
    })
}
