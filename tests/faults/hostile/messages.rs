//! Every message of the protocol, field by field as docs/PROTOCOL.md has it, and every way to spoil one.
//!
//! Nothing here uses the codec of the product: a table that were made with it could not tell that it is wrong.

/// A field of a body, with a right value.
#[derive(Clone)]
pub(super) enum Field {
    /// A varint between two values.
    Number { right: u64, min: u64, max: u64 },
    /// A byte, and such as have no meaning.
    Byte { right: u8, wrong: &'static [u8] },
    /// A length and so many bytes, and such as are refused.
    Bytes { right: Vec<u8>, wrong: Vec<Vec<u8>> },
    /// Bytes without a length.
    Fixed(Vec<u8>),
}
use Field::{Byte, Bytes, Fixed, Number};

/// A message with right fields.
#[derive(Clone)]
pub(super) struct Message {
    pub(super) name: &'static str,
    pub(super) kind: u8,
    pub(super) fields: Vec<Field>,
    /// It ends with a list or with content: where the body ends is no mistake by itself.
    pub(super) open: bool,
}

/// A frame, right or spoilt.
#[derive(Clone)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) kind: u8,
    pub(super) body: Vec<u8>,
    /// No receiver of it may take it for a message.
    pub(super) broken: bool,
}

pub(super) const MAX_FILE: u64 = 1 << 46;
const U32: u64 = u32::MAX as u64;
const FLAG: &[u8] = &[2, 255];

fn number(right: u64, max: u64) -> Field {
    Number { right, min: 0, max }
}

fn id(right: u64) -> Field {
    number(right, u64::MAX)
}

fn flag(right: u8) -> Field {
    Byte { right, wrong: FLAG }
}

/// Text of at most 8 KiB.
fn text(right: &str) -> Field {
    let wrong = vec![vec![0xff, 0xfe], vec![b'x'; (8 << 10) + 1]];
    Bytes { right: right.into(), wrong }
}

fn name(right: &str) -> Field {
    let wrong: [&[u8]; 12] = [
        b"",
        b".",
        b"..",
        b"/",
        b"a/b",
        b"/etc",
        b"../canary",
        b"a/../../canary",
        b"a\0",
        b"\0",
        &[b'x'; 256],
        &[b'x'; 5000],
    ];
    Bytes { right: right.into(), wrong: wrong.map(<[u8]>::to_vec).into() }
}

/// Metadata up to the time.
fn head(kind: u8, flags: u8) -> Vec<Field> {
    vec![
        Byte { right: kind, wrong: &[0, 8, 255] },
        Byte { right: flags, wrong: &[0x40, 0x80, 0xff] },
        number(0o644, 0o7777),
        number(0, U32 - 1),
        number(0, U32 - 1),
        number(10, u64::MAX),
        number(5, 999_999_999),
    ]
}

fn regular(flags: u8, size: u64) -> Vec<Field> {
    [head(1, flags), vec![number(size, MAX_FILE)]].concat()
}

/// Two attributes, sorted.
fn attributes() -> Vec<Field> {
    let name = |right: &str| {
        let wrong = vec![vec![], b"user.\0".to_vec(), vec![b'x'; 256]];
        Bytes { right: right.into(), wrong }
    };
    let value = || Bytes { right: b"value".to_vec(), wrong: vec![vec![0; (64 << 10) + 1]] };
    vec![Number { right: 2, min: 2, max: 2 }, name("user.a"), value(), name("user.b"), value()]
}

fn message(name: &'static str, kind: u8, fields: Vec<Field>) -> Message {
    Message { name, kind, fields, open: false }
}

fn open(name: &'static str, kind: u8, fields: Vec<Field>) -> Message {
    Message { name, kind, fields, open: true }
}

/// A listing of one entry in the directory 4, whose ids begin at 10.
fn listing(what: &'static str, fields: Vec<Field>) -> Message {
    let flags = Byte { right: 3, wrong: &[8, 0x10, 0xff] };
    let first = Number { right: 10, min: 1, max: u64::MAX - 1 };
    open(what, 16, [vec![flags, id(4), first], fields].concat())
}

/// The volume of a hello.
pub(super) const VOLUME: usize = 4;

/// A hello for `volume`.
pub(super) fn hello(volume: &str) -> Message {
    let mut fields = vec![
        Fixed(b"pvferry\n".to_vec()),
        number(2, U32),
        number(2, U32),
        Fixed(vec![7; 32]),
        Bytes { right: volume.into(), wrong: vec![vec![0xff], vec![b'x'; 254]] },
        Byte { right: 0, wrong: &[2, 255] },
        flag(0),
        Number { right: 4 << 20, min: 4 << 20, max: 1 << 30 },
        number(1, U32),
        number(30, U32),
    ];
    fields.extend((0..8).map(|_| flag(0)));
    let pattern = Bytes { right: b"*.tmp".to_vec(), wrong: vec![vec![b'x'; 4097]] };
    fields.extend([flag(1), id(5), Number { right: 1, min: 1, max: 1 }, flag(0), pattern]);
    message("HELLO", 1, fields)
}

/// What a welcome may be spoilt by, too.
pub(super) fn welcome() -> Message {
    let magic = Fixed(b"pvferry\n".to_vec());
    let window = Number { right: 4 << 20, min: 4 << 20, max: 1 << 30 };
    let streams = Number { right: 1, min: 1, max: 16 };
    let version = Number { right: 2, min: 2, max: 2 };
    let losses = [Number { right: 1, min: 1, max: 1 }, text("owners are lost")];
    let fields =
        vec![magic, version, Fixed(vec![8; 32]), Fixed(vec![9; 16]), flag(0), window, streams];
    message("WELCOME", 3, [fields, losses.to_vec()].concat())
}

pub(super) fn join() -> Message {
    message("JOIN", 2, vec![Fixed(b"pvferry\n".to_vec()), Fixed(vec![3; 16])])
}

pub(super) fn refused() -> Message {
    let reason = Byte { right: 2, wrong: &[0, 9, 255] };
    message("REFUSED", 4, vec![Fixed(b"pvferry\n".to_vec()), reason, text("no such volume")])
}

/// Files: 1 has a basis of 2 MiB and is compared, 2 is sent whole, 3 is small. Directory: 4, not listed yet.
pub(super) fn to_receiver() -> Vec<Message> {
    let content = || Fixed(vec![1; 10]);
    let link = |flags, link| [vec![name("entry")], regular(flags, 5), vec![id(link)]].concat();
    let target = Bytes {
        right: b"../../canary".to_vec(),
        wrong: vec![vec![], b"a\0".to_vec(), vec![b'x'; 4096]],
    };
    let device = [head(6, 0), vec![number(1, U32), number(3, U32)]].concat();
    let block = Number { right: 4096, min: 512, max: 1 << 20 };
    let digest = || Fixed(vec![6; 32]);
    let checksum = || Fixed(vec![7; 8]);
    let entry = |fields: Vec<Field>| [vec![name("entry")], fields].concat();
    vec![
        listing("LISTING of a file", entry(regular(0, 5))),
        listing(
            "LISTING of a file with content",
            entry([regular(4, 10), vec![content(), checksum()]].concat()),
        ),
        listing(
            "LISTING of a file with attributes",
            entry([regular(32, 5), attributes()].concat()),
        ),
        listing("LISTING of a further name", link(1, 1)),
        listing("LISTING of a name of nothing", link(1, 9)),
        listing("LISTING of a directory", entry(head(2, 0))),
        listing("LISTING of a mount point", entry(head(2, 2))),
        listing("LISTING of a symbolic link", entry([head(3, 0), vec![target]].concat())),
        listing("LISTING of a FIFO", entry(head(4, 0))),
        listing("LISTING of a device", entry(device)),
        message("ROOT", 30, head(2, 0)),
        message("END_OF_LISTING", 17, head(2, 0)),
        open(
            "SMALL_FILES",
            18,
            [vec![id(3)], regular(0, 10), vec![content(), checksum()]].concat(),
        ),
        open("DATA", 19, vec![id(2), number(0, MAX_FILE - 10), content()]),
        open("PATCH", 20, vec![id(1), number(0, MAX_FILE - 10), content()]),
        message("HOLE", 21, vec![id(1), number(0, MAX_FILE), number(0, MAX_FILE)]),
        message("REBUILD", 22, vec![id(1), number(0, MAX_FILE)]),
        message(
            "COPY",
            23,
            vec![id(1), number(0, MAX_FILE), number(0, MAX_FILE), number(0, MAX_FILE)],
        ),
        message(
            "END_OF_FILE, whole",
            24,
            [
                vec![id(2), id(1), Byte { right: 0, wrong: &[4, 255] }],
                regular(0, 10),
                vec![checksum()],
            ]
            .concat(),
        ),
        message(
            "END_OF_FILE, whole from a basis",
            24,
            [
                vec![id(1), id(1), Byte { right: 3, wrong: &[4, 255] }],
                regular(0, 10),
                vec![digest()],
            ]
            .concat(),
        ),
        message("END_OF_FILE, changed", 24, vec![id(2), id(0), Byte { right: 1, wrong: &[4] }]),
        message("END_OF_FILE, failed", 24, vec![id(1), id(0), Byte { right: 2, wrong: &[4] }]),
        message("LEAF_REQUEST", 25, vec![id(1), number(0, U32)]),
        message("BLOCK_REQUEST", 26, vec![id(1), number(0, MAX_FILE), number(0, MAX_FILE), block]),
        message("GOODBYE", 27, vec![Byte { right: 0, wrong: &[] }]),
        message("BLOCKED", 28, vec![]),
        message("NO_REMOVALS", 31, vec![]),
        open("ATTRIBUTES", 29, [vec![id(2)], attributes()].concat()),
        message("CREDIT", 5, vec![id(1000)]),
        message("PING", 6, vec![]),
        message("ABORT", 7, vec![Byte { right: 20, wrong: &[0] }, text("ended by a signal")]),
    ]
}

/// The listing frame 1 has a file of 2 MiB and a directory 2, the frame 3 a small file in that.
pub(super) fn to_sender() -> Vec<Message> {
    // How many items follow. A smaller count may make another right message of what is left.
    let count = |right| number(right, 4096);
    let want = || vec![Byte { right: 16, wrong: &[1, 15, 31, 255] }, number(2 << 20, MAX_FILE)];
    let whole = || Byte { right: 0, wrong: &[1, 15, 31, 255] };
    let hashes = || Fixed(vec![5; 32]);
    let index = |right| number(right, U32);
    vec![
        message("PLAN of nothing", 48, vec![id(1), count(0), count(0), count(0), count(0)]),
        message("PLAN, new", 48, vec![id(1), count(1), index(1), count(0), count(0), count(0)]),
        message("PLAN, later", 48, vec![id(1), count(0), count(1), index(0), count(0), count(0)]),
        message(
            "PLAN, whole",
            48,
            vec![id(3), count(0), count(0), count(1), index(0), whole(), count(0)],
        ),
        message(
            "PLAN, delta",
            48,
            [vec![id(1), count(0), count(0), count(1), index(0)], want(), vec![count(0)]].concat(),
        ),
        message("WANTED, whole", 49, vec![count(1), id(1), whole()]),
        message("WANTED, delta", 49, [vec![count(1), id(1)], want()].concat()),
        open("SIGNATURE", 50, vec![id(1), index(0), flag(0), hashes()]),
        open("LEAVES", 51, vec![id(1), index(0), hashes()]),
        open("BLOCKS", 52, vec![id(1), flag(0), Fixed(vec![5; 40])]),
        message(
            "PROBLEM",
            53,
            vec![Byte { right: 23, wrong: &[0] }, text("dir/\u{1b}[2J"), text("denied")],
        ),
        message("ACTION", 54, vec![text("create \u{1b}]0;title\u{7}")]),
        message(
            "COMMIT",
            55,
            vec![hashes(), id(3), id(0), id(0), id(0), id(0), Byte { right: 0, wrong: &[2, 255] }],
        ),
        message("CREDIT", 5, vec![id(1000)]),
        message("PING", 6, vec![]),
        message("ABORT", 7, vec![Byte { right: 11, wrong: &[0] }, text("no space left")]),
    ]
}

pub(super) fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

impl Field {
    pub(super) fn right(&self) -> Vec<u8> {
        match self {
            Number { right, .. } => varint(*right),
            Byte { right, .. } => vec![*right],
            Bytes { right, .. } => [varint(right.len() as u64), right.clone()].concat(),
            Fixed(bytes) => bytes.clone(),
        }
    }

    /// Other values, what they are, and whether they are refused wherever they come.
    fn others(&self) -> Vec<(String, Vec<u8>, bool)> {
        match self {
            Number { right, min, max } => {
                let mut values = vec![0, 1, *max, max.saturating_add(1), u64::MAX];
                values.retain(|value| value != right);
                values.dedup();
                let other = |value: u64| {
                    let inside = (*min..=*max).contains(&value);
                    (value.to_string(), varint(value), !inside)
                };
                let mut others: Vec<_> = values.into_iter().map(other).collect();
                others.push(("longer than 64 bits".into(), vec![0xff; 10], true));
                others
            }
            Byte { wrong, .. } => {
                wrong.iter().map(|byte| (byte.to_string(), vec![*byte], true)).collect()
            }
            Bytes { right, wrong } => {
                let shown = |bytes: &[u8]| bytes[..bytes.len().min(20)].escape_ascii().to_string();
                let mut others: Vec<_> = wrong
                    .iter()
                    .map(|bytes| {
                        (shown(bytes), [varint(bytes.len() as u64), bytes.clone()].concat(), true)
                    })
                    .collect();
                let far = [varint(u64::MAX), right.clone()].concat();
                others.push(("a length beyond everything".into(), far, true));
                others
            }
            // What is in it is the business of hashes and of magic, which are spoilt elsewhere.
            Fixed(_) => Vec::new(),
        }
    }
}

impl Message {
    pub(super) fn case(&self) -> Case {
        let body = self.fields.iter().flat_map(Field::right).collect();
        Case { name: self.name.into(), kind: self.kind, body, broken: false }
    }

    /// Every way to spoil it.
    pub(super) fn spoilt(&self) -> Vec<Case> {
        let right = self.case();
        let case = |what: &str, kind: u8, body: Vec<u8>, broken: bool| Case {
            name: format!("{}: {what}", self.name),
            kind,
            body,
            broken,
        };
        let mut cases = Vec::new();
        for index in 0..self.fields.len() {
            for (what, bytes, broken) in self.fields[index].others() {
                let part =
                    |fields: &[Field]| fields.iter().flat_map(Field::right).collect::<Vec<_>>();
                let body =
                    [part(&self.fields[..index]), bytes, part(&self.fields[index + 1..])].concat();
                cases.push(case(&format!("field {index} is {what}"), self.kind, body, broken));
            }
        }
        for len in 0..right.body.len() {
            let body = right.body[..len].to_vec();
            cases.push(case(&format!("{len} bytes of it"), self.kind, body, !self.open));
        }
        let longer = [&right.body[..], &[0]].concat();
        cases.push(case("a byte more", self.kind, longer, !self.open));
        cases.push(case("said to be compressed", self.kind | 0x80, right.body.clone(), true));
        cases.push(case("under an unknown number", 99, right.body, true));
        cases
    }
}

/// The bytes of an entry: an ordinary file of `size` bytes, or a directory.
fn entry(name: &str, size: Option<u64>) -> Vec<u8> {
    let fields = size.map_or_else(|| head(2, 0), |size| regular(0, size));
    let meta: Vec<u8> = fields.iter().flat_map(Field::right).collect();
    [varint(name.len() as u64), name.into(), meta].concat()
}

fn whole_listing(directory: u64, first: u64, entries: &[Vec<u8>]) -> Case {
    let body = [vec![3], varint(directory), varint(first), entries.concat()].concat();
    Case { name: "LISTING".into(), kind: 16, body, broken: false }
}

/// The listing that [`to_receiver`] speaks of.
pub(super) fn listing_of_root() -> Case {
    let files = [("large", 2 << 20), ("new", 200_000), ("small", 10)];
    let files = files.map(|(name, size)| entry(name, Some(size)));
    whole_listing(0, 1, &[&files[..], &[entry("sub", None)]].concat())
}

/// A root without entries.
pub(super) fn listing_of_nothing() -> Case {
    whole_listing(0, 1, &[])
}

pub(super) fn root() -> Case {
    message("ROOT", 30, head(2, 0)).case()
}

pub(super) fn end_of_listing() -> Case {
    message("END_OF_LISTING", 17, head(2, 0)).case()
}

/// A body that claims to unpack to `claim` bytes, and unpacks to `blocks` times 128 KiB.
pub(super) fn bomb(blocks: usize, claim: u64) -> Vec<u8> {
    // RFC 8878: magic, no content size, a window of 128 KiB; then blocks of one repeated byte.
    let mut body = [varint(claim), vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x38]].concat();
    for block in 1..=blocks {
        let header = u32::from(block == blocks) | 1 << 1 | (128 << 10) << 3;
        body.extend_from_slice(&header.to_le_bytes()[..3]);
        body.push(0);
    }
    body
}
