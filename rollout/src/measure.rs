//! Latencies of both modes: recorded at the border, merged on reading, shown side by side.

mod hgrm;
mod hlog;
mod observe;
mod recorder;
mod table;

pub use hgrm::write_hgrm;
pub use hlog::{Hlog, HlogError};
pub use observe::{Collector, Observed, Observer, OutcomeWord};
pub use recorder::{Arm, Interval, KINDS, Recorder};
pub use table::{Beside, Row, Summary, Table};
