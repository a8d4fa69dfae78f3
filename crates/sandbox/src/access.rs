//! Kinds of access to files, as policies name them.

use landlock::{AccessFs, BitFlags, make_bitflags};

/// What may be done with a path, and with what lies below it. Two rules for one path add up.
#[derive(Debug, Clone, Copy)]
pub struct Access(pub(crate) BitFlags<AccessFs>);

impl Access {
    /// Everything that a volume may be made of, and nothing that has to do with running it.
    pub const WRITE_VOLUME: Self = Self(make_bitflags!(AccessFs::{
        ReadFile | ReadDir | WriteFile | Truncate | Refer | RemoveFile | RemoveDir | MakeReg | MakeDir
            | MakeSym | MakeFifo | MakeSock | MakeChar | MakeBlock
    }));
    /// Files and listings.
    pub const READ_VOLUME: Self = Self(make_bitflags!(AccessFs::{ReadFile | ReadDir}));
    /// Files by their names.
    pub const READ_FILES: Self = Self(make_bitflags!(AccessFs::{ReadFile}));
    /// An existing file.
    pub const WRITE_FILE: Self = Self(make_bitflags!(AccessFs::{WriteFile | Truncate}));
    /// Markers and status files, each written beside and renamed.
    pub const SHARE_FILES: Self = Self(
        make_bitflags!(AccessFs::{ReadFile | ReadDir | WriteFile | Truncate | MakeReg | RemoveFile}),
    );
    /// A Unix socket, in the place of an older one.
    pub const HOLD_SOCKET: Self = Self(make_bitflags!(AccessFs::{MakeSock | RemoveFile}));
}
