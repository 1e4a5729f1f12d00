//! Latencies of both modes: recorded at the border, merged on reading, shown side by side.

mod hgrm;
mod hlog;
mod latencies;
mod messages;
mod observe;
mod phases;
mod recorder;
mod shards;
mod switch_times;
mod table;
mod trial;

pub use hgrm::write_hgrm;
pub use hlog::{Hlog, HlogError, INTERVALS_MAX, LOG_BYTES_MAX, LogReadError, LoggedInterval, read_log};
pub use latencies::{HISTOGRAM_TEXT_BYTES_MAX, HistogramError, Latencies, MEASUREMENTS_MAX};
pub(crate) use messages::scattered;
pub use messages::{MessagePhase, MessageRecorder, MessageTimes, SAMPLED, is_sampled};
pub use observe::{Collector, Observed, Observer, OutcomeWord};
pub use phases::{PhaseRecorder, PhaseTimes, SandboxPhase, Start};
pub use recorder::{Arm, Interval, KINDS, Recorder};
pub(crate) use shards::{nanoseconds, thread_number};
pub(crate) use switch_times::SwitchRecorder;
pub use switch_times::{SwitchDirection, SwitchPhase, SwitchTimes};
pub use table::{Beside, Row, Summary, Table};
pub use trial::{Trial, TrialInterval};
