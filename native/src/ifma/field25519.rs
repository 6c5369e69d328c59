//! Integers modulo p = 2^255 - 19, eight at a time, in five limbs of 52 bits, constant time.
//!
//! The multiply-add instructions take the low 52 bits of each factor and ignore the others. Two
//! types keep that safe: a `Factor` has been carried and may be multiplied; a `Product` has not, and
//! may be added to or subtracted from another one, which carries again. A third, `Lifted`, is a
//! product that begins at a multiple of p: what is subtracted from it costs no addition.

use zeroize::Zeroize;

use super::lanes::*;

/// The bits of the top limb below 2^255.
const TOP: u64 = (1 << 47) - 1;
const P: [u64; 5] = [LIMB - 18, LIMB, LIMB, LIMB, TOP];

/// Limbs 0 to 3 count modulo 2^52, what they have above that is noise; limb 4 is below
/// 2^47 + 2^12. The value is below 2p.
#[derive(Clone, Copy, Zeroize)]
pub struct Factor([Lanes; 5]);

/// Limbs that count whole: 0 to 3 below 1880 * 2^52, limb 4 below 58 * 2^52.
#[derive(Clone, Copy, Zeroize)]
pub struct Product([Lanes; 5]);

/// A product plus 352p, no limb of which is below one of a single multiplication.
#[derive(Clone, Copy, Zeroize)]
pub struct Lifted(Product);

const LIFT: u64 = 352;

/// Lane i of word k is word k of number i: 64-bit words, the least significant first.
#[inline]
#[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
fn transpose<const WORDS: usize>(numbers: &[[u64; WORDS]; LANES]) -> [Lanes; WORDS] {
    std::array::from_fn(|k| load(std::array::from_fn(|i| numbers[i][k])))
}

/// From ten columns of products (limb k counts 2^52k) to five.
///
/// The columns of a product, in units of 2^52 and rounded up, have at most
/// [1, 3, 5, 7, 9, 7.1, 5.1, 3.1, 1.1, 0.01]. Columns 5 to 9 count 2^260 = 608 modulo p; they are
/// carried first, so that each is a factor. The result has at most [2, 4.1, 6.1, 8.1, 10.1]; of the
/// last column, high(a4 b4) and a carry, 608 times as much is below 2^52.
#[inline]
#[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
fn fold(mut columns: [Lanes; 10]) -> Product {
    for k in 5..9 {
        columns[k + 1] = plus(columns[k + 1], right::<BITS>(columns[k]));
    }
    let factor = splat(608);
    for k in 0..5 {
        columns[k] = low(columns[k], columns[k + 5], factor);
    }
    for k in 0..4 {
        columns[k + 1] = high(columns[k + 1], columns[k + 5], factor);
    }
    let [c0, c1, c2, c3, c4, ..] = columns;
    Product([c0, c1, c2, c3, c4])
}

/// Limbs below 2^64 - 2^22 that count whole, to a factor.
#[inline]
#[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
fn carry(limbs: [Lanes; 5]) -> Factor {
    let [x0, x1, x2, x3, x4] = limbs;
    // 2^255 = 19; what is above is below 2^17.
    let x0 = low(x0, right::<47>(x4), splat(19));
    let x1 = plus(x1, right::<BITS>(x0));
    let x2 = plus(x2, right::<BITS>(x1));
    let x3 = plus(x3, right::<BITS>(x2));
    let x4 = plus(and(x4, TOP), right::<BITS>(x3));
    Factor([x0, x1, x2, x3, x4])
}

impl Product {
    #[inline]
    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    pub fn zero() -> Self {
        Self([splat(0); 5])
    }

    /// `value` in every lane.
    #[inline]
    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    pub fn small(value: u32) -> Self {
        let mut limbs = Self::zero().0;
        limbs[0] = splat(value.into());
        Self(limbs)
    }

    #[inline]
    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    pub fn factor(&self) -> Factor {
        carry(self.0)
    }

    #[inline]
    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    pub fn plus(&self, other: &Self) -> Factor {
        carry(std::array::from_fn(|k| plus(self.0[k], other.0[k])))
    }

    /// Adds 1880p first, no limb of which is below one of a product.
    #[inline]
    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    pub fn minus(&self, other: &Self) -> Factor {
        carry(std::array::from_fn(|k| minus(plus(self.0[k], splat(1880 * P[k])), other.0[k])))
    }

    /// self + other * factor: adds less than 2 * 2^52 to a limb, so that three of these leave the
    /// result of a multiplication a product.
    #[inline]
    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    pub fn plus_multiple(&self, other: &Factor, factor: u32) -> Self {
        let mut limbs = self.0;
        let factor = splat(factor.into());
        for (limb, multiplied) in limbs.iter_mut().zip(&other.0) {
            *limb = low(*limb, *multiplied, factor);
        }
        for k in 0..4 {
            limbs[k + 1] = high(limbs[k + 1], other.0[k], factor);
        }
        let past_top = high(splat(0), other.0[4], factor);
        limbs[0] = low(limbs[0], past_top, splat(608));
        Self(limbs)
    }

    #[inline]
    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    pub fn select(choice: Mask, yes: &Self, no: &Self) -> Self {
        Self(std::array::from_fn(|k| select(choice, yes.0[k], no.0[k])))
    }
}

impl Lifted {
    #[inline]
    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    pub fn new(product: &Product) -> Self {
        Self(Product(std::array::from_fn(|k| plus(product.0[k], splat(LIFT * P[k])))))
    }

    /// The same modulo p.
    #[inline]
    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    pub fn product(&self) -> &Product {
        &self.0
    }

    #[inline]
    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    pub fn plus(&self, other: &Product) -> Factor {
        self.0.plus(other)
    }

    /// Of `other` the limbs have at most 10.1 times 2^52, as those of a product of two factors.
    #[inline]
    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    pub fn minus(&self, other: &Product) -> Factor {
        carry(std::array::from_fn(|k| minus(self.0.0[k], other.0[k])))
    }
}

impl Factor {
    #[inline]
    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    pub fn small(value: u32) -> Self {
        Product::small(value).factor()
    }

    /// A square root of -1, as `Field::SQRT_MINUS_ONE`.
    #[inline]
    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    pub fn sqrt_minus_one() -> Self {
        Self([
            splat(0x000e_1b27_4a0e_a0b0),
            splat(0x0000_6ad2_fe47_8c4e),
            splat(0x000d_fbd7_a72f_4318),
            splat(0x000d_f0b2_b4d0_0993),
            splat(0x0000_2b83_2480_4fc1),
        ])
    }

    /// 256-bit numbers, and whether each is below p.
    #[inline]
    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    pub fn decode(numbers: &[[u64; 4]; LANES]) -> (Self, Mask) {
        let [a, b, c, d] = transpose(numbers);
        let limbs = Product([
            and(a, LIMB),
            and(or(right::<52>(a), left::<12>(b)), LIMB),
            and(or(right::<40>(b), left::<24>(c)), LIMB),
            and(or(right::<28>(c), left::<36>(d)), LIMB),
            right::<16>(d),
        ]);
        (limbs.factor(), equal(at_least_p(&limbs.0), 0))
    }

    /// The representatives below p as 256-bit numbers.
    #[inline]
    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    pub fn encode(&self) -> [[u64; 4]; LANES] {
        let mut x = self.product().0;
        let excess = at_least_p(&x);
        x[0] = low(x[0], excess, splat(19));
        for k in 0..4 {
            x[k + 1] = plus(x[k + 1], right::<BITS>(x[k]));
            x[k] = and(x[k], LIMB);
        }
        x[4] = and(x[4], TOP);
        let words = [
            store(or(x[0], left::<52>(x[1]))),
            store(or(right::<12>(x[1]), left::<40>(x[2]))),
            store(or(right::<24>(x[2]), left::<28>(x[3]))),
            store(or(right::<36>(x[3]), left::<16>(x[4]))),
        ];
        std::array::from_fn(|i| words.map(|word| word[i]))
    }

    /// 384-bit numbers modulo p.
    #[inline]
    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    pub fn reduce(numbers: &[[u64; 6]; LANES]) -> Self {
        let [a, b, c, d, e, f] = transpose(numbers);
        let or = |x, y| and(or(x, y), LIMB);
        let [l5, l6, l7] =
            [and(right::<4>(e), LIMB), or(right::<56>(e), left::<8>(f)), right::<44>(f)];
        carry([
            plus(and(a, LIMB), multiply(l5, 608)),
            plus(or(right::<52>(a), left::<12>(b)), multiply(l6, 608)),
            plus(or(right::<40>(b), left::<24>(c)), multiply(l7, 608)),
            or(right::<28>(c), left::<36>(d)),
            or(right::<16>(d), left::<48>(e)),
        ])
    }

    /// Without the noise.
    #[inline]
    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    pub fn product(&self) -> Product {
        let [x0, x1, x2, x3, x4] = self.0;
        Product([and(x0, LIMB), and(x1, LIMB), and(x2, LIMB), and(x3, LIMB), x4])
    }

    #[inline]
    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    pub fn negate(&self) -> Self {
        Product::zero().minus(&self.product())
    }

    #[inline]
    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    pub fn times(&self, other: &Self) -> Product {
        self.times_plus(other, [splat(0); 5])
    }

    #[inline]
    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    pub fn times_lifted(&self, other: &Self) -> Lifted {
        Lifted(self.times_plus(other, P.map(|limb| splat(LIFT * limb))))
    }

    #[inline]
    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    fn times_plus(&self, other: &Self, addend: [Lanes; 5]) -> Product {
        let (a, b) = (&self.0, &other.0);
        let mut columns = [splat(0); 10];
        columns[..5].copy_from_slice(&addend);
        for i in 0..5 {
            for j in 0..5 {
                columns[i + j] = low(columns[i + j], a[i], b[j]);
                columns[i + j + 1] = high(columns[i + j + 1], a[i], b[j]);
            }
        }
        fold(columns)
    }

    #[inline]
    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    pub fn square(&self) -> Product {
        self.square_plus([0; 5])
    }

    #[inline]
    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    pub fn square_lifted(&self) -> Lifted {
        Lifted(self.square_plus(P.map(|limb| LIFT * limb)))
    }

    /// The columns of `times`; products of different limbs count twice. Those of the first four are
    /// doubled as columns, 1 to 6, and of the top limb, which has bits to spare, the limb is.
    /// addend: even.
    #[inline]
    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    fn square_plus(&self, addend: [u64; 5]) -> Product {
        let a = &self.0;
        let mut columns = [splat(0); 10];
        columns[0] = splat(addend[0]);
        for k in 1..5 {
            columns[k] = splat(addend[k] / 2);
        }
        for i in 0..4 {
            for j in i + 1..4 {
                columns[i + j] = low(columns[i + j], a[i], a[j]);
                columns[i + j + 1] = high(columns[i + j + 1], a[i], a[j]);
            }
        }
        for column in &mut columns[1..7] {
            *column = plus(*column, *column);
        }
        let twice = plus(a[4], a[4]);
        for i in 0..4 {
            columns[i + 4] = low(columns[i + 4], a[i], twice);
            columns[i + 5] = high(columns[i + 5], a[i], twice);
        }
        for i in 0..5 {
            columns[2 * i] = low(columns[2 * i], a[i], a[i]);
            columns[2 * i + 1] = high(columns[2 * i + 1], a[i], a[i]);
        }
        fold(columns)
    }

    #[inline]
    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    pub fn times_small(&self, factor: u32) -> Product {
        Product::zero().plus_multiple(self, factor)
    }

    #[inline]
    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    pub fn select(choice: Mask, yes: &Self, no: &Self) -> Self {
        Self(std::array::from_fn(|k| select(choice, yes.0[k], no.0[k])))
    }

    #[inline]
    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    pub fn is_zero(&self) -> Mask {
        let x = self.product().0;
        let is = |value: [u64; 5]| (0..5).fold(!0, |all, k| all & equal(x[k], value[k]));
        is([0; 5]) | is(P)
    }

    #[inline]
    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    pub fn equals(&self, other: &Self) -> Mask {
        self.product().minus(&other.product()).is_zero()
    }

    /// sgn0 of RFC 9380: the lowest bit of the value below p.
    #[inline]
    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    pub fn is_odd(&self) -> Mask {
        let x = self.product().0;
        equal(and(plus(x[0], at_least_p(&x)), 1), 1)
    }
}

/// 1 where the value is at least p, for limbs below 2^52 and values below 2p; more than 0 for any
/// top limb: adding 19 passes 2^255.
#[inline]
#[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
fn at_least_p(x: &[Lanes; 5]) -> Lanes {
    let mut carried = right::<BITS>(plus(x[0], splat(19)));
    for limb in &x[1..4] {
        carried = right::<BITS>(plus(*limb, carried));
    }
    right::<47>(plus(x[4], carried))
}

/// A factor of many products: the rows are 2^52i times its value modulo p, so that a product has no
/// upper columns.
#[derive(Clone, Copy, Zeroize)]
pub struct Fixed([Factor; 5]);

impl Fixed {
    #[inline]
    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    pub fn new(factor: Factor) -> Self {
        let mut rows = [factor; 5];
        for i in 1..5 {
            let [x0, x1, x2, x3, x4] = rows[i - 1].product().0;
            rows[i] = carry([multiply(x4, 608), x0, x1, x2, x3]);
        }
        Self(rows)
    }

    /// Column 5 has only halves of products with top limbs, less than 2^50.
    #[inline]
    #[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
    pub fn times(&self, other: &Factor) -> Product {
        let mut columns = [splat(0); 6];
        for i in 0..5 {
            for j in 0..5 {
                columns[j] = low(columns[j], other.0[i], self.0[i].0[j]);
                columns[j + 1] = high(columns[j + 1], other.0[i], self.0[i].0[j]);
            }
        }
        let [c0, c1, c2, c3, c4, c5] = columns;
        Product([low(c0, c5, splat(608)), high(c1, c5, splat(608)), c2, c3, c4])
    }
}
