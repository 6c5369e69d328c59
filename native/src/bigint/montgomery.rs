//! Arithmetic modulo an odd number in Montgomery form: x stands as xR, R = 2^(64 * limbs).

#[cfg(target_arch = "x86_64")]
use crate::bigint::adx;
use crate::bigint::{Limbs, below, choose, multiply, remainder, subtract, zeros};

/// Bits of an exponent taken at a time. All of the table is read each time.
const WINDOW: usize = 4;

pub struct Modulus {
    limbs: Limbs,
    /// -1/m modulo 2^64.
    negative_inverse: u64,
    /// R and R^2 modulo m.
    one: Limbs,
    r2: Limbs,
}

impl Modulus {
    /// An odd number of any length.
    pub fn new(limbs: &[u64]) -> Self {
        assert!(limbs[0] & 1 == 1, "Montgomery form needs an odd modulus");
        // Newton: every step doubles the low bits that are right; m itself has three of them.
        let inverse = (0..5)
            .fold(limbs[0], |x, _| x.wrapping_mul(2u64.wrapping_sub(limbs[0].wrapping_mul(x))));
        let mut r = zeros(limbs.len() + 1);
        r[limbs.len()] = 1;
        let one = remainder(&r, limbs);
        let r2 = remainder(&multiply(&one, &one), limbs);
        Self { limbs: limbs.to_vec().into(), negative_inverse: inverse.wrapping_neg(), one, r2 }
    }

    pub fn len(&self) -> usize {
        self.limbs.len()
    }

    pub fn limbs(&self) -> &[u64] {
        &self.limbs
    }

    /// 1 in Montgomery form.
    pub fn one(&self) -> &[u64] {
        &self.one
    }

    /// out = ab/R modulo m, for a below R and b below m.
    pub fn multiply(&self, a: &[u64], b: &[u64], out: &mut [u64]) {
        out[..self.len()].fill(0);
        let top = self.add_product(Some((a, b)), out, 0, |_, _| ());
        // The sum is below 2m.
        self.subtract_if_above(top, out);
    }

    /// (ab + number + quotient * m)/R, without reduction, or the same without ab. The number before
    /// and after is `out` and a limb above. `digit` is told the quotient, limb by limb.
    #[inline(always)]
    pub(super) fn add_product(
        &self,
        factors: Option<(&[u64], &[u64])>,
        out: &mut [u64],
        top: u64,
        digit: impl FnMut(usize, u64),
    ) -> u64 {
        #[cfg(target_arch = "x86_64")]
        if adx::available() {
            return self.add_product_by_rows(factors, out, top, digit);
        }
        self.add_product_anywhere(factors, out, top, digit)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn add_product_by_rows(
        &self,
        factors: Option<(&[u64], &[u64])>,
        out: &mut [u64],
        mut top: u64,
        mut digit: impl FnMut(usize, u64),
    ) -> u64 {
        let len = self.len();
        // Every two rows leave a limb of zero behind.
        let mut sums = zeros(2 * len);
        sums[..len].copy_from_slice(&out[..len]);
        for i in 0..len {
            let (row, above) = sums[i..].split_at_mut(len);
            // SAFETY: only called where these instructions are.
            let carry_a = match factors {
                Some((a, b)) => unsafe { adx::multiply_add_row(row, &a[..len], b[i]) },
                None => 0,
            };
            let quotient = row[0].wrapping_mul(self.negative_inverse);
            digit(i, quotient);
            let carry_m = unsafe { adx::multiply_add_row(row, &self.limbs, quotient) };
            let sum = u128::from(top) + u128::from(carry_a) + u128::from(carry_m);
            above[0] = sum as u64;
            top = (sum >> 64) as u64;
        }
        out[..len].copy_from_slice(&sums[len..]);
        top
    }

    /// Multiplication and reduction advance together, one limb of b at a time: two chains of
    /// carries that do not wait for each other.
    #[inline(always)]
    fn add_product_anywhere(
        &self,
        factors: Option<(&[u64], &[u64])>,
        out: &mut [u64],
        mut top: u64,
        mut digit: impl FnMut(usize, u64),
    ) -> u64 {
        let m: &[u64] = &self.limbs;
        let len = m.len();
        let (a, b) = factors.unwrap_or((m, m));
        let (a, b, out) = (&a[..len], &b[..len], &mut out[..len]);
        for (i, limb) in b.iter().enumerate() {
            let (mut sum, mut carry_a) = (out[0], 0);
            if factors.is_some() {
                (sum, carry_a) = a[0].carrying_mul_add(*limb, sum, 0);
            }
            let quotient = sum.wrapping_mul(self.negative_inverse);
            digit(i, quotient);
            let (_, mut carry_m) = quotient.carrying_mul_add(m[0], sum, 0);
            for j in 1..len {
                let mut sum = out[j];
                if factors.is_some() {
                    (sum, carry_a) = a[j].carrying_mul_add(*limb, sum, carry_a);
                }
                (out[j - 1], carry_m) = quotient.carrying_mul_add(m[j], sum, carry_m);
            }
            let sum = u128::from(top) + u128::from(carry_a) + u128::from(carry_m);
            out[len - 1] = sum as u64;
            top = (sum >> 64) as u64;
        }
        top
    }

    /// Subtracts m from `x` and the limb above it if they are not below m. Returns the limb above
    /// as it is then, and whether there was anything to subtract.
    pub(super) fn subtract_if_above(&self, top: u64, x: &mut [u64]) -> (u64, bool) {
        let keep = (top == 0) & below(x, &self.limbs);
        let mask = std::hint::black_box(u64::from(keep)).wrapping_sub(1);
        let mut borrow = false;
        for (x, m) in x.iter_mut().zip(self.limbs.iter()) {
            (*x, borrow) = x.borrowing_sub(m & mask, borrow);
        }
        (top - u64::from(borrow), !keep)
    }

    /// out = a - b modulo m, both below m.
    pub fn subtract(&self, a: &[u64], b: &[u64], out: &mut [u64]) {
        out.copy_from_slice(a);
        let mask = u64::from(subtract(out, b)).wrapping_neg();
        let mut carry = false;
        for (x, m) in out.iter_mut().zip(self.limbs.iter()) {
            (*x, carry) = x.carrying_add(m & mask, carry);
        }
    }

    pub fn product(&self, a: &[u64], b: &[u64]) -> Limbs {
        let mut out = zeros(self.len());
        self.multiply(a, b, &mut out);
        out
    }

    /// Montgomery form of a number below R.
    pub fn enter(&self, x: &[u64]) -> Limbs {
        self.product(x, &self.r2)
    }

    /// x^exponent in Montgomery form, by windows of fixed length: constant time in the exponent but
    /// for its number of limbs.
    pub fn power(&self, x: &[u64], exponent: &[u64]) -> Limbs {
        let len = self.len();
        let mut powers = zeros(len << WINDOW);
        powers[..len].copy_from_slice(&self.one);
        for i in 1..1 << WINDOW {
            let (known, rest) = powers.split_at_mut(i * len);
            self.multiply(&known[(i - 1) * len..], x, &mut rest[..len]);
        }
        let bit = |i: usize| match exponent.get(i / 64) {
            Some(limb) => (limb >> (i % 64)) as usize & 1,
            None => 0,
        };
        let mut result = self.one.clone();
        let (mut factor, mut next) = (zeros(len), zeros(len));
        for window in (0..(64 * exponent.len()).div_ceil(WINDOW)).rev() {
            for _ in 0..WINDOW {
                self.multiply(&result, &result, &mut next);
                std::mem::swap(&mut result, &mut next);
            }
            let digit = (0..WINDOW).rev().fold(0, |digit, i| digit << 1 | bit(window * WINDOW + i));
            choose(&powers, digit, &mut factor);
            self.multiply(&result, &factor, &mut next);
            std::mem::swap(&mut result, &mut next);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bigint::{fill_below, inverse};

    /// The sizes of p, p^2 and n^2 for keys of 1024 to 3072 bits.
    const SIZES: [usize; 7] = [8, 16, 24, 32, 48, 64, 96];

    /// The smallest and the largest modulus of full length, and one that is not of full length.
    fn moduli(len: usize) -> [Vec<u64>; 3] {
        let mut smallest = vec![0; len];
        smallest[0] = 1;
        smallest[len - 1] = 1 << 63;
        let mut short = vec![u64::MAX; len];
        short[len - 1] = 1;
        [smallest, vec![u64::MAX; len], short]
    }

    /// 0, 1, m - 1, one at random, in this order; all below m.
    fn operands(m: &[u64]) -> [Vec<u64>; 4] {
        let mut one = vec![0; m.len()];
        one[0] = 1;
        let mut largest = m.to_vec();
        largest[0] -= 1;
        let mut random = vec![0; m.len()];
        fill_below(m, &mut random);
        [vec![0; m.len()], one, largest, random]
    }

    #[test]
    fn multiplies_and_subtracts_extreme_operands() {
        for m in SIZES.into_iter().flat_map(moduli) {
            let modulus = Modulus::new(&m);
            let r_inverse = inverse(modulus.one(), &m).unwrap();
            let all_ones = vec![u64::MAX; m.len()];
            for b in operands(&m) {
                for a in operands(&m).iter().chain([&all_ones]) {
                    let expected =
                        remainder(&multiply(&remainder(&multiply(a, &b), &m), &r_inverse), &m);
                    assert_eq!(modulus.product(a, &b), expected);
                }
                for a in operands(&m) {
                    let mut difference = zeros(m.len());
                    modulus.subtract(&a, &b, &mut difference);
                    let mut sum = zeros(m.len());
                    let mut negated = zeros(m.len());
                    modulus.subtract(&zeros(m.len()), &b, &mut negated);
                    modulus.subtract(&difference, &negated, &mut sum);
                    assert_eq!(*sum, a);
                    assert!(below(&difference, &m));
                }
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn rows_agree_with_what_runs_anywhere() {
        if !adx::available() {
            return;
        }
        for m in SIZES.into_iter().chain([9, 18]).flat_map(moduli) {
            let modulus = Modulus::new(&m);
            let all_ones = vec![u64::MAX; m.len()];
            for number in operands(&m).iter().chain([&all_ones]) {
                let others = operands(&m);
                let factors = others.iter().map(|b| Some((number.as_slice(), b.as_slice())));
                for factors in factors.chain([None]) {
                    for top in [0, 1] {
                        let (mut rows, mut anywhere) = (number.clone(), number.clone());
                        let (mut quotient, mut expected) = (vec![], vec![]);
                        let above = [
                            modulus.add_product_by_rows(factors, &mut rows, top, |i, limb| {
                                quotient.push((i, limb));
                            }),
                            modulus.add_product_anywhere(factors, &mut anywhere, top, |i, limb| {
                                expected.push((i, limb));
                            }),
                        ];
                        assert_eq!((above[0], rows, quotient), (above[1], anywhere, expected));
                    }
                }
            }
        }
    }

    #[test]
    fn enters_and_leaves() {
        for m in SIZES.into_iter().flat_map(moduli) {
            let modulus = Modulus::new(&m);
            for a in operands(&m) {
                let mut one = zeros(m.len());
                one[0] = 1;
                assert_eq!(*modulus.product(&modulus.enter(&a), &one), a);
            }
        }
    }

    #[test]
    fn powers_are_repeated_products() {
        let m = &moduli(8)[1];
        let modulus = Modulus::new(m);
        for x in operands(m).map(|x| modulus.enter(&x)) {
            let mut power: Limbs = modulus.one().to_vec().into();
            for exponent in 0..100 {
                assert_eq!(modulus.power(&x, &[exponent, 0]), power);
                power = modulus.product(&power, &x);
            }
            // x^(2^64 + 1) = (x^(2^63))^2 x
            let root = modulus.power(&x, &[1 << 63]);
            let expected = modulus.product(&modulus.product(&root, &root), &x);
            assert_eq!(modulus.power(&x, &[1, 1]), expected);
        }
    }
}
