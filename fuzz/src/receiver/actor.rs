//! A sender that says what its script tells it, and what it knows of what it said.

use std::{
    collections::{HashMap, HashSet},
    sync::LazyLock,
};

use arbitrary::Unstructured;
use bytes::{BufMut, Bytes, BytesMut};
use delta::{HashKey, Layout};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wire::{
    Attributes, ContentCheck, Ended, EntryId, FileKind, Frame, Goodbye, Hello, Metadata, Opening,
    Options, Reply, RootKind, Timestamp, ToReceiver, ToSender, VERSION, frame::COMPRESSED,
    limits::MAX_HELLO,
};

use crate::{
    heard::{Line, line},
    script::{byte, number, pick, rarely, some_bytes},
    stage::noise,
};

pub(super) static LARGE: LazyLock<Vec<u8>> = LazyLock::new(|| noise(1, (1 << 20) + 5000));
pub(super) static MIDDLE: LazyLock<Vec<u8>> = LazyLock::new(|| noise(2, 70_000));

/// Longest content that the script keeps in mind.
pub(super) const MOST: usize = 1 << 21;

/// The sender of a script, and what it knows.
pub(super) struct Actor {
    options: Options,
    key: HashKey,
    pub(super) next: u64,
    /// What the files of the script have become, as far as that is known.
    pub(super) files: HashMap<u64, Vec<u8>>,
    /// How many frames of content each had.
    pub(super) frames: HashMap<u64, u64>,
    pub(super) sizes: HashMap<u64, u64>,
    /// Contents that may stand in the volume.
    pub(super) honest: HashSet<blake3::Hash>,
    /// How many answers were heard to listings, and expected.
    plans: u64,
    pub(super) asked: u64,
}

impl Actor {
    pub(super) fn new(options: Options) -> Self {
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

    pub(super) async fn play(
        &mut self,
        mut stream: tokio::io::DuplexStream,
        u: &mut Unstructured<'_>,
    ) {
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
            // Without it no listing is worked on.
            if byte(u) % 8 != 0 {
                let root = metadata(u, FileKind::Directory);
                line.say(&ToReceiver::Root(Box::new(root)).encode()).await;
            }
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
                    0 => ToReceiver::Goodbye(Goodbye {
                        exit_code: byte(u),
                        differs: byte(u) % 2 == 1,
                    }),
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

    pub(super) fn id(&self, u: &mut Unstructured<'_>) -> EntryId {
        let low = u64::from(byte(u));
        EntryId(if low > 250 { number(u) } else { low % self.next.max(2) })
    }

    async fn small_files(&mut self, line: &mut Line, u: &mut Unstructured<'_>) {
        let mut files = Vec::new();
        for _ in 0..byte(u) % 4 {
            let entry = self.id(u);
            let content = Bytes::from(vec![byte(u); usize::from(byte(u)) * 300]);
            self.honest.insert(blake3::hash(&content));
            let meta = Metadata { size: content.len() as u64, ..metadata(u, FileKind::File) };
            let spoilt = u64::from(rarely(u, 16));
            let checksum = checksum(entry, &content) ^ spoilt;
            let content = wire::Content { bytes: content, checksum };
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
        let basis: &[u8] = if byte(u).is_multiple_of(2) { &LARGE } else { &MIDDLE };
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
                let check = match byte(u) % 2 {
                    0 => ContentCheck::Checksum(number(u)),
                    _ => ContentCheck::Digest([byte(u); 32]),
                };
                Ended::Whole(Box::new(meta), check)
            }
            how => {
                let listed = self.sizes.get(&id.0).copied().unwrap_or(0);
                if how.is_multiple_of(2) && listed <= MOST as u64 {
                    content.resize(listed as usize, 0);
                }
                let size = content.len() as u64;
                let layout = Layout::for_len(size);
                self.honest.insert(blake3::hash(&content));
                // The receiver asks for one of both.
                let check = match byte(u) % 2 {
                    0 => ContentCheck::Checksum(checksum(id, &content)),
                    _ => ContentCheck::Digest(delta::digest_of(&self.key, layout, &content).0),
                };
                Ended::Whole(Box::new(Metadata { size, ..metadata(u, FileKind::File) }), check)
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
                let (exit_code, differs) = (byte(u), byte(u) % 2 == 1);
                let goodbye = ToReceiver::Goodbye(Goodbye { exit_code, differs });
                line.say(&goodbye.encode()).await;
                return;
            }
        }
    }
}

/// The checksum of `content` as that of the entry `id`.
pub(super) fn checksum(id: EntryId, content: &[u8]) -> u64 {
    delta::Checksum::of(content).crc() ^ id.0
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
