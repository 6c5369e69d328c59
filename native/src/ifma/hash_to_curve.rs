//! Blocks of `hash_to_curve::hash` in lanes, from the expanded messages on. The formulas are those
//! of the portable path.

use zeroize::Zeroizing;

use super::curve25519::{Projective, encode_all};
use super::field25519::{Factor, Product};
use super::lanes::LANES;
use crate::curve::A;

/// # Safety
/// The processor must have what `cpu::has_ifma` asks for.
#[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
pub unsafe fn hash_block(uniform: &[[u8; 96]], out: &mut [[u8; 32]]) {
    let mut points = Zeroizing::new(Vec::with_capacity(uniform.len().div_ceil(LANES)));
    for rows in uniform.chunks(LANES) {
        points.push(hash(&hash_to_field(rows)));
    }
    encode_all(&points, out);
}

/// Two elements for each row, from big-endian words.
#[inline]
#[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
fn hash_to_field(rows: &[[u8; 96]]) -> [Factor; 2] {
    let mut numbers = [[[0; 6]; LANES]; 2];
    for (i, row) in rows.iter().enumerate() {
        let (words, _) = row.as_chunks();
        for k in 0..6 {
            numbers[0][i][k] = u64::from_be_bytes(words[5 - k]);
            numbers[1][i][k] = u64::from_be_bytes(words[11 - k]);
        }
    }
    [Factor::reduce(&numbers[0]), Factor::reduce(&numbers[1])]
}

#[inline]
#[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
fn hash(r: &[Factor; 2]) -> Projective {
    let fractions = [Fraction::new(&r[0]), Fraction::new(&r[1])];
    let powers = powers_p58(&[fractions[0].nd21, fractions[1].nd21]);
    let [left, right] =
        [fractions[0].point(&r[0], &powers[0]), fractions[1].point(&r[1], &powers[1])];
    // Times the cofactor.
    add(&left, &right).double().double().double()
}

/// g(x1) = n/d^3 of `hash_to_curve::map_to_curve`.
struct Fraction {
    t: Factor,
    d: Factor,
    d3: Factor,
    n: Factor,
    nd9: Factor,
    nd21: Factor,
}

impl Fraction {
    #[inline]
    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    fn new(r: &Factor) -> Self {
        let r2 = r.square();
        let t = r2.plus(&r2);
        let d = t.product().plus(&Product::small(1));
        let d2 = d.square();
        let d3 = d2.factor().times(&d).factor();
        let a2_t = t.times_small(A).factor().times_small(A);
        let n = a2_t.minus(&d2).times_small(A).factor();
        let d6 = d3.square().factor();
        let nd9 = n.times(&d3).factor().times(&d6).factor();
        let nd21 = nd9.times(&d6.square().factor()).factor();
        Self { t, d, d3, n, nd9, nd21 }
    }

    /// The point from nd21^((p-5)/8). With q = w^2 d^3 and i a root of -1:
    ///
    /// q = n or -n: the first candidate; its root is w or iw.
    /// q = -in or in: the second candidate, t n/d^3; its root is w r (1 + i) or i times that, as
    /// (r (1 + i))^2 = it.
    #[inline]
    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    fn point(&self, r: &Factor, power: &Factor) -> Point {
        let i = Factor::sqrt_minus_one();
        let w = self.nd9.times(power).factor();
        let q = w.square().factor().times(&self.d3).factor();
        let minus_n = q.equals(&self.n.negate());
        let first = q.equals(&self.n) | minus_n;
        let turn = minus_n | q.equals(&self.n.times(&i).factor());

        let one_plus_i = Product::small(1).plus(&i.product());
        let second = w.times(r).factor().times(&one_plus_i).factor();
        let v = Factor::select(first, &w, &second);
        let v = Factor::select(turn, &v.times(&i).factor(), &v);
        // sgn0 is 1 for the first candidate, 0 for the second.
        let v = Factor::select(v.is_odd() ^ first, &v.negate(), &v);
        let minus_a = Factor::small(A).negate();
        let x = Factor::select(first, &minus_a, &self.t.times(&minus_a).factor());
        Point { x, z: self.d, v }
    }
}

/// Affine v, u = x/z.
struct Point {
    x: Factor,
    z: Factor,
    v: Factor,
}

/// As `hash_to_curve::add`.
#[inline]
#[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
fn add(left: &Point, right: &Point) -> Projective {
    let (xz, zx) = (left.x.times(&right.z), left.z.times(&right.x));
    let zz = left.z.times(&right.z).factor();
    let du = zx.minus(&xz);
    let dv = right.v.product().minus(&left.v.product());
    let du2 = du.square();
    let zz_dv = zz.times(&dv).factor();
    let sum = xz.plus_multiple(&zz, A).plus(&zx);
    let first = zz_dv.square().factor().times(&zz);
    let du2 = du2.factor();
    let x = first.minus(&du2.times(&sum));
    let equal = du.is_zero() & dv.is_zero();
    let double = Projective { x: left.x.product(), z: left.z.product() }.double();
    Projective {
        x: Product::select(equal, &double.x, &x.product()),
        z: Product::select(equal, &double.z, &du2.times(&zz)),
    }
}

/// x^((p-5)/8), the chain of `Field`. A square waits for the one before: two chains in turn fill
/// the wait.
#[inline]
#[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
fn powers_p58(x: &[Factor; 2]) -> [Factor; 2] {
    let times =
        |a: &[Factor; 2], b: &[Factor; 2]| [a[0].times(&b[0]).factor(), a[1].times(&b[1]).factor()];
    let x2 = square_times(x, 1);
    let x9 = times(&square_times(&x2, 2), x);
    let x11 = times(&x9, &x2);
    // ones_n = x^(2^n - 1)
    let ones_5 = times(&square_times(&x11, 1), &x9);
    let ones_10 = times(&square_times(&ones_5, 5), &ones_5);
    let ones_20 = times(&square_times(&ones_10, 10), &ones_10);
    let ones_40 = times(&square_times(&ones_20, 20), &ones_20);
    let ones_50 = times(&square_times(&ones_40, 10), &ones_10);
    let ones_100 = times(&square_times(&ones_50, 50), &ones_50);
    let ones_200 = times(&square_times(&ones_100, 100), &ones_100);
    let ones_250 = times(&square_times(&ones_200, 50), &ones_50);
    times(&square_times(&ones_250, 2), x)
}

#[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
fn square_times(x: &[Factor; 2], count: u32) -> [Factor; 2] {
    let mut x = *x;
    for _ in 0..count {
        x = [x[0].square().factor(), x[1].square().factor()];
    }
    x
}
