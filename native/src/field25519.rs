//! Integers modulo p = 2^255 - 19 in five limbs of 51 bits, constant time.
//!
//! Products leave limbs below 2^52 ("reduced"). A sum or difference of reduced values may be a
//! factor of a product or an operand of one more sum or difference, since products accept limbs
//! up to 2^54: that is what lets additions go without carries.

use std::ops::{Add, Mul, Neg, Sub};

use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use zeroize::{Zeroize, Zeroizing};

const MASK: u64 = (1 << 51) - 1;

#[derive(Clone, Copy, Debug, Default)]
pub struct Field([u64; 5]);

impl Zeroize for Field {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}

impl Field {
    pub const ZERO: Self = Self([0; 5]);
    pub const ONE: Self = Self::small(1);
    /// A square root of -1, namely 2^((p-1)/4).
    pub const SQRT_MINUS_ONE: Self = Self([
        0x0006_1b27_4a0e_a0b0,
        0x0000_d5a5_fc8f_189d,
        0x0007_ef5e_9cbd_0c60,
        0x0007_8595_a680_4c9e,
        0x0002_b832_4804_fc1d,
    ]);

    pub const fn small(value: u32) -> Self {
        Self([value as u64, 0, 0, 0, 0])
    }

    /// 32 little-endian bytes; `None` unless below p.
    pub fn decode(bytes: &[u8; 32]) -> Option<Self> {
        let value = Self::from_256_bits(bytes);
        (value.encode() == *bytes).then_some(value)
    }

    /// The one representative below p.
    pub fn encode(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (chunk, word) in bytes.as_chunks_mut().0.iter_mut().zip(self.words()) {
            *chunk = word.to_le_bytes();
        }
        bytes
    }

    /// `encode` as 64-bit words, the least significant first.
    pub fn words(&self) -> [u64; 4] {
        let mut limbs = carry(self.0);
        // The value is below 2p now; adding 19 overflows 2^255 exactly if it is at least p.
        let mut overflow = (limbs[0] + 19) >> 51;
        for limb in &limbs[1..] {
            overflow = (limb + overflow) >> 51;
        }
        limbs[0] += 19 * overflow;
        for i in 0..4 {
            limbs[i + 1] += limbs[i] >> 51;
            limbs[i] &= MASK;
        }
        limbs[4] &= MASK;
        [
            limbs[0] | limbs[1] << 51,
            limbs[1] >> 13 | limbs[2] << 38,
            limbs[2] >> 26 | limbs[3] << 25,
            limbs[3] >> 39 | limbs[4] << 12,
        ]
    }

    /// 48 big-endian bytes modulo p, as RFC 9380 hash_to_field needs them.
    pub fn from_be_48(bytes: &[u8; 48]) -> Self {
        let mut little = [0; 64];
        for (i, byte) in bytes.iter().rev().enumerate() {
            little[i] = *byte;
        }
        let (halves, _) = little.as_chunks::<32>();
        // 2^256 = 38 modulo p.
        Self::from_256_bits(&halves[0]) + Self::from_256_bits(&halves[1]).times_small(38)
    }

    fn from_256_bits(bytes: &[u8; 32]) -> Self {
        Self::from_words(std::array::from_fn(|i| u64::from_le_bytes(bytes.as_chunks().0[i])))
    }

    /// Any 256-bit number.
    pub fn from_words([a, b, c, d]: [u64; 4]) -> Self {
        Self([
            a & MASK,
            (a >> 51 | b << 13) & MASK,
            (b >> 38 | c << 26) & MASK,
            (c >> 25 | d << 39) & MASK,
            d >> 12,
        ])
    }

    #[inline]
    pub fn square(&self) -> Self {
        let [a0, a1, a2, a3, a4] = self.0;
        let (a0_2, a1_2) = (2 * a0, 2 * a1);
        let (a3_19, a4_19) = (19 * a3, 19 * a4);
        reduce([
            wide(a0, a0) + wide(a1_2, a4_19) + wide(2 * a2, a3_19),
            wide(a0_2, a1) + wide(2 * a2, a4_19) + wide(a3, a3_19),
            wide(a0_2, a2) + wide(a1, a1) + wide(2 * a3, a4_19),
            wide(a0_2, a3) + wide(a1_2, a2) + wide(a4, a4_19),
            wide(a0_2, a4) + wide(a1_2, a3) + wide(a2, a2),
        ])
    }

    #[inline]
    pub fn times_small(&self, factor: u32) -> Self {
        reduce(self.0.map(|limb| wide(limb, u64::from(factor))))
    }

    fn square_times(&self, count: u32) -> Self {
        (0..count).fold(*self, |x, _| x.square())
    }

    /// (x^(2^250 - 1), x^11), the common part of both exponentiations below.
    fn power_2_250_minus_1(&self) -> (Self, Self) {
        let x2 = self.square();
        let x9 = x2.square_times(2) * *self;
        let x11 = x9 * x2;
        // ones(n) = x^(2^n - 1)
        let ones_5 = x11.square() * x9;
        let ones_10 = ones_5.square_times(5) * ones_5;
        let ones_20 = ones_10.square_times(10) * ones_10;
        let ones_40 = ones_20.square_times(20) * ones_20;
        let ones_50 = ones_40.square_times(10) * ones_10;
        let ones_100 = ones_50.square_times(50) * ones_50;
        let ones_200 = ones_100.square_times(100) * ones_100;
        (ones_200.square_times(50) * ones_50, x11)
    }

    /// x^(p-2): the inverse, and zero for zero.
    pub fn invert(&self) -> Self {
        let (ones_250, x11) = self.power_2_250_minus_1();
        ones_250.square_times(5) * x11
    }

    /// x^((p-5)/8).
    pub fn power_p58(&self) -> Self {
        self.power_2_250_minus_1().0.square_times(2) * *self
    }

    pub fn is_zero(&self) -> Choice {
        self.encode().ct_eq(&[0; 32])
    }

    /// sgn0 of RFC 9380: the lowest bit of the canonical value.
    pub fn is_odd(&self) -> Choice {
        Choice::from(self.encode()[0] & 1)
    }
}

impl ConstantTimeEq for Field {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.encode().ct_eq(&other.encode())
    }
}

impl ConditionallySelectable for Field {
    fn conditional_select(a: &Self, b: &Self, choice: Choice) -> Self {
        Self(std::array::from_fn(|i| u64::conditional_select(&a.0[i], &b.0[i], choice)))
    }
}

impl Add for Field {
    type Output = Self;
    #[inline]
    fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }
}

impl Sub for Field {
    type Output = Self;
    /// Adds 4p first, so that no limb goes below zero.
    #[allow(clippy::suspicious_arithmetic_impl)]
    #[inline]
    fn sub(self, other: Self) -> Self {
        const P4: [u64; 5] = [4 * (MASK - 18), 4 * MASK, 4 * MASK, 4 * MASK, 4 * MASK];
        debug_assert!(other.0.iter().zip(P4).all(|(limb, p4)| *limb <= p4));
        Self(std::array::from_fn(|i| self.0[i] + P4[i] - other.0[i]))
    }
}

impl Neg for Field {
    type Output = Self;
    fn neg(self) -> Self {
        Self::ZERO - self
    }
}

impl Mul for Field {
    type Output = Self;
    #[inline]
    fn mul(self, other: Self) -> Self {
        let [a0, a1, a2, a3, a4] = self.0;
        let [b0, b1, b2, b3, b4] = other.0;
        // 2^255 = 19 modulo p: what passes the top comes back times 19.
        let (c1, c2, c3, c4) = (19 * b1, 19 * b2, 19 * b3, 19 * b4);
        reduce([
            wide(a0, b0) + wide(a1, c4) + wide(a2, c3) + wide(a3, c2) + wide(a4, c1),
            wide(a0, b1) + wide(a1, b0) + wide(a2, c4) + wide(a3, c3) + wide(a4, c2),
            wide(a0, b2) + wide(a1, b1) + wide(a2, b0) + wide(a3, c4) + wide(a4, c3),
            wide(a0, b3) + wide(a1, b2) + wide(a2, b1) + wide(a3, b0) + wide(a4, c4),
            wide(a0, b4) + wide(a1, b3) + wide(a2, b2) + wide(a3, b1) + wide(a4, b0),
        ])
    }
}

#[inline]
fn wide(a: u64, b: u64) -> u128 {
    u128::from(a) * u128::from(b)
}

#[inline]
fn reduce(mut sums: [u128; 5]) -> Field {
    let mut limbs = [0; 5];
    for i in 0..4 {
        sums[i + 1] += sums[i] >> 51;
        limbs[i] = sums[i] as u64 & MASK;
    }
    limbs[4] = sums[4] as u64 & MASK;
    // The top carry can pass 64 bits once multiplied by 19, so it is folded in 128.
    let low = u128::from(limbs[0]) + 19 * (sums[4] >> 51);
    limbs[0] = low as u64 & MASK;
    limbs[1] += (low >> 51) as u64;
    Field(limbs)
}

/// One pass of carries, for limbs of any size.
fn carry(limbs: [u64; 5]) -> [u64; 5] {
    let high = limbs.map(|limb| limb >> 51);
    let low = limbs.map(|limb| limb & MASK);
    [low[0] + 19 * high[4], low[1] + high[0], low[2] + high[1], low[3] + high[2], low[4] + high[3]]
}

/// Replaces every value by its inverse, zero by zero: one exponentiation for all (Montgomery).
pub fn invert_all(values: &mut [Field]) {
    let mut prefixes = Zeroizing::new(Vec::with_capacity(values.len()));
    let mut product = Field::ONE;
    for value in values.iter() {
        prefixes.push(product);
        product = product * Field::conditional_select(value, &Field::ONE, value.is_zero());
    }
    let mut inverse = product.invert();
    for (value, prefix) in values.iter_mut().zip(prefixes.iter()).rev() {
        let zero = value.is_zero();
        let rest = inverse * Field::conditional_select(value, &Field::ONE, zero);
        *value = Field::conditional_select(&(inverse * *prefix), &Field::ZERO, zero);
        inverse = rest;
    }
    product.zeroize();
    inverse.zeroize();
}

#[cfg(test)]
mod tests {
    use crypto_bigint::Uint;

    use super::*;

    type Wide = Uint<16>;

    fn value(field: &Field) -> Wide {
        let limbs = field.0.iter().rev();
        limbs.fold(Wide::ZERO, |sum, limb| sum.shl(51).wrapping_add(&Wide::from_u64(*limb)))
    }

    fn modulus() -> Wide {
        Wide::ONE.shl(255).wrapping_sub(&Wide::from_u64(19))
    }

    fn assert_is(field: Field, expected: Wide) {
        let expected = expected.rem_vartime(&modulus().to_nz().unwrap());
        assert_eq!(field.encode(), expected.to_le_bytes().as_ref()[..32]);
    }

    /// Limbs of every bound that the type's comment allows, and values around 0 and p.
    fn extremes() -> Vec<Field> {
        let p = [MASK - 18, MASK, MASK, MASK, MASK];
        let mut fields: Vec<_> = [0, 1, MASK, MASK + 1, (1 << 52) - 1, (1 << 53) - 76]
            .map(|limb| Field([limb; 5]))
            .into();
        fields.extend([Field::ONE, Field(p), Field([p[0] - 1, MASK, MASK, MASK, MASK])]);
        fields.extend([Field([p[0] + 1, MASK, MASK, MASK, MASK]), Field::SQRT_MINUS_ONE]);
        fields
    }

    #[test]
    fn agrees_with_big_integers_on_extreme_limbs() {
        for a in extremes() {
            assert_is(a, value(&a));
            assert_is(a.square(), value(&a).wrapping_mul(&value(&a)));
            assert_is(a.times_small(u32::MAX), value(&a).wrapping_mul(&Wide::from_u32(u32::MAX)));
            for b in extremes() {
                assert_is(a * b, value(&a).wrapping_mul(&value(&b)));
                assert_is(a + b, value(&a).wrapping_add(&value(&b)));
                let raised = value(&a).wrapping_add(&modulus().shl(2));
                assert_is(a - b, raised.wrapping_sub(&value(&b)));
                // The largest factors there are: a sum and a difference.
                let product = value(&(a + b)).wrapping_mul(&value(&(a - b)));
                assert_is((a + b) * (a - b), product);
                let difference = value(&(a - b));
                assert_is((a - b).square(), difference.wrapping_mul(&difference));
            }
        }
    }

    #[test]
    fn inverses_and_their_zero() {
        for a in extremes() {
            let unit = !bool::from(a.is_zero());
            assert_is(a * a.invert(), Wide::from_u8(unit.into()));
        }
        let mut batch = extremes();
        invert_all(&mut batch);
        for (a, inverse) in extremes().iter().zip(batch) {
            assert_eq!(a.invert().encode(), inverse.encode());
        }
        assert_is(Field::SQRT_MINUS_ONE.square() + Field::ONE, Wide::ZERO);
    }

    #[test]
    fn decodes_only_canonical_bytes() {
        let bytes = |wide: Wide| wide.to_le_bytes().as_ref()[..32].try_into().unwrap();
        for excess in 0..20 {
            assert!(
                Field::decode(&bytes(modulus().wrapping_add(&Wide::from_u8(excess)))).is_none()
            );
        }
        assert!(Field::decode(&bytes(Wide::ONE.shl(255))).is_none());
        assert!(Field::decode(&[0xff; 32]).is_none());
        let largest = modulus().wrapping_sub(&Wide::ONE);
        assert_is(Field::decode(&bytes(largest)).unwrap(), largest);
    }

    #[test]
    fn reduces_48_bytes() {
        for byte in [0, 1, 0x7f, 0x80, 0xff] {
            let bytes = [byte; 48];
            let expected = bytes
                .iter()
                .fold(Wide::ZERO, |sum, byte| sum.shl(8).wrapping_add(&Wide::from_u8(*byte)));
            assert_is(Field::from_be_48(&bytes), expected);
        }
    }
}
