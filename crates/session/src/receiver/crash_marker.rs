//! The crash marker: how a session finds out that the machine went down in the middle of an earlier one, or that an
//! earlier one ended with other content than was sent.
//!
//! What a session publishes is on stable storage only after the flush that precedes its commit
//! record. A power cut before that may leave files with the right size and time and without their
//! data, which size and time alone would then take for unchanged. A volume whose device fails, and that is mounted
//! again, is no better off. So before the first content is written, a small file with the kernel's boot id and the
//! number of the mount is made durable in the [staging directory](volume::staging), and it is removed after the flush.
//! A session that finds one with another content compares by content. The same content means that processes died and
//! the page cache did not, so nothing is missing. A session that ends early, but in order, flushes too: then the next
//! can trust size and time.
//!
//! A session also leaves one where the sender's manifest was another and nobody knows why: somewhere is content that was
//! not sent, with the right size and time. It is found by comparing, in the next session.
//!
//! And it stays where a file was left half patched. Whatever a marker says, there may be such files while there is one:
//! those whose content and inode changed together are compared by content ([`volume::writer`] says why that finds
//! them all). A session that did not look at everything leaves the marker for the next: one with a problem, and one with
//! other filter rules than the sessions that left the marker. So it also holds a digest of their rules ([`Scope`]).

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;
use rustix::{
    fs::{self, AtFlags, Mode, OFlags, StatxFlags},
    io::Errno,
};
use volume::{
    Dir, Error, Result,
    staging::{self, CRASH_MARKER, Staging},
};
use wire::{FilterAction, FilterRule, Name};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Longer than any boot id with a number.
const MAX_STATE: usize = 64;
/// Longer than any marker.
const MAX_LEN: usize = 256;
/// The state in the marker where the manifests of both ends differed.
const MANIFESTS_DIFFER: &[u8] = b"the manifests of both ends differ";

/// The state in the marker where nothing is wrong but that files are half patched.
const HALF_PATCHED: &[u8] = b"files are half patched";

/// What precedes the digest of filter rules, on a line of its own behind the state.
const RULES: &[u8] = b"rules ";

/// `STATX_MNT_ID_UNIQUE` of `linux/stat.h`.
const UNIQUE_MOUNT_ID: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// The crash marker of one session.
#[derive(Default)]
pub(super) struct CrashMarker {
    on_disk: Mutex<OnDisk>,
    /// What this session looks at.
    own: Scope,
    /// What the sessions that left one looked at, so files may be half patched.
    left: Option<Scope>,
    /// State of an earlier marker, and why size and time do not tell what is unchanged.
    untrusted: Option<(Vec<u8>, &'static str)>,
    /// Entries stay that the source does not have now. They were not compared, and it may have them again.
    uncompared: AtomicBool,
}

/// The marker in the staging directory that this session works in.
#[derive(Default)]
struct OnDisk {
    content: Option<Vec<u8>>,
    /// This session may have written content.
    begun: bool,
}

/// What a session looks at, as far as its filter rules decide that. The scope of a marker covers what each of the
/// sessions looked at that left it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Scope {
    #[default]
    Everything,
    /// What these rules do not exclude.
    Filtered([u8; 16]),
}

impl Scope {
    fn of(rules: &[FilterRule]) -> Self {
        if rules.is_empty() {
            return Self::Everything;
        }
        let mut hasher = blake3::Hasher::new_derive_key("pvferry 2026 filter rules");
        for FilterRule { action, pattern } in rules {
            hasher.update(&[u8::from(*action == FilterAction::Include)]);
            hasher.update(&(pattern.len() as u64).to_le_bytes());
            hasher.update(pattern);
        }
        let mut digest = [0; 16];
        hasher.finalize_xof().fill(&mut digest);
        Self::Filtered(digest)
    }

    /// True where a session of this scope sees all that sessions of `other` saw. Two sets of rules are not compared.
    fn covers(self, other: Self) -> bool {
        self == Self::Everything || self == other
    }

    fn with(self, other: Self) -> Self {
        if self == other { self } else { Self::Everything }
    }
}

impl CrashMarker {
    /// Looks for the markers of earlier sessions. `rules` are those of this session.
    pub(super) fn find(root: &Dir, staging: &Staging, rules: &[FilterRule]) -> Result<Self> {
        let mut marker = Self { own: Scope::of(rules), ..Self::default() };
        for (index, dir) in staging.dirs().iter().enumerate() {
            let Some(content) = read(dir)? else { continue };
            let (state, scope) = parse(&content);
            marker.left = Some(marker.left.map_or(scope, |left| left.with(scope)));
            if let (None, Some(reason)) = (&marker.untrusted, untrusted(state, root)) {
                marker.untrusted = Some((state.to_owned(), reason));
            }
            if index == 0 {
                marker.on_disk.get_mut().content = Some(content);
            }
        }
        Ok(marker)
    }

    /// Why size and time do not tell what is unchanged.
    pub(super) fn untrusted_reason(&self) -> Option<&'static str> {
        self.untrusted.as_ref().map(|(_, reason)| *reason)
    }

    /// True where an earlier session may have left half patched files.
    pub(super) fn was_left(&self) -> bool {
        self.left.is_some()
    }

    /// True where this session looks at all that the sessions looked at that left one.
    pub(super) fn is_covered(&self) -> bool {
        self.left.is_none_or(|left| self.own.covers(left)) && !self.has_passed_over()
    }

    /// Takes note that entries stay that this session does not compare. That matters where size and time do not tell what is
    /// unchanged.
    pub(super) fn pass_over(&self) {
        self.uncompared.store(self.untrusted.is_some(), Relaxed);
    }

    /// True where entries stay that should have been compared.
    pub(super) fn has_passed_over(&self) -> bool {
        self.uncompared.load(Relaxed)
    }

    /// Makes the marker durable, before content is written. What it says of an earlier session holds until one that
    /// covers it has succeeded.
    pub(super) fn begin(&self, root: &Dir, staging: &Staging) -> Result<()> {
        let mut on_disk = self.on_disk.lock();
        // This is called before each content.
        if !on_disk.begun {
            on_disk.put(root, staging, self.content(|| here(root), true))?;
            on_disk.begun = true;
        }
        Ok(())
    }

    /// Makes known to the next session that this one ended with other content than was sent.
    pub(super) fn manifests_differ(&self, root: &Dir, staging: &Staging) -> Result<()> {
        let content = self.content(|| MANIFESTS_DIFFER.to_vec(), true);
        self.on_disk.lock().put(root, staging, content)
    }

    /// Where a session ends early: what it wrote is flushed, so that the next can trust it. What is unfinished stays
    /// for the next, and so does the marker where `half_patched` says that a file is.
    pub(super) fn leave(&self, root: &Dir, staging: &Staging, half_patched: bool) {
        let mut on_disk = self.on_disk.lock();
        // What an earlier one may have lost is still not to be trusted.
        if self.untrusted.is_some() {
            return;
        }
        let present = on_disk.content.is_some();
        let flushed = if present { volume::flush::file_system(root) } else { Ok(()) };
        // Where that fails it stays, and the next session compares by content or goes on, as it finds the volume.
        let done = match flushed {
            Ok(()) if half_patched => {
                let content = self.content(|| HALF_PATCHED.to_vec(), on_disk.begun);
                on_disk.put(root, staging, content)
            }
            flushed => flushed.and_then(|()| staging.remove(true)).map(|()| on_disk.content = None),
        };
        // It says more than it has to then.
        drop(done);
    }

    /// After everything was flushed: what is left to say is that files are half patched, by earlier sessions alone or,
    /// where `own` says so, by this one too.
    pub(super) fn keep(&self, root: &Dir, staging: &Staging, own: bool) -> Result<()> {
        let content = self.content(|| HALF_PATCHED.to_vec(), own);
        self.on_disk.lock().put(root, staging, content)
    }

    /// Removes the marker with the staging directory, after everything was flushed.
    pub(super) fn end(&self, staging: &Staging) -> Result<()> {
        let mut on_disk = self.on_disk.lock();
        staging.remove(false)?;
        *on_disk = OnDisk::default();
        Ok(())
    }

    /// What the marker is to say: `state`, unless an earlier session said worse, and the scope of those that left it;
    /// `own` includes this one.
    fn content(&self, state: impl FnOnce() -> Vec<u8>, own: bool) -> Vec<u8> {
        let scope = match self.left {
            Some(left) if own => left.with(self.own),
            Some(left) => left,
            None => self.own,
        };
        let mut content = self.untrusted.as_ref().map_or_else(state, |(state, _)| state.clone());
        if let Scope::Filtered(digest) = scope {
            content.push(b'\n');
            content.extend_from_slice(RULES);
            content.extend_from_slice(format!("{:032x}", u128::from_be_bytes(digest)).as_bytes());
        }
        content
    }
}

/// The state in a marker, and the scope of the sessions that left it.
fn parse(content: &[u8]) -> (&[u8], Scope) {
    let Some(end) = content.iter().position(|&byte| byte == b'\n') else {
        return (content, Scope::Everything);
    };
    let (state, rest) = content.split_at(end);
    let digits = rest[1..].strip_prefix(RULES).filter(|digits| digits.len() == 32);
    let digest = digits
        .and_then(|digits| str::from_utf8(digits).ok())
        .and_then(|digits| u128::from_str_radix(digits, 16).ok());
    (state, digest.map_or(Scope::Everything, |digest| Scope::Filtered(digest.to_be_bytes())))
}

impl OnDisk {
    /// Gives the marker this content, durably.
    fn put(&mut self, root: &Dir, staging: &Staging, content: Vec<u8>) -> Result<()> {
        match &self.content {
            Some(present) if *present == content => return Ok(()),
            Some(_) => rewrite(staging, &content)?,
            None => create(root, staging, &content)?,
        }
        self.content = Some(content);
        Ok(())
    }
}

fn create(root: &Dir, staging: &Staging, content: &[u8]) -> Result<()> {
    let dir = staging.dir()?;
    let fail = |errno| Error::new("write the crash marker", root.display(), errno);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let open = dir.open_at(&name()?, flags, Mode::RUSR | Mode::WUSR);
    let fd = open.map_err(|error| fail(error.errno))?;
    if rustix::io::write(&fd, content).map_err(fail)? != content.len() {
        return Err(fail(Errno::NOSPC));
    }
    fs::fsync(&fd).map_err(fail)?;
    staging::flush(&dir)?;
    staging::flush(root)
}

fn name() -> Result<Name> {
    let invalid = |_| Error::new("name", "the crash marker", Errno::INVAL);
    Name::new(CRASH_MARKER).map_err(invalid)
}

/// Gives the marker other content. One that is cut off in between is trusted less.
fn rewrite(staging: &Staging, content: &[u8]) -> Result<()> {
    let dir = staging.dir()?;
    let fail = |errno| Error::new("write the crash marker", dir.display(), errno);
    let fd = dir.open_at(&name()?, OFlags::WRONLY | OFlags::TRUNC, Mode::empty())?;
    if rustix::io::write(&fd, content).map_err(fail)? != content.len() {
        return Err(fail(Errno::NOSPC));
    }
    fs::fsync(&fd).map_err(fail)
}

fn read(dir: &Dir) -> Result<Option<Vec<u8>>> {
    let fd = match dir.open_at(&name()?, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()) {
        Ok(fd) => fd,
        Err(error) if error.errno == Errno::NOENT => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut buffer = vec![0; MAX_LEN];
    let len = rustix::io::read(&fd, &mut buffer)
        .map_err(|errno| Error::new("read the crash marker", dir.display(), errno))?;
    buffer.truncate(len);
    Ok(Some(buffer))
}

/// What the marker of an earlier session means.
fn untrusted(id: &[u8], root: &Dir) -> Option<&'static str> {
    match id {
        HALF_PATCHED => None,
        MANIFESTS_DIFFER => Some("an earlier transfer could not be verified"),
        id if id != here(root) => {
            Some("an earlier transfer was interrupted by a crash or a remount")
        }
        _ => None,
    }
}

/// What this start of the kernel and this mount of the volume are called.
fn here(root: &Dir) -> Vec<u8> {
    let boot = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
    let mut here = format!("{} {}", boot.trim(), mount(root)).into_bytes();
    here.truncate(MAX_STATE);
    here
}

/// The number of the mount that `root` is on, which is never used again. Kernels before 6.8 have none; there it is the moment
/// when the first process of this container began, which mounts its volumes once.
fn mount(root: &Dir) -> u64 {
    let unique = root.descriptor().ok().and_then(|fd| {
        let stat = fs::statx(fd, c"", AtFlags::EMPTY_PATH, UNIQUE_MOUNT_ID).ok()?;
        (stat.stx_mask & UNIQUE_MOUNT_ID.bits() != 0).then_some(stat.stx_mnt_id)
    });
    unique.unwrap_or_else(|| begin_of_first_process().unwrap_or(0))
}

/// In clock ticks since the start of the kernel; see `proc_pid_stat(5)`.
fn begin_of_first_process() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/1/stat").ok()?;
    // Its name may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_cleared_by_the_rules_that_left_it_or_by_none() {
        let rule = |pattern: &str, action| FilterRule { action, pattern: pattern.into() };
        let sets = [
            vec![],
            vec![rule("a", FilterAction::Exclude)],
            vec![rule("a", FilterAction::Include)],
            vec![rule("a", FilterAction::Exclude), rule("b", FilterAction::Exclude)],
            vec![rule("b", FilterAction::Exclude), rule("a", FilterAction::Exclude)],
            vec![rule("ab", FilterAction::Exclude)],
        ];
        for (at, left) in sets.iter().enumerate() {
            let marker = CrashMarker { own: Scope::of(left), ..CrashMarker::default() };
            let content = marker.content(|| HALF_PATCHED.to_vec(), true);
            assert!(content.len() < MAX_LEN);
            let (state, scope) = parse(&content);
            assert_eq!((state, scope), (HALF_PATCHED, Scope::of(left)));
            for (other, rules) in sets.iter().enumerate() {
                let own = Scope::of(rules);
                assert_eq!(own.covers(scope), other == at || other == 0, "{left:?} {rules:?}");
                let both = CrashMarker { own, left: Some(scope), ..CrashMarker::default() };
                let scope = parse(&both.content(|| HALF_PATCHED.to_vec(), true)).1;
                assert_eq!(Scope::of(left).covers(scope), other == at || at == 0);
            }
        }
        for spoilt in [&b""[..], b"x\n", b"x\nrules", b"x\nrules +123", b"x\nrules 00\xff"] {
            assert_eq!(parse(spoilt).1, Scope::Everything);
        }
    }

    #[test]
    fn this_mount_has_one_name() {
        let tmp = tempfile::tempdir().unwrap();
        let (a, b) = (Dir::open_root(tmp.path()).unwrap(), Dir::open_root(tmp.path()).unwrap());
        assert_eq!(here(&a), here(&b));
        assert!(here(&a).len() > 37 && here(&a).len() <= MAX_STATE);
        let other = Dir::open_root(std::path::Path::new("/proc")).unwrap();
        assert_ne!(here(&a), here(&other));
    }

    #[test]
    fn the_first_process_has_begun() {
        let own = std::fs::read_to_string("/proc/self/stat").unwrap();
        let own = own.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap();
        let first = begin_of_first_process().unwrap();
        assert!(first < own.parse().unwrap(), "{first} {own}");
    }
}
