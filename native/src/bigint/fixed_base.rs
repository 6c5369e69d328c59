//! Products of precomputed powers modulo a square, one for each digit of an exponent: powers of one
//! base, or a product of powers of several.

use std::sync::OnceLock;

use rayon::prelude::*;
use zeroize::Zeroizing;

use crate::bigint::batch::{Batch, Numbers};
use crate::bigint::square::Square;
use crate::bigint::{Limbs, zeros as words};

/// What a table may have in bytes. One bit more to a digit doubles the table; what it saves is the
/// smaller the longer digits are already. Of 2048 bits the tables for uniform exponents with digits
/// of 10 bits fit, those for short ones with 12.
const TABLE_BYTES: usize = 56 << 20;

/// Entry (i, d) is base^(d * 2^(bits * i)), or base_i^d, in Montgomery form.
///
/// The digits of secret exponents index this table, so whoever shares the processor's caches with
/// this process may learn them. An exponent serves one ciphertext and never again, and reading
/// every entry each time would cost more than the table saves. Long-lived exponents have
/// `Square::power`.
pub struct FixedBase {
    /// Of a digit.
    bits: usize,
    /// Words of an entry.
    stride: usize,
    entries: Limbs,
}

impl FixedBase {
    /// For exponents of up to `exponent_bits` bits, at most `digit_bits` of them at a time; `base` in
    /// Montgomery form, the same in all lanes.
    pub fn new<B: Batch>(
        square: &Square<B>,
        base: &[B::Limb],
        exponent_bits: usize,
        digit_bits: usize,
    ) -> Self {
        let stride = square.base.stride();
        let fits = |bits: &usize| {
            exponent_bits.div_ceil(*bits) * (stride << *bits) * size_of::<u64>() <= TABLE_BYTES
        };
        let bits = (1..=digit_bits).rev().find(fits).unwrap_or(1);
        let digits = exponent_bits.div_ceil(bits);

        // base^(2^(bits * i)), a row each.
        let mut steps = words(digits * stride);
        let (mut step, mut next) = (Numbers::<B>::from(base.to_vec()), square.zeros());
        for row in steps.chunks_exact_mut(stride) {
            square.base.scatter(&step, row, &[0]);
            for _ in 0..bits {
                square.base.square(&step, &mut next);
                std::mem::swap(&mut step, &mut next);
            }
        }
        Self::of(square, &steps, bits)
    }

    /// For products of powers: the i-th `bits` bits of an exponent are that of the i-th base. The
    /// bases are rows as `scatter` writes them, in Montgomery form.
    pub fn of<B: Batch>(square: &Square<B>, bases: &[u64], bits: usize) -> Self {
        let stride = square.base.stride();
        let mut entries = words(bases.len() << bits);
        entries
            .par_chunks_mut(B::WIDTH * (stride << bits))
            .zip(bases.par_chunks(B::WIDTH * stride))
            .for_each(|(entries, bases)| {
                let places = |first: usize, step: usize| -> Vec<usize> {
                    (0..bases.len() / stride).map(|lane| first + lane * step).collect()
                };
                let mut base = square.zeros();
                square.base.gather(bases, &places(0, stride), &mut base);
                let mut power = Numbers::<B>::from(square.one().to_vec());
                let mut next = square.zeros();
                for digit in 0..1 << bits {
                    square.base.scatter(&power, entries, &places(digit * stride, stride << bits));
                    square.base.multiply(&power, &base, &mut next);
                    std::mem::swap(&mut power, &mut next);
                }
            });
        Self { bits, stride, entries }
    }

    pub fn digits(&self) -> usize {
        self.entries.len() / (self.stride << self.bits)
    }

    /// base^exponent in Montgomery form for each row of `exponents`, at most `WIDTH` of them:
    /// `bytes` little-endian bytes each, with no more bits than the table was made for.
    pub fn powers<B: Batch>(
        &self,
        square: &Square<B>,
        exponents: &[u8],
        bytes: usize,
    ) -> Numbers<B> {
        let digits = (8 * bytes).div_ceil(self.bits);
        let mut starts = Zeroizing::new(vec![0; digits * B::WIDTH]);
        for (i, starts) in starts.chunks_exact_mut(B::WIDTH).enumerate() {
            for (start, exponent) in starts.iter_mut().zip(exponents.chunks_exact(bytes)) {
                let digit = digit(exponent, i * self.bits, self.bits);
                *start = ((i << self.bits) + digit) * self.stride;
            }
        }
        let mut chosen = starts.chunks_exact(B::WIDTH).peekable();
        let mut power = Numbers::<B>::from(square.one().to_vec());
        let (mut entry, mut next) = (square.zeros(), square.zeros());
        while let Some(starts) = chosen.next() {
            square.base.gather(&self.entries, starts, &mut entry);
            if let Some(starts) = chosen.peek() {
                square.base.prefetch(&self.entries, starts);
            }
            square.base.multiply(&power, &entry, &mut next);
            std::mem::swap(&mut power, &mut next);
        }
        power
    }
}

/// Tables of random bases, for long exponents and for short ones, made at first use. (With short
/// exponents a digit may be longer.)
pub struct Tables {
    short: OnceLock<FixedBase>,
    long: OnceLock<FixedBase>,
}

/// A short exponent has at most as many bits.
const SHORT_BITS: usize = 512;

impl Tables {
    pub fn new() -> Self {
        Self { short: OnceLock::new(), long: OnceLock::new() }
    }

    /// The one for exponents of `bits` bits, of which none has more than `longest`; `base` draws a
    /// base in Montgomery form.
    pub fn get<B: Batch>(
        &self,
        square: &Square<B>,
        bits: usize,
        longest: usize,
        base: impl FnOnce() -> Numbers<B>,
    ) -> &FixedBase {
        let (table, bits) = match bits <= SHORT_BITS {
            true => (&self.short, SHORT_BITS.min(longest)),
            false => (&self.long, longest),
        };
        table.get_or_init(|| FixedBase::new(square, &base(), bits, B::MAX_WINDOW))
    }
}

/// `count` bits (at most 16) from bit `first` on; what is beyond the end counts as zero.
fn digit(bytes: &[u8], first: usize, count: usize) -> usize {
    let at = |i: usize| bytes.get(first / 8 + i).map_or(0, |byte| usize::from(*byte) << (8 * i));
    (at(0) | at(1) | at(2)) >> (first % 8) & ((1 << count) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bigint::montgomery::Modulus;
    use crate::cpu::has_ifma;

    fn agrees_with_plain_powers<B: Batch>() {
        let square = Square::<B>::new(&[u64::MAX; 8], 2);
        let base = square.power_of_r(3);
        let exponents: [u64; 7] = [0, 1, 255, 256, 1 << 40, u64::MAX - 1, u64::MAX];
        let reduced = |x: &[B::Limb], lanes: usize| {
            let x = square.leave(x, &square.plain_one());
            let mut rows = vec![0; B::WIDTH * square.base.stride()];
            let starts: Vec<_> = (0..lanes).map(|lane| lane * square.base.stride()).collect();
            square.base.scatter(&x, &mut rows, &starts);
            rows
        };
        for digit_bits in [1, 3, 8, 10] {
            let table = FixedBase::new(&square, &base, 64, digit_bits);
            assert_eq!(table.bits, digit_bits);
            for exponents in exponents.chunks(B::WIDTH) {
                let bytes: Vec<u8> = exponents.iter().flat_map(|e| e.to_le_bytes()).collect();
                let found = reduced(&table.powers(&square, &bytes, 8), exponents.len());
                for (lane, exponent) in exponents.iter().enumerate() {
                    let stride = square.base.stride();
                    let expected = reduced(&square.power(&base, &[*exponent]), 1);
                    assert_eq!(found[lane * stride..][..stride], expected[..stride]);
                }
            }
            // A shorter exponent uses the first part of the table.
            let short = reduced(&table.powers(&square, &[4, 1], 2), 1);
            assert_eq!(short, reduced(&square.power(&base, &[260]), 1));
        }
    }

    #[test]
    fn powers_agree_with_plain_ones() {
        agrees_with_plain_powers::<Modulus>();
        if has_ifma() {
            agrees_with_plain_powers::<crate::bigint::Lanes>();
        }
    }

    #[test]
    fn digits_of_any_length() {
        let bytes = [0b1011_0110, 0b0000_0001, 0xff];
        assert_eq!(digit(&bytes, 0, 3), 0b110);
        assert_eq!(digit(&bytes, 5, 7), 0b1101);
        assert_eq!(digit(&bytes, 14, 10), 0b11_1111_1100);
        assert_eq!(digit(&bytes, 20, 10), 0b1111);
        assert_eq!(digit(&bytes, 30, 10), 0);
    }
}
