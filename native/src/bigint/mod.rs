//! Natural numbers as little-endian slices of 64-bit limbs.
//!
//! What runs per row is here, in [`montgomery`] and in [`batch`]; set-up arithmetic is crypto-bigint's.
//! All of it is constant time in the values (but for [`fixed_base`], which says so), and owned
//! numbers are wiped.

#[cfg(target_arch = "x86_64")]
mod adx;
pub mod batch;
pub mod fixed_base;
pub mod montgomery;
mod portable;
pub mod square;

/// Eight numbers at a time; only where `cpu::has_ifma`.
#[cfg(any(target_arch = "x86_64", feature = "emulated-lanes"))]
pub use crate::ifma::modulus::Modulus as Lanes;
#[cfg(not(any(target_arch = "x86_64", feature = "emulated-lanes")))]
pub use montgomery::Modulus as Lanes;

use crypto_bigint::{BoxedUint, ConcatenatingMul, Gcd};
use zeroize::Zeroizing;

use crate::random;

pub type Limbs = Zeroizing<Vec<u64>>;

pub fn zeros(len: usize) -> Limbs {
    Zeroizing::new(vec![0; len])
}

pub fn from_bytes(bytes: &[u8]) -> Limbs {
    let limb = |chunk: &[u8]| chunk.iter().rev().fold(0, |limb, byte| limb << 8 | u64::from(*byte));
    Zeroizing::new(bytes.chunks(8).map(limb).collect())
}

pub fn to_bytes(limbs: &[u64]) -> Zeroizing<Vec<u8>> {
    // Of full size from the start: a vector that grows leaves copies behind.
    let mut bytes = Zeroizing::new(vec![0; 8 * limbs.len()]);
    for (chunk, limb) in bytes.as_chunks_mut().0.iter_mut().zip(limbs) {
        *chunk = limb.to_le_bytes();
    }
    bytes
}

/// The position of the highest bit, plus one.
pub fn bit_length(limbs: &[u64]) -> usize {
    match limbs.iter().rposition(|limb| *limb != 0) {
        Some(top) => 64 * (top + 1) - limbs[top].leading_zeros() as usize,
        None => 0,
    }
}

/// a - b for numbers of one length, and whether it went below zero.
pub fn subtract(a: &mut [u64], b: &[u64]) -> bool {
    let mut borrow = false;
    for (x, y) in a.iter_mut().zip(b) {
        (*x, borrow) = x.borrowing_sub(*y, borrow);
    }
    borrow
}

/// a < b for numbers of one length.
pub fn below(a: &[u64], b: &[u64]) -> bool {
    a.iter().zip(b).fold(false, |borrow, (x, y)| x.borrowing_sub(*y, borrow).1)
}

/// out = a * b + addend modulo 2^(64 * out.len()), where the addend is no longer than `out`.
pub fn multiply_add_to(a: &[u64], b: &[u64], addend: &[u64], out: &mut [u64]) {
    out.fill(0);
    out[..addend.len()].copy_from_slice(addend);
    for (i, x) in a.iter().enumerate() {
        let mut carry = 0;
        for (slot, y) in out[i..].iter_mut().zip(b) {
            (*slot, carry) = x.carrying_mul_add(*y, *slot, carry);
        }
        for slot in out.iter_mut().skip(i + b.len()) {
            let overflow;
            (*slot, overflow) = slot.overflowing_add(carry);
            carry = u64::from(overflow);
        }
    }
}

/// out = row `index` of a table, by reading all of them: which one stays secret.
pub fn choose(table: &[u64], index: usize, out: &mut [u64]) {
    out.fill(0);
    for (i, row) in table.chunks_exact(out.len()).enumerate() {
        let mask = std::hint::black_box(u64::from(i == index)).wrapping_neg();
        for (out, limb) in out.iter_mut().zip(row) {
            *out |= limb & mask;
        }
    }
}

/// Fills rows with independent uniform numbers below `bound`, whose top limb is not zero.
pub fn fill_below(bound: &[u64], rows: &mut [u64]) {
    let mask = u64::MAX >> bound[bound.len() - 1].leading_zeros();
    for row in rows.chunks_exact_mut(bound.len()) {
        loop {
            random::fill_limbs(row);
            row[bound.len() - 1] &= mask;
            if below(row, bound) {
                break;
            }
        }
    }
}

/// a + b, which must not pass the limbs of a.
pub fn add(a: &[u64], b: u64) -> Limbs {
    let mut carry = b;
    let sum = |limb: &u64| {
        let (sum, overflow) = limb.overflowing_add(carry);
        carry = u64::from(overflow);
        sum
    };
    Zeroizing::new(a.iter().map(sum).collect())
}

/// 2a, which must not pass the limbs of a.
pub fn double(a: &[u64]) -> Limbs {
    let below = std::iter::once(&0).chain(a);
    Zeroizing::new(a.iter().zip(below).map(|(limb, below)| limb << 1 | below >> 63).collect())
}

/// a/2, rounded down.
pub fn halve(a: &[u64]) -> Limbs {
    let above = a[1..].iter().chain(std::iter::once(&0));
    Zeroizing::new(a.iter().zip(above).map(|(limb, above)| limb >> 1 | above << 63).collect())
}

fn boxed(limbs: &[u64]) -> Zeroizing<BoxedUint> {
    Zeroizing::new(BoxedUint::from_words(limbs.iter().copied()))
}

fn unboxed(value: BoxedUint, len: usize) -> Limbs {
    let value = Zeroizing::new(value);
    let mut limbs = zeros(len);
    let used = len.min(value.nlimbs());
    limbs[..used].copy_from_slice(&value.as_words()[..used]);
    limbs
}

pub fn multiply(a: &[u64], b: &[u64]) -> Limbs {
    unboxed(boxed(a).concatenating_mul(&*boxed(b)), a.len() + b.len())
}

/// a modulo m, m not zero.
pub fn remainder(a: &[u64], m: &[u64]) -> Limbs {
    let divisor = Zeroizing::new(boxed(m).to_nz().expect("a modulus is not zero"));
    unboxed(boxed(a).rem(&*divisor), m.len())
}

/// The quotient and the remainder of a by m, m not zero.
pub fn divide(a: &[u64], m: &[u64]) -> (Limbs, Limbs) {
    let divisor = Zeroizing::new(boxed(m).to_nz().expect("a modulus is not zero"));
    let (quotient, rest) = boxed(a).div_rem(&*divisor);
    (unboxed(quotient, a.len()), unboxed(rest, m.len()))
}

/// The inverse of a modulo the odd m, if there is one.
pub fn inverse(a: &[u64], m: &[u64]) -> Option<Limbs> {
    let modulus = Zeroizing::new(boxed(m).to_odd().into_option()?);
    let inverse = boxed(&remainder(a, m)).invert_odd_mod(&modulus).into_option()?;
    Some(unboxed(inverse, m.len()))
}

pub fn coprime(a: &[u64], b: &[u64]) -> bool {
    boxed(a).gcd(&*boxed(b)).is_one().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_bits() {
        assert_eq!(*from_bytes(&[1, 0, 0, 0, 0, 0, 0, 0x80, 3]), [0x8000_0000_0000_0001, 3]);
        assert_eq!(to_bytes(&[1, 2])[..9], [1, 0, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!([bit_length(&[]), bit_length(&[0, 0]), bit_length(&[5, 1, 0])], [0, 0, 65]);
    }

    #[test]
    fn carries_run_through() {
        assert_eq!(*add(&[u64::MAX, u64::MAX, 1], 1), [0, 0, 2]);
        assert_eq!(*double(&[1 << 63, 3]), [0, 7]);
        assert_eq!(*halve(&[1, 3]), [1 << 63, 1]);
        let mut out = [0; 4];
        multiply_add_to(&[u64::MAX; 2], &[u64::MAX; 2], &[u64::MAX; 2], &mut out);
        assert_eq!(out, [0, 0, u64::MAX, u64::MAX]); // (R-1)^2 + R-1 = R(R-1)
        let mut difference = [0, 0, 1];
        assert!(!subtract(&mut difference, &[1, 0, 0]));
        assert_eq!(difference, [u64::MAX, u64::MAX, 0]);
        assert!(subtract(&mut difference, &[0, 0, 1]));
    }

    #[test]
    fn chooses_a_row() {
        let table = [1, 2, 3, u64::MAX, 5, 6];
        for (i, row) in table.chunks(2).enumerate() {
            let mut out = [7; 2];
            choose(&table, i, &mut out);
            assert_eq!(out, row);
        }
    }

    #[test]
    fn random_numbers_stay_below_and_vary() {
        let bound = [0, 0, 3];
        let mut rows = [0; 3 * 300];
        fill_below(&bound, &mut rows);
        let tops = [0, 1, 2].map(|top| rows.chunks(3).filter(|row| row[2] == top).count());
        assert_eq!(tops.iter().sum::<usize>(), 300);
        assert!(tops.iter().all(|count| *count > 40));
    }
}
