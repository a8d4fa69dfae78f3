//! The whole receiving end, from the first byte on, against a sender that says what it likes.
//!
//! The script is made of messages that are mostly well-formed and that know each other's ids, so that many of them
//! get as far as the volume. A file that the script ends with the right digest may be published; any other may not.

mod actor;
mod listing;

use std::{fs, path::Path, sync::LazyLock};

use arbitrary::Unstructured;
use parking_lot::Mutex;
use session::{Error, server::Server};
use wire::{FilterAction, FilterRule, Options};

use crate::{
    script::{byte, rarely, some_bytes},
    stage::{Seen, Stage, block_on, context, look_at, way_out},
};
use actor::{Actor, LARGE, MIDDLE, MOST};

static STAGE: LazyLock<Mutex<Stage>> = LazyLock::new(|| Mutex::new(Stage::new()));

/// A script: options of the session, then messages.
pub fn receiver(bytes: &[u8]) {
    let mut u = Unstructured::new(bytes);
    let stage = STAGE.lock();
    stage.clear();
    let options = options(&mut u);
    if !rarely(&mut u, 64) {
        furnish(&stage.volume());
    }
    let before = look_at(&stage.volume());
    let mut actor = Actor::new(options.clone());
    let volume = stage.volume();
    let received = block_on(async {
        let (near, far) = tokio::io::duplex(1 << 20);
        tokio::join!(actor.play(near, &mut u), serve(far, &volume)).1
    });
    if let Err(Error::Protocol(why)) = &received {
        assert!(!why.contains("internal"), "{why}");
    }
    stage.check_outside();
    if options.dry_run {
        assert_eq!(look_at(&volume), before, "a dry run has changed something");
    }
    if !options.delete && before.len() > 1 {
        assert_eq!(fs::read(volume.join("keep")).ok(), Some(b"keep".to_vec()));
    }
    actor.check_content(&volume, &before);
}

async fn serve(stream: tokio::io::DuplexStream, volume: &Path) -> Result<(), Error> {
    let server = Server::new(4 << 20);
    let Some(incoming) = server.admit(stream, |_| Ok(volume.to_owned().into())).await? else {
        return Ok(());
    };
    let (first, joining, agreed, target, registered) = incoming.into_parts();
    let received = session::receive(first, joining, agreed, target, context()).await;
    drop(registered);
    received.map(drop)
}

/// What stands in the volume: every kind of basis, and ways out.
fn furnish(volume: &Path) {
    let write = |name: &str, content: &[u8]| fs::write(volume.join(name), content);
    let furnished = write("keep", b"keep")
        .and_then(|()| write("old", b"old"))
        .and_then(|()| write("large", &LARGE))
        .and_then(|()| write("middle", &MIDDLE))
        .and_then(|()| fs::create_dir(volume.join("sub")))
        .and_then(|()| write("sub/inner", b"inner"))
        .and_then(|()| fs::hard_link(volume.join("old"), volume.join("sub/linked")))
        .and_then(|()| way_out(volume, "out", "../outside"))
        .and_then(|()| way_out(volume, "secret", "../outside/secret"));
    furnished.expect("the volume is furnished");
}

fn options(u: &mut Unstructured<'_>) -> Options {
    let flags = byte(u);
    let bit = |n: u8| flags & (1 << n) != 0;
    let more = byte(u);
    Options {
        delete: bit(0),
        checksum: bit(1),
        atomic: bit(2),
        dry_run: bit(3) && bit(4),
        itemize: bit(5),
        verify: bit(6),
        allow_empty: bit(7),
        no_owner: more & 1 != 0,
        max_delete: (more & 6 == 6).then_some(u64::from(more >> 4)),
        filters: if more & 8 == 0 {
            Vec::new()
        } else {
            vec![FilterRule { action: FilterAction::Exclude, pattern: some_bytes(u, 20) }]
        },
    }
}

impl Actor {
    /// Whatever bears a final name holds what was there, or what the script vouched for.
    fn check_content(&self, volume: &Path, before: &[Seen]) {
        for seen in look_at(volume) {
            let below = seen.path.strip_prefix(volume).expect("it is below");
            let staged = below.iter().next().is_some_and(|name| {
                volume::staging::inode_number(name.as_encoded_bytes()).is_some()
            });
            if seen.is_file() && !before.contains(&seen) && !staged {
                self.check_file(&seen, below == "large");
            }
        }
    }

    fn check_file(&self, seen: &Seen, patched_in_place: bool) {
        // What is patched where it lies is marked, for as long as it is nothing whole, by its time: never a source's.
        let of_a_source = [5, 0, -1, 1 << 33, i64::MAX, i64::MIN].contains(&seen.mtime.0);
        if patched_in_place && (!of_a_source || seen.mtime == (0, 1)) {
            return;
        }
        let path = seen.path.display();
        assert!(seen.size <= 2 * MOST as u64, "{path} has {} bytes", seen.size);
        let content = fs::read(&seen.path).expect("a file is read");
        let known = content.is_empty() || self.honest.contains(&blake3::hash(&content));
        assert!(known, "{path} holds what nobody vouched for");
    }
}
