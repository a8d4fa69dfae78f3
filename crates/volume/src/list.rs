//! The names in one directory, sorted.
//!
//! A [`NameList`] holds all names of a directory in one arena, in the order of their bytes, which is
//! the order of listings on the wire and of every merge. An entry costs its name and sixteen bytes.
//!
//! A listing that fails part-way is still a listing, of what was read until then, but it is not
//! [complete](NameList::complete): what it does not name may exist all the same, so nothing may be
//! deleted on its word.
//!
//! The directory is opened once more to be read, as `.` relative to the held descriptor. The
//! position of `getdents` belongs to the open file, and a [`Dir`] is shared between threads: two
//! readers of one descriptor would each see half of it.

use std::{hash::BuildHasher, ops::Range};

use rustix::{
    fs::{self, FileType, Mode, OFlags, RawDir},
    io::Errno,
};
use wire::{FileKind, Name};

use crate::{Dir, Error, Result, descriptors::opening};

/// One call of `getdents` fills this much, in bytes: some 2,000 short names.
const BUFFER: usize = 64 * 1024;

/// All names of a directory, sorted by bytes, each once.
pub struct NameList {
    arena: Vec<u8>,
    slots: Vec<Slot>,
    failure: Option<Error>,
}

/// Where a name lies in the arena.
#[derive(Clone, Copy)]
struct Slot {
    start: u32,
    len: u16,
    hint: Option<FileKind>,
    inode: u64,
}

/// What an entry can be known by.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    /// Its kind, its inode number, as the directory records them, and its name.
    pub named: u32,
    /// The same without its name. `None` of what may be a directory: when the name of that changes, all that lies in it has
    /// other paths.
    pub inode: Option<u32>,
}

impl NameList {
    /// Reads the names of `dir`, without `.` and `..`.
    ///
    /// # Errors
    /// Where the directory cannot be opened. A failure while reading is kept in the list instead:
    /// see [`NameList::failure`].
    pub fn read(dir: &Dir) -> Result<Self> {
        let fail = |errno| dir.own_error("list", errno);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let held = dir.descriptor()?;
        let fd = opening(|| fs::openat(&held, c".", flags, Mode::empty())).map_err(fail)?;
        let mut buffer = Vec::with_capacity(BUFFER);
        let mut entries = RawDir::new(&fd, buffer.spare_capacity_mut());
        let mut list = Collector::default();
        let end = loop {
            let step = match entries.next() {
                None => break Ok(()),
                Some(Err(Errno::INTR)) => continue,
                Some(Err(errno)) => Err(errno),
                Some(Ok(entry)) => {
                    list.add(entry.file_name().to_bytes(), entry.file_type(), entry.ino())
                }
            };
            if step.is_err() {
                break step;
            }
        };
        Ok(list.finish(end.err().map(fail)))
    }

    /// The names in the order of their bytes.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> + DoubleEndedIterator {
        self.slots.iter().map(|slot| self.bytes(slot))
    }

    /// The name at `index`, checked.
    #[must_use]
    pub fn name(&self, index: usize) -> Option<Name> {
        // Every name was checked when it was added.
        Name::new(self.get(index)?).ok()
    }

    /// The bytes of the name at `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        self.slots.get(index).map(|slot| self.bytes(slot))
    }

    /// The kind that the directory itself records; `None` where the file system keeps none. Only a
    /// hint: the entry may have been replaced since.
    #[must_use]
    pub fn kind_hint(&self, index: usize) -> Option<FileKind> {
        self.slots.get(index)?.hint
    }

    /// Short hashes of each entry, by which it can be known again.
    pub fn marks(&self, key: &impl BuildHasher) -> impl Iterator<Item = Mark> {
        self.slots.iter().map(|slot| {
            let hash = |name| (key.hash_one((slot.hint, slot.inode, name)) >> 32) as u32;
            let may_be_directory = slot.hint.is_none_or(|kind| kind == FileKind::Directory);
            Mark {
                named: hash(Some(self.bytes(slot))),
                inode: (!may_be_directory).then(|| hash(None)),
            }
        })
    }

    /// Number of names.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Bytes of memory that the list takes.
    #[must_use]
    pub fn memory(&self) -> u64 {
        (self.arena.len() + self.slots.len() * size_of::<Slot>()) as u64
    }

    /// True where there is no name; the directory is empty if the list is complete as well.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// True where the directory was read to its end without an error.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.failure.is_none()
    }

    /// What ended the reading early.
    #[must_use]
    pub fn failure(&self) -> Option<&Error> {
        self.failure.as_ref()
    }

    /// The same list, not complete because of `failure`.
    pub(crate) fn failed(self, failure: Error) -> Self {
        Self { failure: Some(failure), ..self }
    }

    fn bytes(&self, slot: &Slot) -> &[u8] {
        &self.arena[slot.range()]
    }
}

impl Slot {
    fn range(self) -> Range<usize> {
        self.start as usize..self.start as usize + usize::from(self.len)
    }
}

/// Names as they come from the kernel, in no order.
#[derive(Default)]
struct Collector {
    arena: Vec<u8>,
    slots: Vec<Slot>,
}

impl Collector {
    /// Adds one name of `getdents`. `EUCLEAN` for one that is none: only a broken file system has
    /// such, and leaving it out unsaid would pass for a complete listing.
    fn add(&mut self, name: &[u8], file_type: FileType, inode: u64) -> Result<(), Errno> {
        if matches!(name, b"." | b"..") {
            return Ok(());
        }
        let is_name =
            !name.is_empty() && name.len() <= wire::name::MAX_NAME && !name.contains(&b'/');
        if !is_name {
            return Err(Errno::UCLEAN);
        }
        let len = u16::try_from(name.len()).map_err(|_| Errno::UCLEAN)?;
        let start = u32::try_from(self.arena.len()).map_err(|_| Errno::OVERFLOW)?;
        self.arena.extend_from_slice(name);
        self.slots.push(Slot { start, len, hint: kind_of(file_type), inode });
        Ok(())
    }

    fn finish(mut self, failure: Option<Error>) -> NameList {
        self.sort();
        let Self { arena, mut slots } = self;
        // A directory that changes while it is read may name an entry twice.
        slots.dedup_by(|a, b| arena[a.range()] == arena[b.range()]);
        NameList { arena, slots, failure }
    }

    /// Sorts the slots by the bytes of their names.
    ///
    /// Names in large directories mostly share a prefix. Behind it, eight bytes as one integer
    /// settle nearly every comparison without a visit to the arena.
    fn sort(&mut self) {
        let arena = &self.arena;
        if self.slots.is_sorted_by(|a, b| arena[a.range()] <= arena[b.range()]) {
            return;
        }
        let Some(first) = self.slots.first() else { return };
        let first = &arena[first.range()];
        let shared = self.slots.iter().fold(first.len(), |shared, slot| {
            let pairs = first[..shared].iter().zip(&arena[slot.range()]);
            pairs.take_while(|(a, b)| a == b).count()
        });
        let mut keyed: Vec<(u64, Slot)> =
            self.slots.iter().map(|slot| (key(&arena[slot.range()][shared..]), *slot)).collect();
        keyed.sort_unstable_by(|(a, x), (b, y)| {
            a.cmp(b).then_with(|| arena[x.range()][shared..].cmp(&arena[y.range()][shared..]))
        });
        for (slot, (_, sorted)) in self.slots.iter_mut().zip(keyed) {
            *slot = sorted;
        }
    }
}

/// The first eight bytes, big-endian. The padding is NUL, which no name holds, so a shorter name
/// sorts before a longer one that it begins.
fn key(bytes: &[u8]) -> u64 {
    let mut key = [0; 8];
    let len = bytes.len().min(key.len());
    key[..len].copy_from_slice(&bytes[..len]);
    u64::from_be_bytes(key)
}

fn kind_of(file_type: FileType) -> Option<FileKind> {
    Some(match file_type {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        FileType::Fifo => FileKind::Fifo,
        FileType::Socket => FileKind::Socket,
        FileType::CharacterDevice => FileKind::CharDevice,
        FileType::BlockDevice => FileKind::BlockDevice,
        FileType::Unknown => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn collect(names: &[Vec<u8>]) -> Collector {
        let mut list = Collector::default();
        for name in names {
            list.add(name, FileType::Unknown, 0).unwrap();
        }
        list
    }

    proptest! {
        #[test]
        fn names_come_out_sorted_and_once(
            names in prop::collection::vec(prop::collection::vec(97_u8..100, 1..14), 0..60),
            prefix in "[ab]{0,12}",
        ) {
            let names: Vec<Vec<u8>> =
                names.into_iter().map(|n| [prefix.as_bytes(), &n].concat()).collect();
            let list = collect(&names).finish(None);
            let expected: std::collections::BTreeSet<&[u8]> =
                names.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(list.iter().collect::<Vec<_>>(), expected.into_iter().collect::<Vec<_>>());
            prop_assert!(list.complete());
        }
    }

    #[test]
    fn a_failure_keeps_what_was_read_and_is_not_complete() {
        let list = collect(&[b"b".to_vec(), b"a".to_vec()]).finish(Some(Error::new(
            "list",
            ".",
            Errno::IO,
        )));
        assert_eq!(list.iter().collect::<Vec<_>>(), [b"a", b"b"]);
        assert!(!list.complete());
        assert_eq!(list.failure().map(|e| e.errno), Some(Errno::IO));
    }

    #[test]
    fn what_is_no_name_is_an_error_and_never_left_out_unsaid() {
        for bad in [&b""[..], b"a/b", &[b'x'; 256]] {
            let mut list = Collector::default();
            assert_eq!(list.add(bad, FileType::RegularFile, 0), Err(Errno::UCLEAN));
        }
    }

    #[test]
    fn an_entry_costs_its_name_and_sixteen_bytes() {
        assert_eq!(size_of::<Slot>(), 16);
    }
}
