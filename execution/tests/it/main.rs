//! Scenarios on a scripted backend: messages, calls, cycles, lifecycle, checks, the state root.

mod batches;
mod books;
mod calls;
mod certification;
mod check;
mod chunks;
mod cycles;
mod failures;
mod fairness;
mod history;
mod lies;
mod lifecycle;
mod message_memory;
mod observed;
mod overload;
mod pending;
mod queries;
mod rates;
mod root;
mod scripted;
mod settings;
mod slices;
mod snapshots;
mod tasks;
mod visibility;
