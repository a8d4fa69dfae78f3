//! Where each frame of the sender goes. Everything here runs in the task of a stream and never blocks.

use std::sync::atomic::Ordering::Relaxed;

use wire::{Frame, ToReceiver, frame::HEADER_LEN};

use super::state::{Shared, Work};
use crate::{Error, Result, compress, control::frame_cost, layout::RANGE_LOG2};

impl Shared {
    /// Takes in one frame of the sender. Never blocks: it runs in the task of the stream.
    pub(super) fn on_frame(&self, frame: Frame) -> Result<()> {
        if self.is_committed() {
            return self.on_last_frame(frame);
        }
        let frame = compress::unpack(frame)?;
        let cost = frame_cost(HEADER_LEN + frame.body.len());
        let message = ToReceiver::decode(frame)?;
        match &message {
            ToReceiver::Ping => return Ok(()),
            ToReceiver::Credit(bytes) => {
                self.signature_credit.grant(*bytes);
                return Ok(());
            }
            ToReceiver::Blocked => {
                self.more_credit();
                return Ok(());
            }
            ToReceiver::Abort(code, why) => return Err(Error::Aborted(*code, why.clone())),
            ToReceiver::Goodbye(_) => return Err(Error::Protocol("goodbye before the commit")),
            ToReceiver::Root(meta) => {
                let mut tally = self.tally.lock();
                if tally.root.replace(meta.clone()).is_some() {
                    return Err(Error::Protocol("two roots"));
                }
                self.changed.notify_all();
                return Ok(());
            }
            ToReceiver::NoRemovals => {
                if self.tally.lock().end.is_some() {
                    return Err(Error::Protocol("no removals after the end of the listing"));
                }
                if self.deletions.suspend() {
                    return Err(Error::Protocol("no removals twice"));
                }
                self.manifest.add_no_removals();
                return Ok(());
            }
            ToReceiver::EndOfListing(meta) => {
                let mut tally = self.tally.lock();
                if tally.end.replace(meta.clone()).is_some() {
                    return Err(Error::Protocol("two ends of the listing"));
                }
                self.changed.notify_all();
                return Ok(());
            }
            _ => {}
        }
        // What waits here is bounded by what the sender was granted.
        if !self.window.take(cost) {
            return Err(Error::Protocol("more than the window permits"));
        }
        let lane = self.lane(&message);
        self.tally.lock().frames += 1;
        if let Some(lanes) = &*self.lanes.lock() {
            let _ = lanes[(lane % lanes.len() as u64) as usize].send(Work::Message(message, cost));
        }
        Ok(())
    }

    /// As [`Self::on_frame`], once the commit record is on its way.
    fn on_last_frame(&self, frame: Frame) -> Result<()> {
        match ToReceiver::decode(compress::unpack(frame)?)? {
            ToReceiver::Goodbye(goodbye) => {
                self.tally.lock().goodbye = Some(goodbye);
                self.changed.notify_all();
                Ok(())
            }
            // Streams have no order among each other: it may have waited before.
            ToReceiver::Ping | ToReceiver::Credit(_) | ToReceiver::Blocked => Ok(()),
            ToReceiver::Abort(code, why) => Err(Error::Aborted(code, why)),
            _ => Err(Error::Protocol("message behind the commit")),
        }
    }

    /// Which worker takes a message: what must stay in order goes to one worker.
    fn lane(&self, message: &ToReceiver) -> u64 {
        match message {
            ToReceiver::Listing(listing) => listing.directory.0,
            ToReceiver::Data(id, offset, _) => id.0.wrapping_add(offset >> RANGE_LOG2),
            ToReceiver::Patch(id, ..)
            | ToReceiver::Hole(id, ..)
            | ToReceiver::Rebuild(id, ..)
            | ToReceiver::Copy(id, ..)
            | ToReceiver::EndOfFile(id, ..)
            | ToReceiver::LeafRequest(id, _)
            | ToReceiver::BlockRequest(id, ..) => id.0,
            _ => self.next_lane.fetch_add(1, Relaxed),
        }
    }
}
