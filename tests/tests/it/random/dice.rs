//! Random numbers that follow from a few numbers alone.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// A row of random numbers.
pub(super) struct Dice(StdRng);

impl Dice {
    /// The row that belongs to `numbers`: equal ones give equal rows.
    pub(super) fn of(numbers: &[u64]) -> Self {
        // FNV-1a over the bytes; the generator spreads what is near.
        let bytes = numbers.iter().flat_map(|number| number.to_le_bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(StdRng::seed_from_u64(hash))
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0.random_range(0..end)
    }

    /// True once in `count` times.
    pub(super) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// Any number.
    pub(super) fn number(&mut self) -> u64 {
        self.0.random()
    }

    /// One of `choices`.
    pub(super) fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }

    /// At most `max` bytes.
    pub(super) fn bytes(&mut self, max: u64) -> Vec<u8> {
        (0..self.below(max + 1)).map(|_| self.number() as u8).collect()
    }
}
