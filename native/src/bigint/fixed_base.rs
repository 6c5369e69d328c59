//! Products of precomputed powers, one for each byte of an exponent: powers of one base, or a
//! product of powers of several.

use rayon::prelude::*;

use crate::bigint::montgomery::Modulus;
use crate::bigint::{Limbs, zeros};

/// Values of a byte.
const DIGITS: usize = 256;

/// Entry (i, d) is base^(d * 256^i), or base_i^d, in Montgomery form; those of i = 0 times a scale.
///
/// The digits of secret exponents index this table, so whoever shares the processor's caches
/// with this process may learn them; reading every entry each time would cost more than it
/// saves to have a table.
pub struct FixedBase {
    len: usize,
    entries: Limbs,
}

impl FixedBase {
    /// For exponents of up to `bytes` bytes; `base` and `scale` in Montgomery form.
    pub fn new(modulus: &Modulus, base: &[u64], bytes: usize, scale: &[u64]) -> Self {
        let mut steps = zeros(bytes * modulus.len());
        let mut base: Limbs = base.to_vec().into();
        for step in steps.chunks_exact_mut(modulus.len()) {
            step.copy_from_slice(&base);
            base = modulus.power(&base, &[DIGITS as u64]);
        }
        Self::of(modulus, &steps, scale)
    }

    /// For products of powers: byte i of an exponent is that of the i-th of these bases.
    pub fn of(modulus: &Modulus, bases: &[u64], scale: &[u64]) -> Self {
        let len = modulus.len();
        let mut entries = zeros(bases.len() * DIGITS);
        entries.par_chunks_mut(DIGITS * len).zip(bases.par_chunks_exact(len)).enumerate().for_each(
            |(i, (row, step))| {
                row[..len].copy_from_slice(if i == 0 { scale } else { modulus.one() });
                for digit in 1..DIGITS {
                    let (known, rest) = row.split_at_mut(digit * len);
                    modulus.multiply(&known[(digit - 1) * len..], step, &mut rest[..len]);
                }
            },
        );
        Self { len, entries }
    }

    fn entry(&self, i: usize, digit: u8) -> &[u64] {
        let start = (i * DIGITS + usize::from(digit)) * self.len;
        &self.entries[start..start + self.len]
    }

    /// scale * base^exponent for each row of `exponents`: `bytes` little-endian bytes, at most as
    /// many as the table was made for. Results are in Montgomery form, as many limbs a row as the
    /// modulus has.
    pub fn powers(&self, modulus: &Modulus, exponents: &[u8], bytes: usize, out: &mut [u64]) {
        let mut next = zeros(self.len);
        for (exponent, out) in exponents.chunks_exact(bytes).zip(out.chunks_exact_mut(self.len)) {
            out.copy_from_slice(self.entry(0, exponent[0]));
            for (i, digit) in exponent.iter().enumerate().skip(1) {
                modulus.multiply(out, self.entry(i, *digit), &mut next);
                out.copy_from_slice(&next);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_plain_powers() {
        let modulus = Modulus::new(&[u64::MAX; 8]);
        let base = modulus.enter(&[3, 0, 0, 0, 0, 0, 0, 5]);
        let scale = modulus.enter(&[7, 0, 0, 0, 0, 0, 0, 0]);
        let table = FixedBase::new(&modulus, &base, 8, &scale);
        let exponents: [u64; 5] = [0, 1, 255, 1 << 40, u64::MAX];
        let bytes: Vec<u8> = exponents.iter().flat_map(|exponent| exponent.to_le_bytes()).collect();
        let mut out = zeros(5 * 8);
        table.powers(&modulus, &bytes, 8, &mut out);
        for (exponent, out) in exponents.iter().zip(out.chunks_exact(8)) {
            let expected = modulus.product(&modulus.power(&base, &[*exponent]), &scale);
            assert_eq!(*expected, out);
        }
        // A shorter exponent uses the first part of the table.
        let mut out = zeros(8);
        table.powers(&modulus, &[4, 1], 2, &mut out);
        assert_eq!(*modulus.product(&modulus.power(&base, &[260]), &scale), *out);
    }
}
