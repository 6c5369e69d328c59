//! Paillier's cryptosystem (Eurocrypt 1999) with generator 1 + n, many rows at a time.
//!
//! Plaintexts are rows of L limbs, ciphertexts rows of 2L limbs, L = bits/64 of the modulus n.

mod public;
mod rerandomiser;
mod secret;
mod sum;

use rayon::prelude::*;

pub use public::PublicKey;
pub use rerandomiser::Rerandomiser;
pub use secret::SecretKey;
pub use sum::GroupSum;

use crate::bigint::below;
use crate::error::{Result, refuse};

/// Rows to a unit of parallel work.
const BLOCK: usize = 16;

/// Sizes of n that are accepted: multiples of 128 bits in this range.
const BITS: std::ops::RangeInclusive<usize> = 1024..=4096;

/// Generic attacks on a short exponent cost the root of its range: 224 bits would do for the 112
/// of the smallest modulus. Twice that leaves a margin.
const MIN_EXPONENT_BITS: usize = 448;

fn check_size(bits: usize) -> Result<()> {
    if !BITS.contains(&bits) || !bits.is_multiple_of(128) {
        refuse!("a modulus has 1024 to 4096 bits, a multiple of 128, not {bits}");
    }
    Ok(())
}

/// The length of random exponents: 0 stands for the longest.
fn exponent_length(bits: usize, longest: usize) -> Result<usize> {
    match bits {
        0 => Ok(longest),
        bits if (MIN_EXPONENT_BITS..=longest).contains(&bits) => Ok(bits),
        bits => refuse!(
            "exponents have 0 (for the default) or {MIN_EXPONENT_BITS} to {longest} bits, not {bits}"
        ),
    }
}

/// Refuses the first row that is not below the bound.
fn check_below(what: &str, rows: &[u64], bound: &[u64]) -> Result<()> {
    match first_not_below(rows, bound) {
        Some(row) => refuse!("{what} {row} is too large for the key"),
        None => Ok(()),
    }
}

fn first_not_below(rows: &[u64], bound: &[u64]) -> Option<usize> {
    rows.par_chunks_exact(bound.len()).position_first(|row| !below(row, bound))
}
