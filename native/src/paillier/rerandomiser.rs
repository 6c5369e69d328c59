//! Sums that go back to the key's owner, each times r^n, r uniform, at a tenth of what that costs.
//!
//! A random n-th power is made as a product of powers of a few hundred that were drawn once:
//! g_1^e_1 ... g_k^e_k, each e_i a random byte. The owner may know the g_i; the product is uniform
//! all the same, whatever the key (leftover hash lemma; Impagliazzo, Levin, Luby, STOC 1989):
//!
//! Let H be the n-th powers modulo n^2, a group of fewer than n elements. If no prime below 2^20
//! divides n, then n has at most m = bits/20 prime factors, and H at most as many cyclic parts: at
//! most c^m of its elements have an order that divides c. For two draws of bytes that differ by d,
//! with greatest common divisor c, the product of the g_i^d_i is uniform on the c-th powers of H,
//! hence 1 with probability at most c^m/|H|. So the distance of (g, product) from (g, uniform) is at
//! most
//!
//!   1/2 sqrt( |H| / 256^k  +  sum over c > 1 of P(c divides all d_i) c^m )
//!
//! The first term is below 2^(bits - 8k), the second about that of c = 2, which is 2^(m - k). With
//! k = bits/8 + 32 both are below 2^-185 for 2048 bits, and the distance is below 2^-92 a row.
//!
//! All rows of a table share the g_i. That adds no more than their number: given the g_i, their
//! exponents are independent, so N rows are within N times that distance of N uniform n-th powers.
//! What the owner makes of many rows together, logarithms and lattices included (hidden subset
//! products; Nguyen, Stern, CRYPTO 1999), it could make of n-th powers that nobody combined.

use std::sync::{Arc, OnceLock};

use rayon::prelude::*;

use crate::bigint::fixed_base::FixedBase;
use crate::error::{Result, refuse};
use crate::paillier::PublicKey;

/// No prime below divides n.
const SMOOTH: u32 = 1 << 20;

pub struct Rerandomiser {
    key: Arc<PublicKey>,
    /// The powers of the g_i; drawn when there are rows enough to make up for it.
    masks: OnceLock<FixedBase>,
}

impl Rerandomiser {
    /// Refuses a modulus with a small factor.
    pub fn new(key: Arc<PublicKey>) -> Result<Self> {
        if let Some(factor) = small_factor(key.modulus()) {
            refuse!("the modulus is divisible by {factor}");
        }
        Ok(Self { key, masks: OnceLock::new() })
    }

    fn bases(&self) -> usize {
        self.key.bits() / 8 + 32
    }

    /// Row i: a ciphertext of the sum of those at the places i of `choices`, `width` of them.
    pub fn sums(&self, ciphertexts: &[u64], choices: &[i64], width: usize) -> Result<Vec<u64>> {
        let len = 2 * self.key.modulus().len();
        self.key.check_ciphertexts(ciphertexts)?;
        let count = (ciphertexts.len() / len) as i64;
        if width == 0 {
            refuse!("there must be something to add");
        }
        if let Some(at) = choices.iter().position(|choice| !(0..count).contains(choice)) {
            refuse!("row {} names no ciphertext", at / width);
        }
        let kernels = self.key.kernels();
        let terms = kernels.terms(ciphertexts);
        let rows = choices.len() / width;
        // Not inside the pool: see `PublicKey::encrypt`.
        let masks = match rows > self.bases() {
            true => Some(self.masks.get_or_init(|| kernels.draw_masks(self.bases()))),
            false => self.masks.get(),
        };
        let mut out = vec![0; rows * len];
        choices
            .par_chunks(kernels.width() * width)
            .zip(out.par_chunks_mut(kernels.width() * len))
            .for_each(|(choices, out)| kernels.sum_terms(&terms, choices, width, masks, out));
        Ok(out)
    }
}

/// The smallest prime below `SMOOTH` that divides the odd number.
fn small_factor(limbs: &[u64]) -> Option<u32> {
    let mut composite = vec![false; SMOOTH as usize];
    let mut primes = vec![];
    for candidate in (3..SMOOTH).step_by(2) {
        if composite[candidate as usize] {
            continue;
        }
        primes.push(candidate);
        let multiples = (candidate as usize).saturating_mul(candidate as usize);
        for multiple in (multiples..SMOOTH as usize).step_by(2 * candidate as usize) {
            composite[multiple] = true;
        }
    }
    let remainder = |prime: u64| {
        limbs.iter().rev().fold(0, |rest, limb| {
            let rest = ((rest << 32) | (limb >> 32)) % prime;
            ((rest << 32) | (limb & u64::from(u32::MAX))) % prime
        })
    };
    primes.into_par_iter().find_first(|prime| remainder(u64::from(*prime)) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_smallest_factor() {
        assert_eq!(small_factor(&[15]), Some(3));
        assert_eq!(small_factor(&[1_048_573]), Some(1_048_573)); // the largest prime below 2^20
        assert_eq!(small_factor(&[1_048_583]), None); // the smallest above
        // 7 (2^64 + 3): 2^64 + 3 is not divisible by 3 or 5, as 2^64 = 1 modulo both.
        assert_eq!(small_factor(&[21, 7]), Some(7));
    }
}
