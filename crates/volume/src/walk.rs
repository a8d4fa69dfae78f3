//! The stack of directories that a depth-first walk is in.
//!
//! No recursion: a tree may be deeper than any thread's stack.

use wire::{FileKind, Name};

use crate::{Dir, Error, Result, list::NameList, staging};

/// One directory of a walk, and how far the walk has come in it.
pub struct Level {
    /// The directory.
    pub dir: Dir,
    names: Option<NameList>,
    next: usize,
    /// Staging directories, which are no part of the data. In ascending order.
    passed_over: Vec<usize>,
}

impl Level {
    /// Lists `dir`, but for staging directories.
    ///
    /// # Errors
    /// Where the directory cannot be opened.
    pub fn read(dir: Dir) -> Result<Self> {
        let (names, _) = NameList::read_settled(&dir)?;
        let passed_over = staging::among(&dir, &names);
        let mut level = Self { dir, names: Some(names), next: 0, passed_over };
        level.pass_over();
        Ok(level)
    }

    fn pass_over(&mut self) {
        while self.passed_over.binary_search(&self.next).is_ok() {
            self.next += 1;
        }
    }

    /// A directory that is not looked into, such as a mount point. It is not even opened, so `dir`
    /// is the one above.
    #[must_use]
    pub fn closed(dir: Dir) -> Self {
        Self { dir, names: None, next: 0, passed_over: Vec::new() }
    }

    /// The bytes of the next name.
    #[must_use]
    pub fn peek(&self) -> Option<&[u8]> {
        self.names.as_ref()?.get(self.next)
    }

    /// The kind that the directory records for the next name: a hint.
    #[must_use]
    pub fn kind_hint(&self) -> Option<FileKind> {
        self.names.as_ref()?.kind_hint(self.next)
    }

    /// Goes on to the next name.
    pub fn pop(&mut self) -> Option<Name> {
        let name = self.names.as_ref()?.name(self.next);
        self.next += 1;
        self.pass_over();
        name
    }

    /// Why the names are not all.
    #[must_use]
    pub fn failure(&self) -> Option<&Error> {
        self.names.as_ref()?.failure()
    }
}

/// True for `lost+found` at the root of a volume. Where it is a directory, `mkfs` made it: a part of
/// the file system and not of the data, which nothing enters, copies or removes.
#[must_use]
pub fn is_lost_and_found(dir: &Dir, name: &Name) -> bool {
    dir.parent().is_none() && **name == *b"lost+found"
}
