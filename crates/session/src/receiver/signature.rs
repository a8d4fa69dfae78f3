//! The signature thread: hashes bases one after the other, in the order in which they were asked
//! for, and streams the hashes while the sender already reads its own files.

use wire::ToSender;

use super::state::Shared;
use crate::control::{Stopped, frame_cost};

/// Hashes of one frame.
const HASHES: usize = 1024;

pub(super) fn work(shared: &Shared) -> Result<(), Stopped> {
    let mut buffer = Vec::new();
    while let Ok(file) = shared.signatures.recv() {
        shared.control.check()?;
        let Some(delta) = file.delta() else { continue };
        let segments = delta.segments();
        let mut first = 0;
        let mut at = 0;
        loop {
            let mut hashes = Vec::with_capacity(HASHES.min(segments as usize));
            let mut readable = true;
            while at < segments && hashes.len() < HASHES && readable {
                match delta.hash_segment(shared, at, &mut buffer) {
                    Some(hash) => {
                        hashes.push(hash.0);
                        at += 1;
                    }
                    // What cannot be read is no basis: the sender sends the rest of its file.
                    None => readable = false,
                }
            }
            file.charge_content(shared);
            let last = at == segments || !readable;
            let count = hashes.len() as u32;
            let frame = ToSender::Signature(file.id, first, hashes, last).encode();
            // As much as the sender gives back for it.
            shared.signature_credit.acquire(frame_cost(frame.wire_len()))?;
            shared.send_frame(frame)?;
            first += count;
            if last {
                break;
            }
        }
    }
    Ok(())
}
