//! Uniform permutations from the operating system's generator.

use std::collections::TryReserveError;

use zeroize::Zeroizing;

use crate::error::Result;
use crate::random;

/// A permutation of 0..n, every one equally likely (Fisher and Yates).
pub fn random(n: usize) -> Result<Vec<u64>, TryReserveError> {
    let mut permutation = Vec::new();
    permutation.try_reserve_exact(n)?;
    permutation.extend(0..n as u64);
    let mut words = Words::new();
    for i in (1..n).rev() {
        permutation.swap(i, words.below(i as u64 + 1) as usize);
    }
    Ok(permutation)
}

/// Random words, asked of the system many at a time.
struct Words {
    buffer: Zeroizing<Vec<u64>>,
    used: usize,
}

impl Words {
    fn new() -> Self {
        let buffer = Zeroizing::new(vec![0; 4096]);
        Self { used: buffer.len(), buffer }
    }

    fn next(&mut self) -> u64 {
        if self.used == self.buffer.len() {
            random::fill_limbs(&mut self.buffer);
            self.used = 0;
        }
        self.used += 1;
        self.buffer[self.used - 1]
    }

    /// Uniform below `bound`: the high half of word * bound, unless the low half shows that the
    /// word belongs to the uneven rest (Lemire, 2019).
    fn below(&mut self, bound: u64) -> u64 {
        let rest = bound.wrapping_neg() % bound;
        loop {
            let product = u128::from(self.next()) * u128::from(bound);
            if product as u64 >= rest {
                return (product >> 64) as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_permutation_of_four_is_as_frequent() {
        let mut counts = std::collections::HashMap::new();
        for _ in 0..24_000 {
            *counts.entry(random(4).unwrap()).or_insert(0i64) += 1;
        }
        assert_eq!(counts.len(), 24);
        // Chi-squared with 23 degrees of freedom passes 70 once in a million runs.
        assert!(counts.values().map(|count| (count - 1000).pow(2)).sum::<i64>() < 70 * 1000);
    }

    #[test]
    fn refuses_what_memory_cannot_hold() {
        assert!(random(usize::MAX / 16).is_err());
    }
}
