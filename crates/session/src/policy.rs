//! What a receiver permits a sender to do with its volume.
//!
//! The options of a session come from the sender, which may have been taken over. So the receiver has a [`Policy`] of its
//! own for each volume, and the stricter of both ends holds. What goes beyond it is refused before the volume is opened.

use wire::{Hello, Options, Refusal, RootKind};

/// What a sender may do with a volume, at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Entries that the source does not have may be deleted.
    pub delete: bool,
    /// So many at most.
    pub max_delete: Option<u64>,
    /// The source may be empty.
    pub allow_empty: bool,
    /// The sender may be told what the files of the volume hold: hashes of blocks, and whether content is the same.
    pub delta: bool,
}

impl Policy {
    /// Whatever the sender asks for.
    pub const UNRESTRICTED: Self =
        Self { delete: true, max_delete: None, allow_empty: true, delta: true };

    /// Refuses what goes beyond the policy.
    pub(crate) fn check(&self, hello: &Hello) -> Result<(), (Refusal, String)> {
        let volume = wire::name::escape(hello.volume.as_bytes());
        let options = &hello.options;
        let why = if options.delete && !self.delete {
            format!(
                "serve does not permit --delete for volume {volume}: start it with --allow-delete={volume}"
            )
        } else if options.allow_empty && !self.allow_empty {
            format!(
                "serve does not permit --allow-empty-source for volume {volume}: start it with --allow-empty-source={volume}"
            )
        } else if hello.root != RootKind::Tree && !self.delta {
            let why = format!(
                "serve does not accept a block device for volume {volume}: it was started with --no-delta"
            );
            return Err((Refusal::Unfit, why));
        } else if options.verify && !self.delta {
            format!(
                "serve does not permit --verify for volume {volume}: it was started with --no-delta"
            )
        } else {
            return Ok(());
        };
        Err((Refusal::NotAuthorised, why))
    }

    /// Makes what the sender asked for as strict as the policy.
    pub(crate) fn restrict(&self, options: &mut Options) {
        options.max_delete = match (options.max_delete, self.max_delete) {
            (Some(theirs), Some(own)) => Some(theirs.min(own)),
            (limit, None) | (None, limit) => limit,
        };
        options.delete &= self.delete;
        options.allow_empty &= self.allow_empty;
    }

    /// Whether it is the policy that sets the limit on deletions for a sender that asked for `theirs`.
    pub(crate) fn limits(&self, theirs: Option<u64>) -> bool {
        self.max_delete.is_some_and(|own| theirs.is_none_or(|theirs| own < theirs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_limit_holds() {
        for (theirs, own, both, is_own) in [
            (None, None, None, false),
            (Some(3), None, Some(3), false),
            (None, Some(3), Some(3), true),
            (Some(3), Some(5), Some(3), false),
            (Some(5), Some(3), Some(3), true),
            (Some(0), Some(0), Some(0), false),
        ] {
            let policy = Policy { max_delete: own, ..Policy::UNRESTRICTED };
            let mut options = Options { max_delete: theirs, ..Options::default() };
            assert_eq!(policy.limits(theirs), is_own);
            policy.restrict(&mut options);
            assert_eq!(options.max_delete, both);
        }
    }
}
