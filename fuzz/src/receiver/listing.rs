//! Listings with entries of every sort, some of which no volume may ever hold.

use arbitrary::Unstructured;
use bytes::{BufMut, BytesMut};
use wire::EntryId;

use super::actor::{Actor, LARGE, checksum};
use crate::{
    heard::Line,
    script::{byte, pick, some_bytes},
};

impl Actor {
    pub(super) async fn listing(&mut self, line: &mut Line, u: &mut Unstructured<'_>) {
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
            e.raw(&checksum(EntryId(id), &content).to_le_bytes());
            self.honest.insert(blake3::hash(&content));
        }
        self.files.insert(id, Vec::new());
        self.sizes.insert(id, size);
        self.frames.insert(id, 0);
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
        // The form of a name that the receiver uses itself.
        240..248 => format!(".pvferry-{:x}-0123456789abcdef", u16::from(byte(u)) + 1).into_bytes(),
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
