//! Which mode a node runs its canisters in, and what that costs.
//!
//! A [`Policy`] file says which mode applies where; a [`LivePolicy`] holds the one in force while the
//! file changes; the [`Selector`] is a [`execution::Backend`] that runs each execution in the mode in
//! force at its start, compares both modes in shadow, and measures all of them in a [`Recorder`].

#![forbid(unsafe_code)]

mod diagnostic;
mod live;
mod measure;
mod mode;
mod policy;
mod selector;

pub use diagnostic::{Diagnostic, Position};
pub use live::{
    Checksum, GENERATIONS_KEPT, InForce, LiveOptions, LivePolicy, LoadError, OnReload, Receipt, Trigger,
};
pub use measure::{
    Arm, Beside, Collector, Hlog, HlogError, Interval, KINDS, Observed, Observer, OutcomeWord, Recorder, Row,
    Summary, Table,
};
pub use mode::{Floor, Mode};
pub use policy::{
    Bounds, Change, Conditions, Decision, ENTRIES_MAX, FILE_BYTES_MAX, Layer, LayerSaid, Location, Notice,
    Policy, Reason, Resolution, Scope, Standing, json_schema, parse_time,
};
pub use selector::{
    Comparison, Divergence, DivergenceRecord, Field, Sandbox, Selector, ShadowCounts, ShadowOptions, Switch,
    compare, shown,
};
