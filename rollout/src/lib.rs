//! Which mode a node runs its canisters in, and what that costs.
//!
//! A [`Policy`] file says which mode applies where; a [`LivePolicy`] holds the one in force while the
//! file changes; the [`Selector`] is a [`execution::Backend`] that runs each execution in the mode in
//! force at its start, compares both modes in shadow, and measures all of them in a [`Recorder`].

#![forbid(unsafe_code)]

pub mod audit;
mod diagnostic;
mod directory;
mod experiment;
mod guards;
mod head;
mod live;
pub mod machine;
mod measure;
mod mode;
mod policy;
mod selector;
pub mod store;
mod verdict_record;

pub use diagnostic::{Diagnostic, Position};
pub use experiment::{BLOCK_LENGTHS, BLOCKS_MAX, Block, BlockError, Blocks, Design, SETTLING, Side, Windows};
pub use guards::{
    ALPHA, BLOCKS_MIN, CONFIDENCE, CrashFuse, CrashFuseError, Crashed, Divergences, EVENTS_MAX, Estimate,
    GUARDS_MAX, Judgement, LOOKS_MAX, LatencyRatio, Limit, Looks, Quantile, RESAMPLES, Rate, RateRatio,
    TAIL_EVENTS, Verdict, VerdictReason, seed,
};
pub use live::{
    Checksum, GENERATIONS_KEPT, InForce, IsThere, LiveOptions, LivePolicy, LoadError, OnReload, Receipt,
    Trigger, UnderWay,
};
pub use measure::{
    Arm, Beside, Collector, HISTOGRAM_TEXT_BYTES_MAX, HistogramError, Hlog, HlogError, INTERVALS_MAX,
    Interval, KINDS, LOG_BYTES_MAX, Latencies, LogReadError, LoggedInterval, MEASUREMENTS_MAX, MessagePhase,
    MessageRecorder, MessageTimes, Observed, Observer, OutcomeWord, PhaseRecorder, PhaseTimes, Recorder, Row,
    SAMPLED, SandboxPhase, Start, Summary, SwitchDirection, SwitchPhase, SwitchTimes, Table, Trial,
    TrialInterval, is_sampled, read_log, write_hgrm,
};
pub use mode::{Floor, Mode};
pub use policy::{
    Bounds, COMPARISONS_MIN, Change, Conditions, Decision, ENTRIES_MAX, ExposedStep, Exposure, Exposures,
    FILE_BYTES_MAX, GuardRule, GuardTest, Layer, LayerSaid, Location, Measure, Notice, Policy, Reason,
    Resolution, RolloutRule, Schedule, Scope, ShadowRule, Standing, StepRule, finished, is_there,
    json_schema, parse_time,
};
pub use selector::{
    Comparison, Divergence, DivergenceClass, DivergenceRecord, Field, PREWARMED_MAX, Reproducer, Sandbox,
    Selector, ShadowCounts, ShadowOptions, Switch, compare, run_again, shown,
};
pub use verdict_record::{
    Guard, Look, NAME_BYTES_MAX, RECORD_BYTES_MAX, RecordDifference, RecordError, Series, Source, Test,
    VerdictRecord,
};
