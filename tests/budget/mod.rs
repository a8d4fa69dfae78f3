//! The regression gate: what a run costs, in units that do not wobble.
//!
//! Bytes and round trips on the wire, system calls for each file, memory for each entry, instructions of the
//! hot loops. Never seconds: those depend on the machine and on who else uses it. Each limit is a
//! named constant a little above what was measured when it was set. Where a run does better, lower the limit; where
//! a change has to cost more, raise it in that change, and say there what is bought for it.
//!
//! What the whole command takes against rsync + stunnel is measured by `benches/versus`.

mod attributes;
mod calls;
mod instructions;
mod memory;
mod wire;
