//! Scenarios on a scripted backend: messages, calls, cycles, lifecycle, checks, the state root.

mod books;
mod calls;
mod certification;
mod check;
mod cycles;
mod failures;
mod fairness;
mod history;
mod lifecycle;
mod queries;
mod root;
mod scripted;
mod slices;
mod tasks;
