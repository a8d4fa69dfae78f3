//! Reading everything again: the tree digest that both ends compare after the commit.

use volume::{
    Dir,
    digest::{self, DigestOptions, LeftOut},
    stat::ReadOptions,
};
use wire::{ManifestDigest, Options};

use crate::sender::filters;

/// The digest of the tree below `root`, as far as the session's filters let it take part, without what is `left_out`.
pub(crate) fn tree(
    root: &Dir,
    options: &Options,
    left_out: Option<LeftOut<'_>>,
    threads: usize,
) -> volume::Result<ManifestDigest> {
    let filter = filters(options)?;
    let options = DigestOptions {
        read: ReadOptions::default(),
        // The walk has reported them; without owners they are of no interest.
        known_only: false,
        filter: &filter,
        left_out,
        threads,
        progress: None,
    };
    let tree = digest::tree_digest(root, &options)?;
    match tree.errors.into_iter().next() {
        Some(error) => Err(error),
        None if tree.failed > 0 => {
            Err(volume::Error::new("read", root.display(), rustix::io::Errno::IO))
        }
        None => Ok(tree.digest),
    }
}
