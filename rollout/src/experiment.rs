//! How two arms are made comparable: the design of an experiment, and the pairs of blocks that it gives.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::measure::Latencies;

/// Most blocks of one experiment: a day of minutes.
pub const BLOCKS_MAX: usize = 1_440;
/// Shortest and longest block.
pub const BLOCK_LENGTHS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(86_400)];
/// What doesn't count after a change of mode in a switchback.
pub const SETTLING: Duration = Duration::from_secs(5);
/// Most distinct latencies of all blocks together; 16 bytes each.
pub(crate) const COUNTS_MAX: usize = 1 << 24;

/// How the arms share the traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Design {
    /// Both arms run at the same time on the same work: nodes of one subnet, or both sides of shadow.
    NodeSplit,
    /// One node changes between the arms: a block of one is compared with the neighbouring block of the
    /// other.
    Switchback,
    /// Control against control, block against neighbouring block: shows whether the design finds what isn't
    /// there.
    Aa,
    /// The arms hold different canisters: a way to expose few of them, and no comparison.
    Percent,
}

impl Design {
    /// All designs.
    pub const ALL: [Self; 4] = [Self::NodeSplit, Self::Switchback, Self::Aa, Self::Percent];

    /// The word in commands, policies and records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NodeSplit => "node-split",
            Self::Switchback => "switchback",
            Self::Aa => "aa",
            Self::Percent => "percent",
        }
    }

    /// The design that `word` names.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|design| design.as_str() == word)
    }
}

impl fmt::Display for Design {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Which of the two things that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What is known.
    Control,
    /// What is on trial.
    Candidate,
}

/// Why measurements can't be put into blocks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// Blocks are too short or too long.
    #[error("blocks of {0:?}; they may have 1s to 24h, and in a switchback more than 5s")]
    Length(Duration),
    /// More blocks than are compared.
    #[error("more than {BLOCKS_MAX} blocks; take longer ones or fewer intervals")]
    TooMany,
    /// More distinct latencies than are held.
    #[error("more than {COUNTS_MAX} distinct latencies in all blocks; take longer blocks or fewer intervals")]
    TooDetailed,
    /// More measurements than one histogram counts.
    #[error(transparent)]
    Histogram(#[from] crate::measure::HistogramError),
}

/// What both sides measured in one stretch of time.
#[derive(Clone, Debug, Default)]
struct Window {
    /// Of intervals that began in the window's first [`SETTLING`]; then of the others. Control, candidate.
    settling: [Latencies; 2],
    settled: [Latencies; 2],
}

impl Window {
    fn whole(&self, side: usize) -> Result<Latencies, BlockError> {
        let mut whole = self.settled[side].clone();
        whole.add(&self.settling[side])?;
        Ok(whole)
    }

    /// The side that alone ran in it.
    fn only(&self) -> Option<usize> {
        let ran = |side: usize| self.settling[side].measurements() + self.settled[side].measurements() > 0;
        match (ran(0), ran(1)) {
            (true, false) => Some(0),
            (false, true) => Some(1),
            _ => None,
        }
    }
}

/// Stretches of equal length since 1970, with what was measured in each.
#[derive(Clone, Debug)]
pub struct Windows {
    design: Design,
    length: Duration,
    windows: BTreeMap<u128, Window>,
    /// Intervals longer than a window.
    too_long: usize,
    distinct: usize,
}

/// Two blocks that are compared with each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// What the control measured; for [`Design::Aa`] one half of it.
    pub control: Latencies,
    /// What the candidate measured; for [`Design::Aa`] the other half.
    pub candidate: Latencies,
}

/// The blocks of an experiment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// Where they come from.
    pub design: Design,
    /// How long each is.
    pub length: Duration,
    /// In the order of time, at most [`BLOCKS_MAX`].
    pub pairs: Vec<Block>,
    /// Windows that have no partner, or in which a switchback changed its mode; intervals longer than a block.
    pub left_out: usize,
}

impl Windows {
    /// No measurements yet, in windows of `length`.
    ///
    /// # Errors
    /// `length` is outside [`BLOCK_LENGTHS`], or for a switchback not longer than [`SETTLING`].
    pub fn new(design: Design, length: Duration) -> Result<Self, BlockError> {
        let [shortest, longest] = BLOCK_LENGTHS;
        let unsettled = design == Design::Switchback && length <= SETTLING;
        if length < shortest || length > longest || unsettled {
            return Err(BlockError::Length(length));
        }
        Ok(Self { design, length, windows: BTreeMap::new(), too_long: 0, distinct: 0 })
    }

    /// Adds an interval to the window in which it began. One that is longer than a window is left out.
    ///
    /// # Errors
    /// There is more than can be held.
    pub fn add(
        &mut self,
        side: Side,
        start: Duration,
        duration: Duration,
        latencies: &Latencies,
    ) -> Result<(), BlockError> {
        if duration > self.length {
            self.too_long += 1;
            return Ok(());
        }
        if latencies.measurements() == 0 {
            return Ok(());
        }
        let (index, offset) =
            (start.as_nanos() / self.length.as_nanos(), start.as_nanos() % self.length.as_nanos());
        // Both kinds of pairing take at least one window a block, and at most two.
        if self.windows.len() >= 2 * BLOCKS_MAX && !self.windows.contains_key(&index) {
            return Err(BlockError::TooMany);
        }
        let window = self.windows.entry(index).or_default();
        let part = if offset < SETTLING.as_nanos() { &mut window.settling } else { &mut window.settled };
        let part = match side {
            Side::Control => &mut part[0],
            Side::Candidate => &mut part[1],
        };
        let before = part.counts().len();
        part.add(latencies)?;
        self.distinct += part.counts().len() - before;
        if self.distinct > COUNTS_MAX { Err(BlockError::TooDetailed) } else { Ok(()) }
    }

    /// The pairs that the design makes of them. `seed` decides the halves of [`Design::Aa`] and nothing else.
    ///
    /// # Errors
    /// There are more than [`BLOCKS_MAX`].
    pub fn pair(&self, seed: u64) -> Result<Blocks, BlockError> {
        let pairs = match self.design {
            Design::NodeSplit | Design::Percent => self.of_equal_time()?,
            Design::Switchback => self.of_neighbours()?,
            Design::Aa => self.of_control(seed)?,
        };
        if pairs.len() > BLOCKS_MAX {
            return Err(BlockError::TooMany);
        }
        let windows_each = match self.design {
            Design::NodeSplit | Design::Percent => 1,
            Design::Switchback | Design::Aa => 2,
        };
        let left_out = self.windows.len() - pairs.len() * windows_each + self.too_long;
        Ok(Blocks { design: self.design, length: self.length, pairs, left_out })
    }

    fn of_equal_time(&self) -> Result<Vec<Block>, BlockError> {
        let mut pairs = Vec::new();
        for window in self.windows.values() {
            let block = Block { control: window.whole(0)?, candidate: window.whole(1)? };
            if block.control.measurements() > 0 && block.candidate.measurements() > 0 {
                pairs.push(block);
            }
        }
        Ok(pairs)
    }

    /// Each window with the next one of the other side, unless one of its own side comes first. The first
    /// seconds count only after a window of the same side: before that was a change.
    fn of_neighbours(&self) -> Result<Vec<Block>, BlockError> {
        let mut pairs = Vec::new();
        let mut waiting: Option<(usize, Latencies)> = None;
        let mut before: Option<(u128, usize)> = None;
        for (&index, window) in &self.windows {
            let Some(side) = window.only() else {
                (waiting, before) = (None, None);
                continue;
            };
            let goes_on = before.is_some_and(|(last, of)| last + 1 == index && of == side);
            before = Some((index, side));
            let measured = if goes_on { window.whole(side)? } else { window.settled[side].clone() };
            if measured.measurements() == 0 {
                continue;
            }
            waiting = match waiting.take() {
                Some((0, control)) if side == 1 => {
                    pairs.push(Block { control, candidate: measured });
                    None
                }
                Some((1, candidate)) if side == 0 => {
                    pairs.push(Block { control: measured, candidate });
                    None
                }
                _ => Some((side, measured)),
            };
        }
        Ok(pairs)
    }

    /// Two windows of the control each, one of them by lot taken for the candidate's.
    fn of_control(&self, seed: u64) -> Result<Vec<Block>, BlockError> {
        let mut lots = crate::guards::generator(seed);
        let mut measured = Vec::new();
        for window in self.windows.values() {
            let whole = window.whole(0)?;
            if whole.measurements() > 0 {
                measured.push(whole);
            }
        }
        let (pairs, _odd_one) = measured.as_chunks::<2>();
        Ok(pairs
            .iter()
            .map(|[first, second]| {
                let [control, candidate] =
                    if crate::guards::below(&mut lots, 2) == 0 { [first, second] } else { [second, first] };
                Block { control: control.clone(), candidate: candidate.clone() }
            })
            .collect())
    }
}
