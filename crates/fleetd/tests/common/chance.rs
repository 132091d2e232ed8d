//! Chance from a seed: the same numbers for the same seed for ever, since seeds are written down.
#![allow(dead_code, reason = "each test uses its part")]

use std::time::Duration;

/// A seed's stream of numbers (SplitMix64).
#[derive(Clone)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    /// A stream of its own for each purpose.
    pub(crate) fn of(seed: u64, purpose: &str) -> Chance {
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Chance(purpose.bytes().fold(seed, mix))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to and without `end`; 0 also where there is nothing to choose from.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.next() % end).unwrap_or(0)
    }

    /// A time between the two, in milliseconds.
    pub(crate) fn between(&mut self, least_ms: usize, most_ms: usize) -> Duration {
        let ms = least_ms + self.below(most_ms - least_ms + 1);
        Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX))
    }

    /// One of these.
    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// So many bytes or fewer.
    pub(crate) fn bytes(&mut self, at_most: usize) -> Vec<u8> {
        let n = self.below(at_most + 1);
        (0..n).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}
