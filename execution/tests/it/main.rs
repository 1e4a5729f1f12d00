//! Scenarios on a scripted backend: messages, calls, cycles, lifecycle, checks, the state root.

mod calls;
mod certification;
mod check;
mod cycles;
mod failures;
mod lifecycle;
mod queries;
mod root;
mod scripted;
mod slices;
mod tasks;
