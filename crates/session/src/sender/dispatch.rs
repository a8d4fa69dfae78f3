//! Where each frame of the receiver goes. Everything here runs in the task of a stream and never
//! blocks.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use crossbeam_channel::unbounded;
use delta::Layout;
use wire::{EntryId, FileKind, Frame, Plan, Reply, ToReceiver, ToSender, Want, frame::HEADER_LEN};

use super::{
    entry::FileRef,
    files::Job,
    state::{Answer, Delta, DeltaJob, Round, Shared},
};
use crate::{
    Error, MAX_FILE, Result,
    control::{Stopped, frame_cost},
};

/// Leaf and block hashes that one worker may have asked for and not have taken in yet, in bytes.
const MAX_ANSWERS: u64 = 32 << 20;

impl Shared {
    /// Takes in one frame of the receiver. Never blocks: it runs in the task of the stream.
    pub(super) fn on_frame(self: &Arc<Self>, frame: Frame) -> Result<()> {
        if frame.compressed {
            return Err(Error::Protocol("compressed frame from the receiver"));
        }
        // The session ended while this stream was on its way.
        if Reply::is_refusal(&frame)
            && let Reply::Refused(refusal, why) = Reply::decode(frame.clone())?
        {
            return Err(Error::Refused(refusal, why));
        }
        let cost = frame_cost(HEADER_LEN + frame.body.len());
        match ToSender::decode(frame)? {
            ToSender::Plan(plan) => self.on_plan(plan)?,
            ToSender::Wanted(wants) => {
                self.round(Round::Later);
                for (id, want) in wants {
                    let file = self.later.lock().remove(&id);
                    let file = file.ok_or(Error::Protocol("want for an unknown entry"))?;
                    self.want(file, want)?;
                }
            }
            ToSender::Signature(id, first, hashes, last) => {
                self.charge(cost)?;
                if !self.answer(id, Answer::Signature(first, hashes, last, cost)) {
                    // From a task, so without waiting: a worker tells the receiver.
                    let _ = self.queue(Job::Return(cost));
                }
            }
            ToSender::Leaves(id, segment, hashes) => {
                self.charge(cost)?;
                if !self.answer(id, Answer::Leaves(segment, hashes, cost)) {
                    self.discharge(cost);
                }
            }
            ToSender::Blocks(id, blocks, last) => {
                self.charge(cost)?;
                if !self.answer(id, Answer::Blocks(blocks, last, cost)) {
                    self.discharge(cost);
                }
            }
            ToSender::Problem(problem) => self.receiver_problem(&problem),
            ToSender::Action(line) => self.context.monitor.action(&line),
            ToSender::Credit(bytes) => self.granted(bytes),
            ToSender::Ping => {}
            ToSender::Abort(code, why) => return Err(Error::Aborted(code, why)),
            ToSender::Commit(commit) => {
                let unsettled = !self.chunks.lock().is_empty() || !self.deltas.lock().is_empty();
                if unsettled || !self.listed.load(Relaxed) {
                    return Err(Error::Protocol("commit before everything was settled"));
                }
                if self.commit.lock().replace(commit).is_some() {
                    return Err(Error::Protocol("two commit records"));
                }
                self.commit_came.notify_all();
            }
        }
        Ok(())
    }

    fn on_plan(self: &Arc<Self>, plan: Plan) -> Result<()> {
        let chunk = self.chunks.lock().remove(&plan.first);
        let chunk = chunk.ok_or(Error::Protocol("plan for an unknown listing"))?;
        let mut asked = vec![false; chunk.items.len()];
        let mut check = |index: u32, file: bool| {
            let item = chunk.items.get(index as usize);
            let kind = if file { FileKind::File } else { FileKind::Directory };
            let right = item.is_some_and(|item| item.entry.meta.kind == kind);
            if !right || std::mem::replace(&mut asked[index as usize], true) {
                return Err(Error::Protocol("plan with a wrong index"));
            }
            Ok(index as usize)
        };
        for &index in &plan.new_directories {
            let id = chunk.id(check(index, false)?);
            if let Some(new) = self.directories.lock().get_mut(&id) {
                *new = true;
            }
        }
        for &index in &plan.later {
            self.remember_file(chunk.file(check(index, true)?));
        }
        let mut whole = Vec::new();
        for &(index, want) in &plan.wants {
            let index = check(index, true)?;
            self.round(Round::Content);
            match want {
                Want::Whole => whole.push(index),
                Want::Delta { .. } => self.want(Arc::new(chunk.file(index)), want)?,
            }
        }
        // Directories stay in the settling below: being new is no request for content.
        for &index in &plan.new_directories {
            asked[index as usize] = false;
        }
        let mut attributes = Vec::new();
        for &index in &plan.attributes {
            let index = index as usize;
            let hashed = chunk.items.get(index).is_some_and(|item| item.xattr_hash.is_some());
            // The content of a file brings its attributes with it.
            if !hashed || asked[index] || attributes.contains(&index) {
                return Err(Error::Protocol("plan with a wrong index"));
            }
            attributes.push(index);
            self.round(Round::Content);
        }
        let _ = self.queue(Job::Planned { chunk, asked, whole, attributes });
        Ok(())
    }

    fn want(&self, file: Arc<FileRef>, want: Want) -> Result<()> {
        match want {
            // Where the queue is closed the session is over, and the pump hears of it soon.
            Want::Whole => {
                let _ = self.queue(Job::Whole(file));
            }
            Want::Delta { basis_len, segment_log2 } => {
                // One length of file has one layout; a peer that named longer segments would have
                // this end hold longer pieces.
                let layout = Layout::for_len(basis_len);
                if basis_len > MAX_FILE || layout.segment_log2() != segment_log2 {
                    return Err(Error::Protocol("basis that no file here is compared with"));
                }
                let (inbox, outlet) = unbounded();
                let job = DeltaJob { file: Arc::clone(&file), basis_len, layout, answers: outlet };
                self.deltas.lock().insert(file.id, Delta { inbox, job: Some(job) });
            }
        }
        Ok(())
    }

    /// Counts an answer that is to be kept until its file comes to it. What the receiver may send
    /// without being asked is bounded by the window, and what was asked for by the requests.
    fn charge(&self, cost: u64) -> Result<()> {
        let unread = self.unread.fetch_add(cost, Relaxed) + cost;
        if unread > self.agreed.hello.window + MAX_ANSWERS * self.context.workers as u64 {
            return Err(Error::Protocol("more than the window permits"));
        }
        Ok(())
    }

    /// Passes an answer to its file; false where that is no longer compared. Comparison begins with
    /// the first signature, in the order in which the receiver computes them: so the signatures that
    /// fill the window always belong to a file that is being worked on.
    fn answer(&self, id: EntryId, answer: Answer) -> bool {
        let mut deltas = self.deltas.lock();
        let Some(delta) = deltas.get_mut(&id) else { return false };
        if let Some(job) = delta.job.take()
            && let Some(queue) = &*self.delta_queue.lock()
        {
            let _ = queue.send(job);
        }
        delta.inbox.send(answer).is_ok()
    }

    /// An answer was taken in, or dropped.
    pub(super) fn discharge(&self, cost: u64) {
        self.unread.fetch_sub(cost, Relaxed);
    }

    /// Grants the receiver as much as a signature frame took. Must not be called from a task.
    pub(super) fn grant_signatures(&self, cost: u64) -> Result<(), Stopped> {
        self.discharge(cost);
        self.outbox()?.send(ToReceiver::Credit(cost).encode())
    }
}
