//! Blocks of `curve::multiply` in lanes. The formulas are those of the portable path.

use std::hint::black_box;

use zeroize::{Zeroize, Zeroizing};

use super::field25519::{Factor, Fixed, Lifted, Product};
use super::lanes::{LANES, Mask};
use crate::curve::A;
use crate::field25519::{self, Field};
use crate::scalar::Scalar;

/// Eight u-coordinates x/z.
#[derive(Clone, Copy, Zeroize)]
pub struct Projective {
    pub x: Product,
    pub z: Product,
}

/// # Safety
/// The processor must have what `cpu::has_ifma` asks for.
#[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
pub unsafe fn multiply_block(points: &[[u8; 32]], scalar: &Scalar, out: &mut [[u8; 32]]) {
    let mut products = Zeroizing::new(Vec::with_capacity(points.len().div_ceil(LANES)));
    for rows in points.chunks(LANES) {
        let mut words = [[0; 4]; LANES];
        for (words, row) in words.iter_mut().zip(rows) {
            *words = std::array::from_fn(|k| u64::from_le_bytes(row.as_chunks().0[k]));
        }
        let (u, canonical) = Factor::decode(&words);
        let zero = Product::zero().factor();
        products.push(ladder(&Factor::select(canonical, &u, &zero), scalar));
    }
    encode_all(&products, out);
}

/// The Montgomery ladder of `curve::ladder`. A scalar is a multiple of 8: its last three bits are
/// doublings.
#[inline]
#[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
fn ladder(u: &Factor, scalar: &Scalar) -> Projective {
    let u1 = Fixed::new(*u);
    // Twice one of the two points of the ladder, x2/z2, and their sum, x3/z3.
    let (mut x2, mut z2) = (Lifted::new(&Product::small(1)), Product::zero());
    let (mut x3, mut z3) = (Lifted::new(&u.product()), Product::small(1));
    let mut last = 0;
    for i in (3..256).rev() {
        let bit = scalar.as_bytes()[i / 8] >> (i % 8) & 1;
        let swap = all_if(bit ^ last);
        last = bit;

        let (a, b) = (x2.plus(&z2), x2.minus(&z2));
        let (c, d) = (x3.plus(&z3), x3.minus(&z3));
        // The order is one that keeps the multipliers busy: of two hundred that were timed, among
        // the fastest. Exchanging the points changes at most the sign of da - cb.
        let (p, q) = (Factor::select(swap, &c, &a), Factor::select(swap, &d, &b));
        let (da, cb) = (d.times_lifted(&a), c.times(&b));
        let (bb, aa) = (q.square(), p.square_lifted());
        let difference = da.minus(&cb);
        let e = aa.minus(&bb);
        let square = difference.square().factor();
        let sum = da.plus(&cb);
        z3 = u1.times(&square);
        x2 = aa.product().factor().times_lifted(&bb.factor());
        let f = aa.product().plus_multiple(&e, (A - 2) / 4).factor();
        x3 = sum.square_lifted();
        z2 = e.times(&f);
    }
    let last = all_if(last);
    let mut product = Projective {
        x: Product::select(last, x3.product(), x2.product()),
        z: Product::select(last, &z3, &z2),
    };
    for _ in 0..3 {
        product = product.double();
    }
    product
}

/// Every lane if `bit` is 1, else none; the compiler cannot know that there are only two cases.
#[inline]
#[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
fn all_if(bit: u8) -> Mask {
    black_box(bit.wrapping_neg())
}

impl Projective {
    #[inline]
    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    pub fn double(&self) -> Self {
        let (aa, bb) = (self.x.plus(&self.z).square(), self.x.minus(&self.z).square());
        let e = aa.minus(&bb);
        Self {
            x: aa.factor().times(&bb.factor()),
            z: e.times(&aa.plus_multiple(&e, (A - 2) / 4).factor()),
        }
    }
}

/// The affine coordinates as bytes; zero for the neutral element. Lane by lane as
/// `field25519::invert_all`, which inverts the last eight products.
#[inline]
#[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
pub fn encode_all(points: &[Projective], out: &mut [[u8; 32]]) {
    let one = Factor::small(1);
    let mut prefixes = Zeroizing::new(Vec::with_capacity(points.len()));
    let mut product = one;
    for point in points {
        prefixes.push(product);
        let z = point.z.factor();
        product = product.times(&Factor::select(z.is_zero(), &one, &z)).factor();
    }
    let mut inverse = invert(&product);
    for ((point, prefix), out) in
        points.iter().zip(prefixes.iter()).zip(out.chunks_mut(LANES)).rev()
    {
        let z = point.z.factor();
        let zero = z.is_zero();
        let own = inverse.times(prefix).factor().times(&point.x.factor());
        inverse = inverse.times(&Factor::select(zero, &one, &z)).factor();
        let own = Product::select(zero, &Product::zero(), &own).factor();
        for (words, bytes) in own.encode().iter().zip(out) {
            *bytes = words.map(u64::to_le_bytes).as_flattened().try_into().unwrap();
        }
    }
    product.zeroize();
    inverse.zeroize();
}

#[inline]
#[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
fn invert(factor: &Factor) -> Factor {
    let mut fields = Zeroizing::new(factor.encode().map(Field::from_words));
    field25519::invert_all(&mut *fields);
    Factor::decode(&fields.each_ref().map(Field::words)).0
}
