//! The whole receiving end, from the first byte on, against a sender that says what it likes.
//!
//! The script is made of messages that are mostly well-formed and that know each other's ids, so that many of them
//! get as far as the volume. A file that the script ends with the right digest may be published; any other may not.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsStr,
    fs,
    path::Path,
    sync::{LazyLock, Mutex},
};

use arbitrary::Unstructured;
use bytes::{BufMut, Bytes, BytesMut};
use delta::{HashKey, Layout};
use session::{Error, server::Server};
use wire::{
    Attributes, Ended, EntryId, FileKind, FilterAction, FilterRule, Frame, Goodbye, Hello,
    Metadata, Name, Opening, Options, Reply, RootKind, Timestamp, ToReceiver, ToSender, VERSION,
    frame::COMPRESSED, limits::MAX_HELLO,
};

use crate::{
    heard::{Line, line},
    script::{byte, number, pick, rarely, some_bytes},
    stage::{Seen, Stage, block_on, context, look_at, noise, way_out},
};

static STAGE: LazyLock<Mutex<Stage>> = LazyLock::new(|| Mutex::new(Stage::new()));

static LARGE: LazyLock<Vec<u8>> = LazyLock::new(|| noise(1, (1 << 20) + 5000));
static MIDDLE: LazyLock<Vec<u8>> = LazyLock::new(|| noise(2, 70_000));

/// Longest content that the script keeps in mind.
const MOST: usize = 1 << 21;

/// A script: options of the session, then messages.
pub fn receiver(bytes: &[u8]) {
    let mut u = Unstructured::new(bytes);
    let stage = STAGE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    stage.clear();
    let options = options(&mut u);
    if !rarely(&mut u, 64) {
        furnish(&stage.volume());
    }
    let before = look_at(&stage.volume());
    let mut actor = Actor::new(options.clone());
    let volume = stage.volume();
    let received = block_on(async {
        let (near, far) = tokio::io::duplex(1 << 20);
        tokio::join!(actor.play(near, &mut u), serve(far, &volume)).1
    });
    if let Err(Error::Protocol(why)) = &received {
        assert!(!why.contains("internal"), "{why}");
    }
    stage.check_outside();
    if options.dry_run {
        assert_eq!(look_at(&volume), before, "a dry run has changed something");
    }
    if !options.delete && before.len() > 1 {
        assert_eq!(fs::read(volume.join("keep")).ok(), Some(b"keep".to_vec()));
    }
    actor.check_content(&volume, &before);
}

async fn serve(stream: tokio::io::DuplexStream, volume: &Path) -> Result<(), Error> {
    let server = Server::new(4 << 20);
    let Some(incoming) = server.admit(stream, |_| Ok(volume.to_owned())).await? else {
        return Ok(());
    };
    let (first, joining, agreed, target, registered) = incoming.into_parts();
    let received = session::receive(first, joining, agreed, target, context()).await;
    drop(registered);
    received.map(drop)
}

/// What stands in the volume: every kind of basis, and ways out.
fn furnish(volume: &Path) {
    let write = |name: &str, content: &[u8]| fs::write(volume.join(name), content);
    let furnished = write("keep", b"keep")
        .and_then(|()| write("old", b"old"))
        .and_then(|()| write("large", &LARGE))
        .and_then(|()| write("middle", &MIDDLE))
        .and_then(|()| fs::create_dir(volume.join("sub")))
        .and_then(|()| write("sub/inner", b"inner"))
        .and_then(|()| fs::hard_link(volume.join("old"), volume.join("sub/linked")))
        .and_then(|()| way_out(volume, "out", "../outside"))
        .and_then(|()| way_out(volume, "secret", "../outside/secret"));
    furnished.expect("the volume is furnished");
}

fn options(u: &mut Unstructured<'_>) -> Options {
    let flags = byte(u);
    let bit = |n: u8| flags & (1 << n) != 0;
    let more = byte(u);
    Options {
        delete: bit(0),
        checksum: bit(1),
        atomic: bit(2),
        dry_run: bit(3) && bit(4),
        itemize: bit(5),
        verify: bit(6),
        allow_empty: bit(7),
        no_owner: more & 1 != 0,
        max_delete: (more & 6 == 6).then_some(u64::from(more >> 4)),
        filters: if more & 8 == 0 {
            Vec::new()
        } else {
            vec![FilterRule { action: FilterAction::Exclude, pattern: some_bytes(u, 20) }]
        },
    }
}

/// The sender of a script, and what it knows.
struct Actor {
    options: Options,
    key: HashKey,
    next: u64,
    /// What the files of the script have become, as far as that is known.
    files: HashMap<u64, Vec<u8>>,
    /// How many frames of content each had.
    frames: HashMap<u64, u64>,
    sizes: HashMap<u64, u64>,
    /// Contents that may stand in the volume.
    honest: HashSet<blake3::Hash>,
    /// How many answers were heard to listings, and expected.
    plans: u64,
    asked: u64,
}

impl Actor {
    fn new(options: Options) -> Self {
        let there: [&[u8]; 5] = [b"keep", b"old", b"inner", &LARGE, &MIDDLE];
        Self {
            options,
            key: HashKey::new([0; 32]),
            next: 1,
            files: HashMap::new(),
            frames: HashMap::new(),
            sizes: HashMap::new(),
            honest: there.iter().map(|content| blake3::hash(content)).collect(),
            plans: 0,
            asked: 0,
        }
    }

    async fn play(&mut self, mut stream: tokio::io::DuplexStream, u: &mut Unstructured<'_>) {
        if rarely(u, 8) {
            let (mut line, ear) = line(stream);
            let opening = some_bytes(u, 255);
            let say = async {
                line.say_bytes(&opening).await;
                line.hang_up().await;
            };
            tokio::join!(say, ear.listen());
            return;
        }
        let hello = Hello {
            versions: (VERSION, VERSION),
            nonce: [7; 32],
            volume: "a".into(),
            root: if rarely(u, 4) { RootKind::Device(number(u)) } else { RootKind::Tree },
            probe: rarely(u, 4),
            window: 4 << 20,
            streams: 1,
            io_timeout: 0,
            options: self.options.clone(),
        };
        let said = Opening::Hello(Box::new(hello)).encode().head;
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        if stream.write_all(&said).await.is_err() {
            return;
        }
        let mut buffer = BytesMut::new();
        let welcome = loop {
            match Frame::take(&mut buffer, MAX_HELLO) {
                Ok(Some(frame)) => break frame,
                Ok(None) if stream.read_buf(&mut buffer).await.unwrap_or(0) > 0 => {}
                _ => return,
            }
        };
        let Ok(Reply::Welcome(welcome)) = Reply::decode(welcome) else { return };
        let answer = Reply::Welcome(welcome).encode().head;
        let session = blake3::derive_key("pvferry 2026 session", &[said, answer].concat());
        self.key = HashKey::new(blake3::derive_key("pvferry 2026 content", &session));
        let (mut line, ear) = line(stream);
        let script = async {
            while !u.is_empty() && !line.is_over {
                self.say_one(&mut line, u).await;
            }
            line.hang_up().await;
        };
        tokio::join!(script, ear.listen());
    }

    async fn say_one(&mut self, line: &mut Line, u: &mut Unstructured<'_>) {
        match byte(u) % 20 {
            0..4 => self.listing(line, u).await,
            4 => {
                line.say(
                    &ToReceiver::EndOfListing(Box::new(metadata(u, FileKind::Directory))).encode(),
                )
                .await
            }
            5 => self.small_files(line, u).await,
            6..9 => self.content(line, u).await,
            9 | 10 => self.end_of_file(line, u).await,
            11 => self.rebuild(line, u).await,
            12 => {
                let id = self.id(u);
                let request = match byte(u) % 2 {
                    0 => ToReceiver::LeafRequest(id, number(u) as u32),
                    _ => {
                        let len = 1 << (9 + byte(u) % 12);
                        ToReceiver::BlockRequest(
                            id,
                            number(u) & 0xff_ffff,
                            number(u) & 0xff_ffff,
                            len,
                        )
                    }
                };
                line.say(&request.encode()).await;
            }
            13 => self.wait_for_plans(line).await,
            14 => self.wait_for_commit(line, u).await,
            15 => line.say(&ToReceiver::Credit(number(u)).encode()).await,
            16 => line.say(&pick(u, &[&ToReceiver::Ping, &ToReceiver::Blocked]).encode()).await,
            17 => {
                let last = match byte(u) % 2 {
                    0 => ToReceiver::Goodbye(Goodbye { exit_code: byte(u) }),
                    _ => ToReceiver::Abort(byte(u).max(1), "no more".into()),
                };
                line.say(&last.encode()).await;
            }
            18 => compressed(line, u).await,
            _ => {
                let kind = byte(u);
                line.say_raw(kind, &some_bytes(u, 200)).await;
            }
        }
    }

    fn id(&self, u: &mut Unstructured<'_>) -> EntryId {
        let low = u64::from(byte(u));
        EntryId(if low > 250 { number(u) } else { low % self.next.max(2) })
    }

    async fn listing(&mut self, line: &mut Line, u: &mut Unstructured<'_>) {
        let flags = byte(u);
        let (last, complete, unasked) = (flags & 1 == 0, flags & 2 == 0, flags & 4 != 0);
        let directory = if flags & 8 == 0 { EntryId(0) } else { self.id(u) };
        let first = if flags >= 0xf8 { self.id(u).0 } else { self.next };
        let mut names: Vec<Vec<u8>> = (0..byte(u) % 6).map(|_| name(u)).collect();
        if flags & 0x70 != 0x70 {
            names.sort();
            names.dedup();
        }
        let mut body = BytesMut::new();
        body.put_u8(u8::from(last) | u8::from(complete) << 1 | u8::from(unasked) << 2);
        let mut e = wire::Encoder(&mut body);
        e.varint(directory.0);
        e.varint(first);
        let count = names.len() as u64;
        for (name, id) in names.into_iter().zip((0..).map(|n| first.wrapping_add(n))) {
            self.entry(&mut e, u, &name, id);
        }
        self.next = self.next.max(first.saturating_add(count)).min(200);
        self.asked += u64::from(!unasked && count > 0);
        line.say_raw(16, &body).await;
    }

    fn entry(&mut self, e: &mut wire::Encoder<'_>, u: &mut Unstructured<'_>, name: &[u8], id: u64) {
        let kind = pick(u, &[1, 1, 1, 1, 2, 2, 3, 4, 5, 6, 7, 0]);
        let mut flags = byte(u) & byte(u) & 0x3f;
        if kind != 1 {
            flags &= !4;
        }
        if kind != 2 {
            flags &= !2;
        }
        let size = pick(
            u,
            &[0, 3, 100, 4096, 70_000, 70_000, 200_000, LARGE.len() as u64, 1 << 40, u64::MAX >> 1],
        );
        let has_content = flags & 4 != 0 && size <= 70_000;
        if !has_content {
            flags &= !4;
        }
        e.bytes(name);
        e.u8(kind);
        e.u8(flags);
        e.varint(pick(u, &[0o644, 0o755, 0, 0o600, 0o6777, 0o7777, 0o10000]));
        e.varint(pick(u, &[0, 0, 1000, u64::from(u32::MAX) - 1, u64::from(u32::MAX)]));
        e.varint(pick(u, &[0, 0, 1000]));
        e.signed(pick(u, &[5, 5, 0, -1, 1 << 33, i64::MAX, i64::MIN]));
        e.varint(pick(u, &[5, 0, 1, 999_999_999, 1_000_000_000]));
        match kind {
            1 => e.varint(size),
            6 | 7 => {
                e.varint(1);
                e.varint(3);
            }
            _ => {}
        }
        if flags & 32 != 0 {
            let mut names: Vec<_> = (0..byte(u) % 3).map(|_| xattr_name(u)).collect();
            names.sort_unstable();
            e.varint(names.len() as u64);
            for name in names {
                e.bytes(name);
                e.bytes(&some_bytes(u, 40));
            }
        }
        if flags & 1 != 0 {
            e.varint(self.id(u).0);
        }
        if kind == 3 {
            e.bytes(pick(u, &[&b"../outside"[..], b"old", b"/etc/passwd", b"", b"."]));
        }
        if has_content {
            let content = vec![byte(u); size as usize];
            e.raw(&content);
            self.honest.insert(blake3::hash(&content));
        }
        self.files.insert(id, Vec::new());
        self.sizes.insert(id, size);
        self.frames.insert(id, 0);
    }

    async fn small_files(&mut self, line: &mut Line, u: &mut Unstructured<'_>) {
        let mut files = Vec::new();
        for _ in 0..byte(u) % 4 {
            let entry = self.id(u);
            let content = Bytes::from(vec![byte(u); usize::from(byte(u)) * 300]);
            self.honest.insert(blake3::hash(&content));
            let meta = Metadata { size: content.len() as u64, ..metadata(u, FileKind::File) };
            files.push(wire::SmallFile { entry, meta, content });
        }
        line.say(&ToReceiver::SmallFiles(files).encode()).await;
    }

    /// A piece of content, and what the file is with it.
    async fn content(&mut self, line: &mut Line, u: &mut Unstructured<'_>) {
        let id = self.id(u);
        let known = self.files.get(&id.0).map_or(0, Vec::len) as u64;
        let offset = match byte(u) % 6 {
            0 => 0,
            1 => known,
            2 => known.next_multiple_of(1 << 16),
            3 => u64::from(byte(u)) << 12,
            4 => u64::from(byte(u)) << 16,
            _ => number(u) & ((1 << 47) - 1),
        };
        let len = pick(u, &[1, 100, 4096, 1 << 16, 70_000, 1 << 18, 1 << 20]);
        let message = match byte(u) % 8 {
            0..4 => ToReceiver::Data(id, offset, Bytes::from(vec![byte(u); len])),
            4..7 => ToReceiver::Patch(id, offset, Bytes::from(vec![byte(u); len])),
            _ => ToReceiver::Hole(id, offset, pick(u, &[4096, 1 << 16, 1 << 18, 1 << 30, 0])),
        };
        match &message {
            ToReceiver::Data(_, at, data) | ToReceiver::Patch(_, at, data) => {
                self.write(id, *at, data);
            }
            ToReceiver::Hole(_, at, len) => self.write(id, *at, &vec![0; *len as usize % MOST]),
            _ => {}
        }
        *self.frames.entry(id.0).or_default() += 1;
        line.say(&message.encode()).await;
    }

    fn write(&mut self, id: EntryId, at: u64, data: &[u8]) {
        let Some(content) = self.files.get_mut(&id.0) else { return };
        let end = at as usize + data.len();
        if end <= MOST {
            content.resize(content.len().max(end), 0);
            content[at as usize..end].copy_from_slice(data);
        }
    }

    /// A file is built anew, or begins as what stands in the volume.
    async fn rebuild(&mut self, line: &mut Line, u: &mut Unstructured<'_>) {
        let id = self.id(u);
        let basis: &[u8] = if byte(u) % 2 == 0 { &LARGE } else { &MIDDLE };
        match byte(u) % 4 {
            // The receiver is not told: this is what it compares with.
            0 | 1 => drop(self.files.insert(id.0, basis.to_vec())),
            2 => {
                let keep = (u64::from(byte(u)) % 20) << 16;
                if let Some(content) = self.files.get_mut(&id.0) {
                    content.truncate(keep as usize);
                }
                *self.frames.entry(id.0).or_default() += 1;
                line.say(&ToReceiver::Rebuild(id, keep).encode()).await;
            }
            _ => {
                let at = self.files.get(&id.0).map_or(0, Vec::len) as u64;
                let (from, len) =
                    (u64::from(byte(u)) << 14, pick(u, &[1, 5000, 1 << 16, 1 << 18, 1 << 19]));
                if let Some(piece) = basis.get(from as usize..(from + len) as usize) {
                    self.write(id, at, piece);
                }
                *self.frames.entry(id.0).or_default() += 1;
                line.say(&ToReceiver::Copy(id, at, from, len).encode()).await;
            }
        }
    }

    /// Says that a file is whole: with the right digest, or with another.
    async fn end_of_file(&mut self, line: &mut Line, u: &mut Unstructured<'_>) {
        let id = self.id(u);
        let frames = self.frames.insert(id.0, 0).unwrap_or(0);
        let frames = if rarely(u, 16) { number(u) } else { frames };
        let mut content = self.files.get(&id.0).cloned().unwrap_or_default();
        let ended = match byte(u) % 8 {
            0 => Ended::Changed,
            1 => Ended::Failed,
            2 => {
                let meta = Metadata { size: number(u) >> 1, ..metadata(u, FileKind::File) };
                Ended::Whole(Box::new(meta), [byte(u); 32])
            }
            how => {
                let listed = self.sizes.get(&id.0).copied().unwrap_or(0);
                if how % 2 == 0 && listed <= MOST as u64 {
                    content.resize(listed as usize, 0);
                }
                let size = content.len() as u64;
                let layout = Layout::for_len(size);
                let digest = delta::digest_of(&self.key, layout, &content).0;
                self.honest.insert(blake3::hash(&content));
                Ended::Whole(Box::new(Metadata { size, ..metadata(u, FileKind::File) }), digest)
            }
        };
        line.say(&ToReceiver::EndOfFile(id, frames, ended).encode()).await;
    }

    async fn wait_for_plans(&mut self, line: &mut Line) {
        while self.plans < self.asked {
            let Some(frame) = line.next(4).await else { return };
            self.hear(frame);
        }
    }

    /// True where it was the commit record.
    fn hear(&mut self, frame: Frame) -> bool {
        match ToSender::decode(frame) {
            Ok(ToSender::Plan(_)) => self.plans += 1,
            Ok(ToSender::Commit(_)) => return true,
            Ok(_) => {}
            Err(error) => panic!("the receiver says what is no message: {error}"),
        }
        false
    }

    async fn wait_for_commit(&mut self, line: &mut Line, u: &mut Unstructured<'_>) {
        while let Some(frame) = line.next(6).await {
            if self.hear(frame) {
                let exit_code = byte(u);
                line.say(&ToReceiver::Goodbye(Goodbye { exit_code }).encode()).await;
                return;
            }
        }
    }

    /// Whatever bears a final name holds what was there, or what the script vouched for.
    fn check_content(&self, volume: &Path, before: &[Seen]) {
        for seen in look_at(volume) {
            let below = seen.path.strip_prefix(volume).expect("it is below");
            let temporary = |name: &OsStr| name.to_string_lossy().starts_with(".pvferry-");
            if seen.is_file() && !before.contains(&seen) && !below.iter().any(temporary) {
                self.check_file(&seen, below == "large");
            }
        }
    }

    fn check_file(&self, seen: &Seen, patched_in_place: bool) {
        // What is patched where it lies is marked, for as long as it is nothing whole, by its time: never a source's.
        let of_a_source = [5, 0, -1, 1 << 33, i64::MAX, i64::MIN].contains(&seen.mtime.0);
        if patched_in_place && (!of_a_source || seen.mtime == (0, 1)) {
            return;
        }
        let path = seen.path.display();
        assert!(seen.size <= 2 * MOST as u64, "{path} has {} bytes", seen.size);
        let content = fs::read(&seen.path).expect("a file is read");
        let known = content.is_empty() || self.honest.contains(&blake3::hash(&content));
        assert!(known, "{path} holds what nobody vouched for");
    }
}

fn metadata(u: &mut Unstructured<'_>, kind: FileKind) -> Metadata {
    Metadata {
        kind,
        mode: pick(u, &[0o644, 0o755, 0o7777]),
        uid: 0,
        gid: 0,
        size: 0,
        mtime: Timestamp { secs: 5, nanos: pick(u, &[5, 6]) },
        rdev: (0, 0),
        attributes: Attributes::default(),
        xattrs: Vec::new(),
    }
}

fn name(u: &mut Unstructured<'_>) -> Vec<u8> {
    let names: [&[u8]; 18] = [
        b"a",
        b"b",
        b"c",
        b"large",
        b"large",
        b"middle",
        b"old",
        b"sub",
        b"sub",
        b"inner",
        b"linked",
        b"out",
        b"secret",
        b"lost+found",
        b"zz",
        b"\xff\n",
        b"a",
        b"b",
    ];
    let evil: [&[u8]; 8] = [b"", b".", b"..", b"../outside", b"a/b", b"/", b"a\0b", &[b'x'; 256]];
    match byte(u) {
        low @ 0..240 => names[usize::from(low) % names.len()].to_vec(),
        // A name that the receiver uses itself.
        240..248 => {
            let of = Name::new(pick(u, &names)).expect("a name");
            let of = if byte(u) % 2 == 0 {
                volume::temp::part_name(&of)
            } else {
                volume::temp::new_dir_name(&of)
            };
            of.as_bytes().to_vec()
        }
        high => evil[usize::from(high) % evil.len()].to_vec(),
    }
}

fn xattr_name(u: &mut Unstructured<'_>) -> &'static [u8] {
    pick(
        u,
        &[
            &b"user.a"[..],
            b"user.b",
            b"trusted.x",
            b"security.capability",
            b"system.posix_acl_access",
            b"system.posix_acl_default",
            b"",
            b"nonsense",
        ],
    )
}

/// A compressed frame, mostly one that unpacks to what it says.
async fn compressed(line: &mut Line, u: &mut Unstructured<'_>) {
    let kind = byte(u) | COMPRESSED;
    let inner = some_bytes(u, 100);
    let packed = zstd::bulk::compress(&inner, 1).expect("it is compressed");
    let mut body = BytesMut::new();
    let says = if rarely(u, 64) { number(u) } else { inner.len() as u64 };
    wire::Encoder(&mut body).varint(says);
    let cut = if rarely(u, 32) { usize::from(byte(u)) % (packed.len() + 1) } else { packed.len() };
    body.put_slice(&packed[..cut]);
    line.say_raw(kind, &body).await;
}
