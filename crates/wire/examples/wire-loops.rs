//! The codec over a listing, again and again, for a tool that counts instructions:
//! `cargo run --example wire-loops -- encode|decode ENTRIES`.
//!
//! Everything around the loop costs the same for any number of entries, so that the difference of two runs is the loop's
//! alone. `tests/budget` holds it against its budget.

use std::{env, error::Error, hint::black_box};

use bytes::BytesMut;
use wire::{
    Attributes, Entry, EntryId, FileKind, Frame, Listed, Listing, Metadata, Name, Timestamp,
    ToReceiver, limits::MAX_FRAME,
};

/// Entries of the one listing; the number asked for is a multiple of it.
const ENTRIES: u32 = 500;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    let rounds = arguments.next().unwrap_or_default().parse::<u32>()? / ENTRIES;
    let listing = listing()?;
    let encoded = listing.encode();
    let mut stream = BytesMut::from(&encoded.head[..]);
    let frame = Frame::take(&mut stream, MAX_FRAME)?.ok_or("half a frame")?;

    for _ in 0..rounds {
        match &*name {
            "encode" => drop(black_box(listing.encode())),
            "decode" => drop(black_box(ToReceiver::decode(frame.clone())?)),
            _ => return Err("no such loop".into()),
        }
    }
    Ok(())
}

fn listing() -> Result<ToReceiver, Box<dyn Error>> {
    let mut entries = Vec::new();
    for n in 0..ENTRIES {
        let meta = Metadata {
            kind: FileKind::File,
            mode: 0o640,
            uid: 1001,
            gid: 1001,
            size: u64::from(n) * 37,
            mtime: Timestamp { secs: 1_700_000_000 + i64::from(n), nanos: n * 12_345 },
            rdev: (0, 0),
            attributes: Attributes::default(),
            xattrs: Vec::new(),
        };
        let name = Name::new(format!("segment-{n:06}.dat").as_bytes())?;
        let entry = Entry { name, meta, target: Box::default() };
        entries.push(Listed { entry, link: None, mount: false, xattr_hash: None, content: None });
    }
    Ok(ToReceiver::Listing(Listing {
        directory: EntryId(7),
        first: EntryId(100_000),
        last: true,
        complete: true,
        unasked: false,
        mtime: None,
        entries,
    }))
}
