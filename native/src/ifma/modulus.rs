//! Arithmetic modulo m and m^2 in lanes, as `Batch` says.
//!
//! Limbs of 52 bits in tiles of ten: the twenty columns of the product of two tiles stay in
//! registers while all products that belong there are added up, and are carried once. The
//! multiply-add instructions ignore what a factor has above 52 bits, so every number that leaves a
//! function has been carried.
//!
//! R is at least 2^8 m, which leaves room for sums: with a0, b0 < 8m and a1, b1 < 12m,
//! (a0 b0 + qm)/R < 2m and (a0 b1 + a1 b0 + R + qm)/R + m < 3m.

use std::hint::black_box;

use zeroize::Zeroizing;

use super::lanes::*;
use crate::bigint::batch::Batch;
use crate::bigint::{Limbs, bit_length, double};
use crate::cpu::has_ifma;

const TILE: usize = 10;
/// Of the longest modulus, 4096 bits.
const MAX_TILES: usize = 8;
/// What m leaves free below R.
const SPARE_BITS: usize = 8;

type Tile = [Lanes; TILE];
/// Column i counts 2^52i. Each adds up fewer than 2^11 halves of products, of 52 bits.
type Columns = [Lanes; 2 * TILE];

/// Its being there says that the processor has the features: see `new`.
pub struct Modulus {
    /// m and m-1
    m: Zeroizing<Vec<Lanes>>,
    less_one: Zeroizing<Vec<Lanes>>,
    /// 8m, 4m, 2m, m
    multiples: [Zeroizing<Vec<Lanes>>; 4],
    /// -1/m modulo 2^52
    negative_inverse: u64,
}

/// columns += ab
#[inline]
#[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
fn add_product(columns: &mut Columns, a: &Tile, b: &Tile) {
    // Written out, so that every index is known and the columns can be registers.
    add_multiple::<0>(columns, a[0], b);
    add_multiple::<1>(columns, a[1], b);
    add_multiple::<2>(columns, a[2], b);
    add_multiple::<3>(columns, a[3], b);
    add_multiple::<4>(columns, a[4], b);
    add_multiple::<5>(columns, a[5], b);
    add_multiple::<6>(columns, a[6], b);
    add_multiple::<7>(columns, a[7], b);
    add_multiple::<8>(columns, a[8], b);
    add_multiple::<9>(columns, a[9], b);
}

/// columns += ab 2^52I
#[inline]
#[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
fn add_multiple<const I: usize>(columns: &mut Columns, a: Lanes, b: &Tile) {
    for j in 0..TILE {
        columns[I + j] = low(columns[I + j], a, b[j]);
    }
    for j in 0..TILE {
        columns[I + j + 1] = high(columns[I + j + 1], a, b[j]);
    }
}

/// columns += qm with q such that the lower ten become zero; what they carry goes to the upper.
#[inline]
#[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
fn reduce_tile(columns: &mut Columns, m: &Tile, negative_inverse: Lanes) -> Tile {
    let mut q = [splat(0); TILE];
    q[0] = reduce_limb::<0>(columns, m, negative_inverse);
    q[1] = reduce_limb::<1>(columns, m, negative_inverse);
    q[2] = reduce_limb::<2>(columns, m, negative_inverse);
    q[3] = reduce_limb::<3>(columns, m, negative_inverse);
    q[4] = reduce_limb::<4>(columns, m, negative_inverse);
    q[5] = reduce_limb::<5>(columns, m, negative_inverse);
    q[6] = reduce_limb::<6>(columns, m, negative_inverse);
    q[7] = reduce_limb::<7>(columns, m, negative_inverse);
    q[8] = reduce_limb::<8>(columns, m, negative_inverse);
    q[9] = reduce_limb::<9>(columns, m, negative_inverse);
    q
}

#[inline]
#[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
fn reduce_limb<const I: usize>(columns: &mut Columns, m: &Tile, negative_inverse: Lanes) -> Lanes {
    let q = low(splat(0), columns[I], negative_inverse);
    // The next q waits for these three, so they come first, and not one after the other.
    columns[I] = low(columns[I], q, m[0]);
    let upper = high(splat(0), q, m[0]);
    columns[I + 1] = low(columns[I + 1], q, m[1]);
    for j in 2..TILE {
        columns[I + j] = low(columns[I + j], q, m[j]);
    }
    for j in 1..TILE {
        columns[I + j + 1] = high(columns[I + j + 1], q, m[j]);
    }
    columns[I + 1] = plus(plus(columns[I + 1], upper), right::<BITS>(columns[I]));
    q
}

/// The products of different limbs of a, once each.
#[inline]
#[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
fn add_mixed(columns: &mut Columns, a: &Tile) {
    for i in 0..TILE {
        for j in i + 1..TILE {
            columns[i + j] = low(columns[i + j], a[i], a[j]);
            columns[i + j + 1] = high(columns[i + j + 1], a[i], a[j]);
        }
    }
}

#[inline]
#[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
fn add_squares(columns: &mut Columns, a: &Tile) {
    for i in 0..TILE {
        columns[2 * i] = low(columns[2 * i], a[i], a[i]);
        columns[2 * i + 1] = high(columns[2 * i + 1], a[i], a[i]);
    }
}

#[inline]
#[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
fn add_limbs(columns: &mut Columns, limbs: &Tile) {
    for i in 0..TILE {
        columns[i] = plus(columns[i], limbs[i]);
    }
}

#[inline]
#[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
fn add_twice(columns: &mut Columns, half: &Columns) {
    for i in 0..2 * TILE {
        columns[i] = plus(columns[i], plus(half[i], half[i]));
    }
}

/// Carries the lower ten columns, which go to `out`; the upper ten take their place.
#[inline]
#[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
fn shift_out(columns: &mut Columns, out: &mut Tile) {
    let mut carried = columns[0];
    for i in 0..TILE {
        out[i] = and(carried, LIMB);
        carried = plus(columns[i + 1], right::<BITS>(carried));
    }
    columns[TILE] = carried;
    shift(columns);
}

#[inline]
#[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
fn shift(columns: &mut Columns) {
    for i in 0..TILE {
        columns[i] = columns[i + TILE];
        columns[i + TILE] = splat(0);
    }
}

fn tiles(limbs: &[Lanes]) -> &[Tile] {
    limbs.as_chunks().0
}

fn tiles_mut(limbs: &mut [Lanes]) -> &mut [Tile] {
    limbs.as_chunks_mut().0
}

/// What is to be reduced, beside `low` and R `high`.
#[derive(Clone, Copy)]
enum Products<'a> {
    None,
    /// ab
    One(&'a [Tile], &'a [Tile]),
    /// ab + cd
    Two(&'a [Tile], &'a [Tile], &'a [Tile], &'a [Tile]),
    /// a^2
    Square(&'a [Tile]),
    /// 2ab
    Double(&'a [Tile], &'a [Tile]),
}

impl Modulus {
    fn digits<'a>(&self, x: &'a [Lanes]) -> (&'a [Tile], &'a [Tile]) {
        tiles(x).split_at(self.m.len() / TILE)
    }

    /// out = (products + out + R high + qm)/R, without `add_out` as if it were zero before; and
    /// R - 1 - q if it has a place.
    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    fn reduce_products(
        &self,
        products: Products,
        add_out: bool,
        high: Option<&[Tile]>,
        out: &mut [Tile],
        mut complement: Option<&mut [Tile]>,
    ) {
        let m = tiles(&self.m);
        let len = m.len();
        let negative_inverse = splat(self.negative_inverse);
        let mut columns = [splat(0); 2 * TILE];
        for k in 0..2 * len {
            // Tiles i and k - i.
            let (first, end) = (k.saturating_sub(len - 1), len.min(k + 1));
            match products {
                Products::None => {}
                Products::One(a, b) => {
                    for i in first..end {
                        add_product(&mut columns, &a[i], &b[k - i]);
                    }
                }
                Products::Two(a, b, c, d) => {
                    for i in first..end {
                        add_product(&mut columns, &a[i], &b[k - i]);
                        add_product(&mut columns, &c[i], &d[k - i]);
                    }
                }
                Products::Double(a, b) => {
                    let mut half = [splat(0); 2 * TILE];
                    for i in first..end {
                        add_product(&mut half, &a[i], &b[k - i]);
                    }
                    add_twice(&mut columns, &half);
                }
                Products::Square(a) => {
                    let mut half = [splat(0); 2 * TILE];
                    for i in first..k.div_ceil(2) {
                        add_product(&mut half, &a[i], &a[k - i]);
                    }
                    if k % 2 == 0 {
                        add_mixed(&mut half, &a[k / 2]);
                    }
                    add_twice(&mut columns, &half);
                    if k % 2 == 0 {
                        add_squares(&mut columns, &a[k / 2]);
                    }
                }
            }
            // The limbs of q stand where those of the result will, in turn.
            for i in first..end.min(k) {
                add_product(&mut columns, &out[i], &m[k - i]);
            }
            if k < len {
                if add_out {
                    add_limbs(&mut columns, &out[k]);
                }
                let q = reduce_tile(&mut columns, &m[0], negative_inverse);
                if let Some(complement) = &mut complement {
                    complement[k] = q.map(|limb| minus(splat(LIMB), limb));
                }
                out[k] = q;
                shift(&mut columns);
            } else {
                if let Some(high) = high {
                    add_limbs(&mut columns, &high[k - len]);
                }
                shift_out(&mut columns, &mut out[k - len]);
            }
        }
    }

    /// The digits of (first + second m + x)/R modulo m^2.
    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    fn reduce_digits(
        &self,
        first: Products,
        second: Products,
        x: Option<(&[Tile], &[Tile])>,
        out: &mut [Lanes],
    ) {
        let (out0, out1) = tiles_mut(out).split_at_mut(self.m.len() / TILE);
        if let Some((low, _)) = x {
            out0.copy_from_slice(low);
        }
        self.reduce_products(first, x.is_some(), x.map(|x| x.1), out0, Some(out1));
        // R - q; its R becomes 1 too much. m - 1 more puts it right.
        out1[0][0] = plus(out1[0][0], splat(1));
        self.reduce_products(second, true, Some(tiles(&self.less_one)), out1, None);
    }

    /// Subtracts from each number that is not below it the multiple of m; 1 where it did.
    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    fn subtract_if_above(&self, x: &mut [Lanes], multiple: &[Lanes]) -> Lanes {
        let mut borrow = splat(0);
        for (x, m) in x.iter().zip(multiple) {
            borrow = right::<63>(minus(minus(*x, *m), borrow));
        }
        let above = minus(splat(1), borrow);
        let every_bit = minus(splat(0), above);
        let mut borrow = splat(0);
        for (x, m) in x.iter_mut().zip(multiple) {
            let difference = minus(minus(*x, both(*m, every_bit)), borrow);
            borrow = right::<63>(difference);
            *x = and(difference, LIMB);
        }
        above
    }

    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    fn product(&self, a: &[Lanes], b: &[Lanes], out: &mut [Lanes]) {
        self.reduce_products(Products::One(tiles(a), tiles(b)), false, None, tiles_mut(out), None);
        self.subtract_if_above(out, &self.m);
    }

    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    fn difference(&self, a: &[Lanes], b: &[Lanes], out: &mut [Lanes]) {
        let mut borrow = splat(0);
        for ((a, b), out) in a.iter().zip(b).zip(&mut *out) {
            let difference = minus(minus(*a, *b), borrow);
            borrow = right::<63>(difference);
            *out = and(difference, LIMB);
        }
        let every_bit = minus(splat(0), borrow);
        let mut carried = splat(0);
        for (out, m) in out.iter_mut().zip(&*self.m) {
            let sum = plus(plus(*out, both(*m, every_bit)), carried);
            carried = right::<BITS>(sum);
            *out = and(sum, LIMB);
        }
    }

    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    fn add(&self, a: &mut [Lanes], b: &[Lanes]) {
        let len = self.m.len();
        for (a, b) in a.chunks_exact_mut(len).zip(b.chunks_exact(len)) {
            let mut carried = splat(0);
            for (a, b) in a.iter_mut().zip(b) {
                let sum = plus(plus(*a, *b), carried);
                carried = right::<BITS>(sum);
                *a = and(sum, LIMB);
            }
        }
    }

    /// Both digits, each below 16m.
    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    fn reduce(&self, x: &mut [Lanes]) {
        let (low, high) = x.split_at_mut(self.m.len());
        // What is taken from the low digit in whole m belongs to the other.
        let mut carried = splat(0);
        for multiple in &self.multiples {
            carried = plus(plus(carried, carried), self.subtract_if_above(low, multiple));
        }
        for limb in &mut *high {
            let sum = plus(*limb, carried);
            carried = right::<BITS>(sum);
            *limb = and(sum, LIMB);
        }
        for multiple in &self.multiples {
            self.subtract_if_above(high, multiple);
        }
    }
}

/// out = ab + addend
#[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
fn multiply_add(a: &[Tile], b: &[Tile], addend: &[Tile], out: &mut [Tile]) {
    let mut columns = [splat(0); 2 * TILE];
    for (k, out) in out.iter_mut().enumerate() {
        for i in (k + 1).saturating_sub(b.len())..a.len().min(k + 1) {
            add_product(&mut columns, &a[i], &b[k - i]);
        }
        if let Some(addend) = addend.get(k) {
            add_limbs(&mut columns, addend);
        }
        shift_out(&mut columns, out);
    }
}

#[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
fn choose(table: &[Lanes], index: usize, out: &mut [Lanes]) {
    let len = out.len();
    for (place, out) in tiles_mut(out).iter_mut().enumerate() {
        let mut sum = [splat(0); TILE];
        for (i, number) in table.chunks_exact(len).enumerate() {
            let mask = splat(black_box(u64::from(i == index)).wrapping_neg());
            let tile = &tiles(number)[place];
            for k in 0..TILE {
                sum[k] = or(sum[k], both(tile[k], mask));
            }
        }
        *out = sum;
    }
}

/// Limbs of 52 bits from rows of 64.
#[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
fn load_rows(rows: &[u64], columns: usize, out: &mut [Lanes]) {
    let mut words = Zeroizing::new(vec![splat(0); columns.next_multiple_of(LANES) + 1]);
    for (block, words) in words.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        let mut part = [splat(0); LANES];
        for (row, part) in rows.chunks_exact(columns).zip(&mut part) {
            *part = load_some(&row[block * LANES..]);
        }
        *words = transpose(part);
    }
    let word = |i: usize| words.get(i).copied().unwrap_or(splat(0));
    for (i, limb) in out.iter_mut().enumerate() {
        let (first, shift) = (52 * i / 64, 52 * i as u64 % 64);
        *limb = and(or(right_by(word(first), shift), left_by(word(first + 1), 64 - shift)), LIMB);
    }
}

#[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
fn store_rows(x: &[Lanes], rows: &mut [u64], columns: usize) {
    let limb = |i: usize| x.get(i).copied().unwrap_or(splat(0));
    for block in (0..columns).step_by(LANES) {
        let mut words = [splat(0); LANES];
        for (i, word) in words.iter_mut().enumerate() {
            let bit = 64 * (block + i) as u64;
            let (first, shift) = ((bit / 52) as usize, bit % 52);
            *word = or(
                or(right_by(limb(first), shift), left_by(limb(first + 1), 52 - shift)),
                left_by(limb(first + 2), 104 - shift),
            );
        }
        for (row, words) in rows.chunks_exact_mut(columns).zip(transpose(words)) {
            store_some(words, &mut row[block..]);
        }
    }
}

#[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
fn gather_rows(table: &[u64], starts: &[usize], out: &mut [Lanes]) {
    for (block, out) in out.chunks_mut(LANES).enumerate() {
        let mut words = [splat(0); LANES];
        for (words, start) in words.iter_mut().zip(starts) {
            *words = load_some(&table[start + block * LANES..][..LANES]);
        }
        out.copy_from_slice(&transpose(words)[..out.len()]);
    }
}

#[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
fn scatter_rows(x: &[Lanes], table: &mut [u64], starts: &[usize]) {
    for (block, x) in x.chunks(LANES).enumerate() {
        let mut words = [splat(0); LANES];
        words[..x.len()].copy_from_slice(x);
        for (words, start) in transpose(words).into_iter().zip(starts) {
            store_some(words, &mut table[start + block * LANES..][..LANES]);
        }
    }
}

// SAFETY of all calls below: a `Modulus` exists only where the processor has the features.
impl Batch for Modulus {
    type Limb = Lanes;
    const WIDTH: usize = LANES;
    const ZERO: Lanes = ZERO;
    const BITS: usize = BITS as usize;
    // Large tables take long to emulate.
    const MAX_WINDOW: usize = if cfg!(feature = "emulated-lanes") { 8 } else { 12 };

    fn new(m: &[u64]) -> Self {
        assert!(has_ifma(), "the processor has no AVX-512 IFMA");
        let limbs = (bit_length(m) + SPARE_BITS).div_ceil(TILE * BITS as usize) * TILE;
        assert!(limbs <= MAX_TILES * TILE, "the modulus is too long");
        let spread = |x: &[u64]| {
            let mut out = Zeroizing::new(vec![ZERO; limbs]);
            let rows = Limbs::from(x.repeat(LANES));
            unsafe { load_rows(&rows, x.len(), &mut out) };
            out
        };
        let mut less_one: Limbs = m.to_vec().into();
        less_one[0] -= 1;
        let mut multiple: Limbs = [m, &[0]].concat().into();
        let mut multiples = [(); 4].map(|()| {
            let this = spread(&multiple);
            multiple = double(&multiple);
            this
        });
        multiples.reverse();
        // Newton: every step doubles the low bits that are right; m itself has three of them.
        let inverse =
            (0..5).fold(m[0], |x, _| x.wrapping_mul(2u64.wrapping_sub(m[0].wrapping_mul(x))));
        Self {
            m: spread(m),
            less_one: spread(&less_one),
            multiples,
            negative_inverse: inverse.wrapping_neg() & LIMB,
        }
    }

    fn limbs(&self) -> usize {
        self.m.len()
    }

    fn load(&self, rows: &[u64], columns: usize, out: &mut [Lanes]) {
        unsafe { load_rows(rows, columns, out) }
    }

    fn store(&self, x: &[Lanes], rows: &mut [u64], columns: usize) {
        unsafe { store_rows(x, rows, columns) }
    }

    fn choose(&self, table: &[Lanes], index: usize, out: &mut [Lanes]) {
        unsafe { choose(table, index, out) }
    }

    fn stride(&self) -> usize {
        (2 * self.m.len()).next_multiple_of(LANES)
    }

    fn scatter(&self, x: &[Lanes], table: &mut [u64], starts: &[usize]) {
        unsafe { scatter_rows(x, table, starts) }
    }

    fn gather(&self, table: &[u64], starts: &[usize], out: &mut [Lanes]) {
        unsafe { gather_rows(table, starts, out) }
    }

    fn prefetch(&self, table: &[u64], starts: &[usize]) {
        for start in starts {
            table[*start..][..self.stride()].iter().step_by(LANES).for_each(prefetch);
        }
    }

    fn product(&self, a: &[Lanes], b: &[Lanes], out: &mut [Lanes]) {
        unsafe { self.product(a, b, out) }
    }

    fn difference(&self, a: &[Lanes], b: &[Lanes], out: &mut [Lanes]) {
        unsafe { self.difference(a, b, out) }
    }

    fn add(&self, a: &mut [Lanes], b: &[Lanes]) {
        unsafe { self.add(a, b) }
    }

    fn multiply_add(&self, a: &[Lanes], b: &[Lanes], addend: &[Lanes], out: &mut [Lanes]) {
        unsafe { multiply_add(tiles(a), tiles(b), tiles(addend), tiles_mut(out)) }
    }

    fn multiply(&self, a: &[Lanes], b: &[Lanes], out: &mut [Lanes]) {
        let ((a0, a1), (b0, b1)) = (self.digits(a), self.digits(b));
        let (low, high) = (Products::One(a0, b0), Products::Two(a0, b1, a1, b0));
        unsafe { self.reduce_digits(low, high, None, out) }
    }

    fn square(&self, a: &[Lanes], out: &mut [Lanes]) {
        let (a0, a1) = self.digits(a);
        unsafe { self.reduce_digits(Products::Square(a0), Products::Double(a0, a1), None, out) }
    }

    fn split(&self, x: &[Lanes], out: &mut [Lanes]) {
        unsafe { self.reduce_digits(Products::None, Products::None, Some(self.digits(x)), out) }
    }

    fn reduce(&self, x: &mut [Lanes]) {
        unsafe { self.reduce(x) }
    }
}
