//! Hard links: every inode gets its other names once the first name is what it should be.

use std::sync::Arc;

use rustix::io::Errno;
use volume::{
    create,
    stat::{self, ReadOptions},
};
use wire::EntryId;

use super::{
    dirs,
    merge::{Follower, Leader, LinkGroup},
    state::Shared,
};
use crate::{control::Stopped, summary::SOURCE_CHANGED};

/// Gives every inode its further names.
pub(super) fn link_groups(shared: &Arc<Shared>) -> Result<(), Stopped> {
    let groups = std::mem::take(&mut *shared.links.lock());
    for (leader_id, group) in groups {
        let LinkGroup { leader, anew, followers } = group;
        for follower in followers {
            shared.control.check()?;
            match &leader {
                _ if anew => announce(shared, &follower)?,
                Some(leader) => link(shared, leader_id, leader, &follower)?,
                None => {
                    let shown = follower.dir.display_entry(&follower.entry.name);
                    let what = "is a hard link to a file that was not transferred";
                    // How bad that is, the problem with the first name says.
                    shared.problem(&shown, what, SOURCE_CHANGED)?;
                    // The sender has it in its manifest, which is compared where nothing but its source is the reason.
                    let (dir, name) = (follower.dir.id, &follower.entry.name);
                    shared.manifest.add_link(dir, follower.id, name, leader_id);
                }
            }
            dirs::release(shared, &follower.dir)?;
        }
    }
    Ok(())
}

/// Tells, in a dry run, that the run would make the inode of an entry anew. Its further names then become links to it,
/// whatever they are now.
pub(super) fn would_make_anew(shared: &Shared, link: Option<EntryId>, id: EntryId) {
    if shared.dry_run() && link == Some(id) {
        shared.links.lock().entry(id).or_default().anew = true;
    }
}

fn announce(shared: &Shared, follower: &Follower) -> Result<(), Stopped> {
    follower.dir.touch();
    shared.count_written();
    let verb = if follower.exists { "update" } else { "create" };
    shared.action(verb, &follower.dir.display_entry(&follower.entry.name))
}

fn link(
    shared: &Shared,
    leader_id: EntryId,
    leader: &Leader,
    follower: &Follower,
) -> Result<(), Stopped> {
    let name = &follower.entry.name;
    let shown = follower.dir.display_entry(name);
    let linked = (|| {
        let (Some(from), Some(to)) = (&leader.dir.dir, &follower.dir.dir) else { return Ok(true) };
        let plain = ReadOptions { xattrs: false, selinux: false };
        let (_, first) = stat::read_entry(from, &leader.name, &plain)?;
        if follower.exists {
            match stat::read_entry(to, name, &plain) {
                Ok((_, own)) if (own.dev, own.ino) == (first.dev, first.ino) => return Ok(false),
                Ok(_) => {}
                Err(error) if error.errno == Errno::NOENT => {}
                Err(error) => return Err(error),
            }
        }
        follower.dir.touch();
        if !shared.dry_run() {
            create::link(from, &leader.name, follower.dir.place(shared, name, follower.exists)?)?;
            // The record below says that both are one inode: that is looked up and not taken for granted.
            let (_, own) = stat::read_entry(to, name, &plain)?;
            if (own.dev, own.ino) != (first.dev, first.ino) {
                return Err(to.error("link to the first name", name, Errno::STALE));
            }
        }
        Ok(true)
    })();
    match linked {
        Ok(made) => {
            if made {
                shared.count_written();
                shared.action(if follower.exists { "update" } else { "create" }, &shown)?;
            }
            shared.record_link(follower.dir.id, follower.id, name, leader_id);
            Ok(())
        }
        Err(error) => shared.failed_on(&shown, &error),
    }
}
