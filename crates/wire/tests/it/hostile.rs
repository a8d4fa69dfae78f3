//! Each rule of the protocol, broken by hand: the error says which.
//!
//! A case builds a frame that is right but for one thing. The same frame with that thing right is
//! tried beside it where it is not obvious that it would pass.

use bytes::{Bytes, BytesMut};
use wire::{
    DecodeError::{self, Invalid, Limit, Trailing, Truncated, UnknownType},
    Encoder, Frame, OutFrame, ToReceiver, ToSender, limits,
};

use crate::{
    samples::samples,
    support::{SIDES, Side, by_hand, decode, take_frame},
};

const END: u64 = limits::MAX_FILE;
/// Owner, group and time of an entry, as ordinary as can be.
const ORDINARY: [u64; 4] = [0, 0, 0, 0];

type Write<'a> = &'a dyn Fn(&mut Encoder<'_>);

/// The error of a message from the sender of type `kind`.
fn to_receiver(kind: u8, write: Write<'_>) -> Option<DecodeError> {
    ToReceiver::decode(by_hand(kind, |e| write(e))).err()
}

fn to_sender(kind: u8, write: Write<'_>) -> Option<DecodeError> {
    ToSender::decode(by_hand(kind, |e| write(e))).err()
}

/// The error of a message of varints only.
fn numbers(kind: u8, numbers: &[u64]) -> Option<DecodeError> {
    to_receiver(kind, &|e| numbers.iter().for_each(|&n| e.varint(n)))
}

/// The error of a listing of one entry.
fn entry(write: Write<'_>) -> Option<DecodeError> {
    to_receiver(16, &|e| {
        e.raw(&[1, 0, 1]);
        write(e);
    })
}

/// Kind, flags, mode, and [`ORDINARY`].
fn head(e: &mut Encoder<'_>, kind: u8, flags: u8) {
    e.raw(&[kind, flags, 0]);
    ORDINARY.iter().for_each(|&n| e.varint(n));
}

#[test]
fn names_are_single_components() {
    let named = |name: &[u8]| {
        entry(&|e| {
            e.bytes(name);
            head(e, 4, 0);
        })
    };
    let bad = [&b""[..], b".", b"..", b"/", b"a/b", b"/etc", b"a\0", &[b'x'; 256], &[b'x'; 5000]];
    for name in bad {
        assert_eq!(named(name), Some(Invalid("name")), "{name:?}");
    }
    for name in [&b"..."[..], b"\n", b"\xff", &[b'x'; 255]] {
        assert_eq!(named(name), None, "{name:?}");
    }
    assert_eq!(entry(&|e| e.varint(u64::MAX)), Some(Limit("name")));
    assert_eq!(entry(&|e| e.raw(&[4, b'a'])), Some(Truncated));
}

#[test]
fn metadata_are_what_linux_can_store() {
    // Kind, flags, then mode, owner, group, seconds, nanoseconds.
    let meta = |kind: u8, flags: u8, fields: [u64; 5], rest: &[u64]| {
        to_receiver(17, &|e| {
            e.raw(&[kind, flags]);
            fields.iter().chain(rest).for_each(|&n| e.varint(n));
        })
    };
    let (none, id) = ([0; 5], u64::from(u32::MAX));
    assert_eq!(meta(2, 0, none, &[]), None);
    assert_eq!(meta(0, 0, none, &[]), Some(Invalid("file kind")));
    assert_eq!(meta(8, 0, none, &[]), Some(Invalid("file kind")));
    assert_eq!(meta(2, 0x40, none, &[]), Some(Invalid("entry flags")));
    assert_eq!(meta(2, 0x80, none, &[]), Some(Invalid("entry flags")));
    for listing_flag in [1, 2, 4] {
        assert_eq!(meta(2, listing_flag, none, &[]), Some(Invalid("entry flags")));
    }
    assert_eq!(meta(2, 0, [0o7777, id - 1, id - 1, 0, 999_999_999], &[]), None);
    assert_eq!(meta(2, 0, [0o10000, 0, 0, 0, 0], &[]), Some(Invalid("mode")));
    assert_eq!(meta(2, 0, [0, id, 0, 0, 0], &[]), Some(Invalid("owner")));
    assert_eq!(meta(2, 0, [0, 0, id, 0, 0], &[]), Some(Invalid("owner")));
    assert_eq!(meta(2, 0, [0, id + 1, 0, 0, 0], &[]), Some(Limit("uid")));
    assert_eq!(meta(2, 0, [0, 0, id + 1, 0, 0], &[]), Some(Limit("gid")));
    assert_eq!(meta(2, 0, [0, 0, 0, 0, 1_000_000_000], &[]), Some(Invalid("mtime")));
    assert_eq!(meta(2, 0, [0, 0, 0, u64::MAX, 0], &[]), None, "before 1970");
    assert_eq!(meta(1, 0, none, &[END]), None);
    assert_eq!(meta(1, 0, none, &[END + 1]), Some(Limit("file size")));
    assert_eq!(meta(6, 0, none, &[id, id]), None);
    assert_eq!(meta(6, 0, none, &[id + 1, 0]), Some(Limit("rdev")));
    assert_eq!(meta(7, 0, none, &[0]), Some(Truncated));
}

#[test]
fn extended_attributes_are_sorted_and_fit() {
    let xattrs = |count: u64, list: &[(&[u8], &[u8])]| {
        to_receiver(17, &|e| {
            head(e, 2, 32);
            e.varint(count);
            for (name, value) in list {
                e.bytes(name);
                e.bytes(value);
            }
        })
    };
    let (value, longer) = (vec![0; limits::MAX_XATTR_VALUE], vec![0; limits::MAX_XATTR_VALUE + 1]);
    let bad = Some(Invalid("xattr name"));
    assert_eq!(xattrs(2, &[(b"a", b""), (b"b", &value)]), None);
    assert_eq!(xattrs(2, &[(b"b", b""), (b"a", b"")]), bad, "unsorted");
    assert_eq!(xattrs(2, &[(b"a", b""), (b"a", b"")]), bad, "twice");
    assert_eq!(xattrs(1, &[(b"", b"")]), bad, "empty");
    assert_eq!(xattrs(1, &[(b"a\0", b"")]), bad, "NUL");
    assert_eq!(xattrs(1, &[(&[b'a'; 255], b"")]), None);
    assert_eq!(xattrs(1, &[(&[b'a'; 256], b"")]), Some(Limit("xattr name")));
    assert_eq!(xattrs(1, &[(b"a", &longer)]), Some(Limit("xattr value")));
    assert_eq!(xattrs(3, &[(b"a", b"")]), Some(Limit("xattr count")), "more than can follow");
    assert_eq!(xattrs(u64::MAX, &[]), Some(Limit("xattr count")));
    let names: Vec<[u8; 1]> = (1..=17).map(|byte| [byte]).collect();
    let all: Vec<(&[u8], &[u8])> = names.iter().map(|name| (&name[..], &value[..])).collect();
    assert_eq!(xattrs(15, &all[..15]), None);
    assert_eq!(xattrs(17, &all), Some(Limit("xattrs")), "over a mebibyte in all");
}

#[test]
fn entries_have_what_belongs_to_their_kind() {
    let bare = |kind: u8, flags: u8, rest: &'static [u8]| {
        entry(&move |e| {
            e.bytes(b"x");
            head(e, kind, flags);
            e.raw(rest);
        })
    };
    assert_eq!(bare(2, 2, b""), None, "a mount point");
    assert_eq!(bare(1, 2, b"\0"), Some(Invalid("entry flags")), "a file is none");
    assert_eq!(bare(2, 1, b"\x01"), Some(Invalid("entry flags")), "a directory has one name");
    assert_eq!(bare(2, 4, b""), Some(Invalid("entry flags")), "and no content");
    assert_eq!(bare(1, 4, b"\x03abc01234567"), None);
    assert_eq!(bare(1, 4, b"\x03abc0123456"), Some(Truncated), "and no whole checksum");
    assert_eq!(bare(1, 4, b"\x03ab"), Some(Truncated), "content longer than the frame");
    assert_eq!(bare(4, 64, &[7; 16]), None, "a hash in place of attributes");
    assert_eq!(bare(4, 64, &[7; 15]), Some(Truncated));
    assert_eq!(bare(4, 96, &[1, 1, b'a', 0]), Some(Invalid("entry flags")), "both");
    assert_eq!(bare(1, 68, b"\0"), Some(Invalid("entry flags")), "a hash beside content");
    let unsolicited = to_receiver(16, &|e| {
        e.raw(&[4, 0, 1]);
        e.bytes(b"x");
        head(e, 4, 64);
        e.raw(&[7; 16]);
    });
    assert_eq!(
        unsolicited,
        Some(Invalid("entry flags")),
        "where no plan can ask for the attributes"
    );
    let outside = to_receiver(17, &|e| head(e, 2, 64));
    assert_eq!(outside, Some(Invalid("entry flags")), "outside a listing");
    let huge = b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f";
    assert_eq!(bare(1, 4, huge), Some(Limit("file size")), "content of 8 EiB");
    let large = b"\x80\x80\x80\x80\x80\x80\x10";
    assert_eq!(bare(1, 4, large), Some(Truncated), "content of 64 TiB");
    let link = |target: &[u8]| {
        entry(&|e| {
            e.bytes(b"x");
            head(e, 3, 0);
            e.bytes(target);
        })
    };
    assert_eq!(link(&[b'/'; limits::MAX_TARGET]), None);
    assert_eq!(link(&[b'/'; limits::MAX_TARGET + 1]), Some(Limit("link target")));
    assert_eq!(link(b""), Some(Invalid("link target")));
    assert_eq!(link(b"a\0b"), Some(Invalid("link target")));
}

#[test]
fn listings_are_bounded() {
    let listing = |flags: u8, first: u64, count: usize| {
        to_receiver(16, &|e| {
            e.u8(flags);
            e.varint(0);
            e.varint(first);
            for _ in 0..count {
                e.bytes(b"x");
                head(e, 4, 0);
            }
        })
    };
    assert_eq!(listing(7, 1, limits::MAX_ENTRIES), None);
    assert_eq!(listing(7, 1, limits::MAX_ENTRIES + 1), Some(Limit("listing")));
    assert_eq!(listing(16, 1, 0), Some(Invalid("listing flags")));
    let timed = |flags: u8, directory: u64, nanos: u32| {
        to_receiver(16, &move |e| {
            e.u8(flags);
            e.varint(directory);
            e.varint(1);
            e.raw(&[0; 8]);
            e.raw(&nanos.to_le_bytes());
        })
    };
    assert_eq!(timed(9, 1, 999_999_999), None);
    assert_eq!(timed(9, 1, 1_000_000_000), Some(Invalid("mtime")));
    assert_eq!(timed(9, 0, 0), Some(Invalid("listing flags")), "of the root");
    assert_eq!(timed(8, 1, 0), Some(Invalid("listing flags")), "before the last frame");
    assert_eq!(listing(9, 1, 0), Some(Invalid("listing flags")), "no time");
    assert_eq!(listing(1, 0, 1), Some(Limit("entry id")), "the root's id");
    assert_eq!(listing(1, u64::MAX - 1, 1), None);
    assert_eq!(listing(1, u64::MAX, 1), Some(Limit("entry id")), "ids overflow");
    let small = |count: usize, content: &'static [u8]| {
        to_receiver(18, &move |e| {
            for _ in 0..count {
                e.varint(9);
                head(e, 1, 0);
                e.bytes(content);
                e.raw(&[0; 8]);
            }
        })
    };
    assert_eq!(small(limits::MAX_ENTRIES, b"a"), None);
    assert_eq!(small(limits::MAX_ENTRIES + 1, b"a"), Some(Limit("small files")));
    let attributes = |count: usize| {
        to_receiver(29, &move |e| {
            for _ in 0..count {
                e.raw(&[9, 1, 1, b'a', 0]);
            }
        })
    };
    assert_eq!(attributes(limits::MAX_ENTRIES), None);
    assert_eq!(attributes(limits::MAX_ENTRIES + 1), Some(Limit("attributes")));
    let short = to_receiver(18, &|e| {
        e.varint(9);
        head(e, 1, 0);
        e.raw(&[5, 1, 2]);
    });
    assert_eq!(short, Some(Truncated));
}

#[test]
fn offsets_stay_within_a_file() {
    let over = Some(Limit("file offset"));
    for kind in [19, 20] {
        let data = |offset: u64, len: usize| {
            to_receiver(kind, &|e| {
                e.varint(1);
                e.varint(offset);
                e.raw(&vec![0; len]);
            })
        };
        assert_eq!(data(END - 1, 1), None);
        assert_eq!(data(END, 1), over);
        assert_eq!(data(u64::MAX, 1), over, "offset + length overflows");
        assert_eq!(data(0, limits::MAX_DATA), None);
        assert_eq!(data(0, limits::MAX_DATA + 1), Some(Limit("data")));
        assert_eq!(data(0, 0), Some(Limit("data")));
    }
    assert_eq!(numbers(21, &[1, END, 0]), None);
    assert_eq!(numbers(21, &[1, END, 1]), over);
    assert_eq!(numbers(21, &[1, u64::MAX, u64::MAX]), over);
    assert_eq!(numbers(22, &[1, END]), None);
    assert_eq!(numbers(22, &[1, END + 1]), over);
    assert_eq!(numbers(23, &[1, 0, END - 5, 5]), None);
    assert_eq!(numbers(23, &[1, END, 0, 1]), over, "the new file");
    assert_eq!(numbers(23, &[1, 0, END, 1]), over, "the basis");
    assert_eq!(numbers(23, &[1, u64::MAX, 0, 2]), over);
    assert_eq!(numbers(24, &[1, 1, 4]), Some(Invalid("end of file")));
    for whole in [0, 3] {
        assert_eq!(numbers(24, &[1, 1, whole]), Some(Truncated), "metadata are missing");
    }
    assert_eq!(numbers(25, &[1, 1 << 32]), Some(Limit("segment")));
    assert_eq!(numbers(26, &[1, END - 9, 9, 512]), None);
    assert_eq!(numbers(26, &[1, END - 9, 10, 512]), over);
    assert_eq!(numbers(26, &[1, u64::MAX, 2, 512]), over);
    assert_eq!(numbers(26, &[1, 0, END, 1 << 20]), None);
    for block_len in [0, 1, 256, 511, 513, 3 << 10, 1 << 21, 1 << 32] {
        assert_eq!(numbers(26, &[1, 0, 9, block_len]), Some(Limit("block length")), "{block_len}");
    }
}

#[test]
fn wants_and_hashes_are_bounded() {
    let wanted = |want: &'static [u8]| to_sender(49, &move |e| e.raw(&[&[1, 9], want].concat()));
    assert_eq!(wanted(&[0]), None, "0 is the whole file");
    assert_eq!(wanted(&[16, 0]), None);
    assert_eq!(wanted(&[30, 0]), None);
    for log2 in [&[1, 0][..], &[15, 0], &[31, 0], &[255, 0]] {
        assert_eq!(wanted(log2), Some(Limit("segment length")));
    }
    let over = wanted(&[16, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1]);
    assert_eq!(over, Some(Limit("file offset")), "a basis of 8 EiB");

    // The lists of a plan: new directories, later, wants of two bytes each, attributes.
    let plan = |lens: [usize; 4]| {
        to_sender(48, &|e| {
            e.varint(1);
            for (len, item) in lens.into_iter().zip([1, 1, 2, 1]) {
                e.varint(len as u64);
                e.raw(&vec![0; len * item]);
            }
        })
    };
    let (most, over) = (limits::MAX_ENTRIES, limits::MAX_ENTRIES + 1);
    assert_eq!(plan([most, most, most, most]), None);
    for lens in [[over, 0, 0, 0], [0, over, 0, 0], [0, 0, over, 0], [0, 0, 0, over]] {
        assert_eq!(plan(lens), Some(Limit("plan")));
    }
    assert_eq!(to_sender(48, &|e| e.raw(&[1, 0, 0, 5, 0, 0])), Some(Limit("plan")), "too few");
    assert_eq!(to_sender(48, &|e| e.raw(&[1, 3, 0, 0])), Some(Limit("plan")), "too few");
    let wants = |len: usize| {
        to_sender(49, &|e| {
            e.varint(len as u64);
            e.raw(&vec![0; 2 * len]);
        })
    };
    assert_eq!((wants(most), wants(over)), (None, Some(Limit("wants"))));

    for (kind, head, len, what) in [
        (50, &[1, 0, 1][..], 16, "hashes"),
        (51, &[1, 0], 16, "hashes"),
        (52, &[1, 1], 20, "blocks"),
    ] {
        let list = |bytes: usize| {
            to_sender(kind, &|e| {
                e.raw(head);
                e.raw(&vec![0; bytes]);
            })
        };
        assert_eq!(list(len * limits::MAX_HASHES), None);
        assert_eq!(list(len * (limits::MAX_HASHES + 1)), Some(Limit(what)));
        assert_eq!(list(len + 1), Some(Truncated), "part of a hash");
    }
    assert_eq!(to_sender(50, &|e| e.raw(&[1, 0, 2])), Some(Invalid("flag")));
    assert_eq!(to_sender(52, &|e| e.raw(&[1, 2])), Some(Invalid("flag")));
}

#[test]
fn texts_are_utf8_and_bounded() {
    let text = |bytes: &[u8]| to_sender(54, &|e| e.bytes(bytes));
    assert_eq!(text(&[b'a'; limits::MAX_TEXT]), None);
    assert_eq!(text(&[b'a'; limits::MAX_TEXT + 1]), Some(Limit("action")));
    assert_eq!(text(b"\xff"), Some(Invalid("action")));
    assert_eq!(to_sender(54, &|e| e.raw(&[3, b'a'])), Some(Truncated));
}

/// A peer that fails with success would make this end succeed.
#[test]
fn failures_have_a_code() {
    let none = Some(Invalid("exit code"));
    assert_eq!(to_receiver(7, &|e| e.raw(&[0, 0])), none);
    assert_eq!(to_sender(7, &|e| e.raw(&[0, 0])), none);
    assert_eq!(to_sender(53, &|e| e.raw(&[0, 0, 0])), none);
    for code in [1, 23, 255] {
        assert_eq!(to_receiver(7, &|e| e.raw(&[code, 0])), None);
        assert_eq!(to_sender(7, &|e| e.raw(&[code, 0])), None);
        assert_eq!(to_sender(53, &|e| e.raw(&[code, 0, 0])), None);
    }
    assert_eq!(to_receiver(27, &|e| e.raw(&[0, 0])), None, "a goodbye may be glad");
    assert_eq!(to_receiver(27, &|e| e.raw(&[23, 2])), Some(Invalid("flag")));
}

#[test]
fn integers_have_64_bits() {
    let credit = |last: u8| {
        to_receiver(5, &|e| {
            e.raw(&[0xff; 9]);
            e.u8(last);
        })
    };
    assert_eq!(credit(1), None);
    for last in [2, 0x7f, 0x80, 0x81, 0xff] {
        assert_eq!(credit(last), Some(DecodeError::Varint));
    }
    assert_eq!(to_receiver(5, &|e| e.raw(&[0x80, 0])), None, "longer than it need be");
}

#[test]
fn every_other_number_is_unknown() {
    let known = |side, kind| match side {
        Side::Opening => matches!(kind, 1 | 2),
        Side::Reply => matches!(kind, 3 | 4),
        Side::ToReceiver => matches!(kind, 5..=7 | 16..=31),
        Side::ToSender => matches!(kind, 5..=7 | 48..=55),
    };
    for side in SIDES {
        for kind in 0..0x80 {
            let frame = Frame { kind, compressed: false, body: Bytes::from_static(&wire::MAGIC) };
            let unknown = decode(side, frame) == Err(UnknownType(kind));
            assert_eq!(unknown, !known(side, kind), "{side:?} {kind}");
        }
    }
}

#[test]
fn nothing_follows_the_last_field() {
    for (name, message) in samples() {
        let frame = message.frame();
        let open_ended = match message.side() {
            Side::ToReceiver => matches!(frame.kind, 16 | 18 | 19 | 20 | 29),
            Side::ToSender => matches!(frame.kind, 50..=52),
            Side::Opening | Side::Reply => false,
        };
        let longer = Frame { body: [&frame.body[..], &[0]].concat().into(), ..frame };
        let outcome = decode(message.side(), longer);
        if open_ended {
            assert_ne!(outcome, Err(Trailing), "{name} is a list or content to its end");
        } else {
            assert_eq!(outcome, Err(Trailing), "{name}");
        }
    }
}

#[test]
fn a_frame_is_refused_by_its_header() {
    let header = |len: u32| BytesMut::from(&[&len.to_le_bytes()[..], &[6]].concat()[..]);
    let limit = limits::MAX_HELLO;
    assert_eq!(Frame::take(&mut header(limit as u32), limit), Ok(None));
    assert_eq!(Frame::take(&mut header(limit as u32 + 1), limit), Err(Limit("frame length")));
    let most = limits::MAX_FRAME as u32;
    assert_eq!(Frame::take(&mut header(most), usize::MAX), Ok(None));
    assert_eq!(Frame::take(&mut header(most + 1), usize::MAX), Err(Limit("frame length")));
}

#[test]
fn the_high_bit_of_the_type_is_no_part_of_it() {
    let OutFrame { head, .. } = ToSender::Ping.encode();
    let mut bytes = head.to_vec();
    bytes[4] |= 0x80;
    let frame = take_frame(&bytes);
    assert_eq!((frame.kind, frame.compressed), (6, true));
}
