//! Multiplication of u-coordinates on Curve25519, many at a time.

use rayon::prelude::*;
use subtle::{Choice, ConditionallySelectable};
use zeroize::{Zeroize, Zeroizing};

#[cfg(any(target_arch = "x86_64", feature = "emulated-lanes"))]
use crate::cpu::has_ifma;
use crate::error::{Result, refuse};
use crate::field25519::{Field, invert_all};
#[cfg(any(target_arch = "x86_64", feature = "emulated-lanes"))]
use crate::ifma;
use crate::scalar::Scalar;

/// Rows that share one inversion.
pub const BLOCK: usize = 256;

/// The Montgomery coefficient A.
pub const A: u32 = 486_662;

/// A u-coordinate x/z.
#[derive(Clone, Copy, Zeroize)]
pub struct Projective {
    pub x: Field,
    pub z: Field,
}

impl Projective {
    /// Doubling, complete on u-coordinates: the neutral element (z = 0) doubles to itself.
    pub fn double(&self) -> Self {
        let sum = (self.x + self.z).square();
        let difference = (self.x - self.z).square();
        let e = sum - difference;
        Self { x: sum * difference, z: e * (sum + e.times_small((A - 2) / 4)) }
    }
}

/// The affine coordinates as bytes; zero for the neutral element.
pub fn encode_all(points: Zeroizing<Vec<Projective>>, out: &mut [[u8; 32]]) {
    let mut inverses = Zeroizing::new(points.iter().map(|p| p.z).collect::<Vec<_>>());
    invert_all(&mut inverses);
    for ((point, inverse), bytes) in points.iter().zip(inverses.iter()).zip(out) {
        *bytes = (point.x * *inverse).encode();
    }
}

/// `scalar` times every point. Refuses the first row that is no canonical u-coordinate or whose
/// product is zero.
pub fn multiply(points: &[[u8; 32]], scalar: &Scalar) -> Result<Vec<[u8; 32]>> {
    let mut out = vec![[0; 32]; points.len()];
    let refused = points
        .par_chunks(BLOCK)
        .zip(out.par_chunks_mut(BLOCK))
        .enumerate()
        .filter_map(|(block, (points, out))| {
            dispatch(points, scalar, out);
            let row = out.iter().position(|product| *product == [0; 32])?;
            Some(block * BLOCK + row)
        })
        .min();
    match refused {
        Some(row) => refuse!("row {row} is not a point: u is not below p, or the product is zero"),
        None => Ok(out),
    }
}

/// A coordinate that is not canonical counts as zero, whose product is zero.
fn dispatch(points: &[[u8; 32]], scalar: &Scalar, out: &mut [[u8; 32]]) {
    #[cfg(any(target_arch = "x86_64", feature = "emulated-lanes"))]
    if has_ifma() {
        // SAFETY: the processor has the features.
        return unsafe { ifma::curve25519::multiply_block(points, scalar, out) };
    }
    multiply_block(points, scalar, out);
}

fn multiply_block(points: &[[u8; 32]], scalar: &Scalar, out: &mut [[u8; 32]]) {
    let products = points
        .iter()
        .map(|bytes| ladder(Field::decode(bytes).unwrap_or(Field::ZERO), scalar))
        .collect::<Vec<_>>();
    encode_all(products.into(), out);
}

/// The Montgomery ladder (RFC 7748, section 5) over all 256 bits of the scalar, constant time.
fn ladder(u: Field, scalar: &Scalar) -> Projective {
    let mut low = Projective { x: Field::ONE, z: Field::ZERO };
    let mut high = Projective { x: u, z: Field::ONE };
    let mut swapped = Choice::from(0);
    for i in (0..256).rev() {
        let bit = Choice::from(scalar.as_bytes()[i / 8] >> (i % 8) & 1);
        swap(&mut low, &mut high, bit ^ swapped);
        swapped = bit;

        let (sum, difference) = (low.x + low.z, low.x - low.z);
        let crossed = (high.x - high.z) * sum;
        let straight = (high.x + high.z) * difference;
        high.x = (crossed + straight).square();
        high.z = u * (crossed - straight).square();
        let (sum, difference) = (sum.square(), difference.square());
        let e = sum - difference;
        low.x = sum * difference;
        low.z = e * (sum + e.times_small((A - 2) / 4));
    }
    swap(&mut low, &mut high, swapped);
    high.zeroize();
    low
}

fn swap(a: &mut Projective, b: &mut Projective, choice: Choice) {
    Field::conditional_swap(&mut a.x, &mut b.x, choice);
    Field::conditional_swap(&mut a.z, &mut b.z, choice);
}

/// How many points equal an earlier one.
pub fn repeated(points: &[[u8; 32]]) -> usize {
    let mut sorted = points.to_vec();
    sorted.par_sort_unstable();
    sorted.par_windows(2).filter(|pair| pair[0] == pair[1]).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;

    /// Both paths, where this processor (or the emulation) has both.
    #[test]
    fn both_paths_agree() {
        let p_plus = |small: u8| std::array::from_fn(|i| if i == 0 { small } else { 0xff });
        // From p - 2 to 2^255 and over it, and with limbs of ones on either side of the carries.
        let mut points: Vec<[u8; 32]> = (0xeb..=0xff).map(p_plus).collect();
        points.iter_mut().for_each(|point| point[31] = 0x7f);
        points.extend([[0xff; 32], [0; 32], std::array::from_fn(|i| u8::from(i == 31) << 7)]);
        points.extend((0..255).map(|bit| {
            std::array::from_fn(|i| match i.cmp(&(bit / 8)) {
                std::cmp::Ordering::Less => 0xff,
                std::cmp::Ordering::Equal => 0xff >> (7 - bit % 8),
                std::cmp::Ordering::Greater => 0,
            })
        }));
        points.resize_with(points.len() + 20, || {
            let mut point = [0; 32];
            random::fill(&mut point);
            point
        });
        let [mut least, mut most] = [[0; 32], [0xff; 32]];
        (least[0], most[0]) = (8, 0xf8);
        for scalar in [
            Scalar::random(),
            Scalar::from_bytes(least).unwrap(),
            Scalar::from_bytes(most).unwrap(),
        ] {
            let (mut expected, mut found) =
                (vec![[0; 32]; points.len()], vec![[0; 32]; points.len()]);
            multiply_block(&points, &scalar, &mut expected);
            dispatch(&points, &scalar, &mut found);
            assert_eq!(found, expected);
        }
    }
}
