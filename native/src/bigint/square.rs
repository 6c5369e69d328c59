//! Numbers modulo the square of an odd m, many at a time.

use crate::bigint::batch::{Batch, Numbers, zeros};
use crate::bigint::{self, Limbs, divide, remainder};

/// Bits of an exponent taken at a time. All of the table is read each time.
const WINDOW: usize = 4;

pub struct Square<B: Batch> {
    /// Arithmetic modulo m and m^2.
    pub base: B,
    m: Limbs,
    /// m for every lane.
    modulus: Numbers<B>,
    one: Numbers<B>,
    /// R^2, R^3, ... up to what the longest number that enters needs.
    powers: Vec<Numbers<B>>,
}

impl<B: Batch> Square<B> {
    /// For numbers that enter with up to `digits` times the limbs of m.
    pub fn new(m: &[u64], digits: usize) -> Self {
        let base = B::new(m);
        let mut modulus = zeros::<B>(base.limbs());
        base.load(&m.repeat(B::WIDTH), m.len(), &mut modulus);
        let (m, one) = (m.to_vec().into(), zeros::<B>(0));
        let mut square = Self { base, m, modulus, one, powers: vec![] };
        square.one = square.power_of_r(1);
        square.powers = (2..digits + 2).map(|k| square.power_of_r(k)).collect();
        square
    }

    /// Limbs of a number modulo m^2.
    pub fn limbs(&self) -> usize {
        2 * self.base.limbs()
    }

    pub fn zeros(&self) -> Numbers<B> {
        zeros::<B>(self.limbs())
    }

    /// 1 in Montgomery form.
    pub fn one(&self) -> &[B::Limb] {
        &self.one
    }

    /// 1 as it is, a factor that takes away R.
    pub fn plain_one(&self) -> Numbers<B> {
        let mut one = self.zeros();
        self.base.load(&vec![1; B::WIDTH], 1, &mut one);
        one
    }

    /// R^exponent modulo m^2, as digits.
    pub fn power_of_r(&self, exponent: usize) -> Numbers<B> {
        self.constant(&remainder(&self.r(exponent), &bigint::multiply(&self.m, &self.m)))
    }

    /// R^exponent itself.
    fn r(&self, exponent: usize) -> Limbs {
        let bit = B::BITS * self.base.limbs() * exponent;
        let mut power = bigint::zeros(bit / 64 + 1);
        power[bit / 64] = 1 << (bit % 64);
        power
    }

    /// x R^exponent modulo m for every lane, as one digit.
    pub fn residue(&self, x: &[u64], exponent: usize) -> Numbers<B> {
        let residue = remainder(&bigint::multiply(x, &self.r(exponent)), &self.m);
        let mut out = zeros::<B>(self.base.limbs());
        let rows = Limbs::from(residue.repeat(B::WIDTH));
        self.base.load(&rows, self.m.len(), &mut out);
        out
    }

    /// m for every lane.
    pub fn modulus(&self) -> &[B::Limb] {
        &self.modulus
    }

    /// A number below m^2 for every lane, as digits.
    pub fn constant(&self, x: &[u64]) -> Numbers<B> {
        let (high, low) = divide(x, &self.m);
        let (mut out, columns) = (self.zeros(), self.m.len());
        for (digit, out) in [low, high].iter().zip(out.chunks_exact_mut(self.base.limbs())) {
            let rows = Limbs::from(digit[..columns].repeat(B::WIDTH));
            self.base.load(&rows, columns, out);
        }
        out
    }

    /// Montgomery form of numbers that are not in digits yet.
    pub fn enter(&self, x: &[B::Limb]) -> Numbers<B> {
        let (mut sum, mut part, mut term) = (self.zeros(), self.zeros(), self.zeros());
        for (x, power) in x.chunks(self.base.limbs()).zip(&self.powers) {
            part[..x.len()].copy_from_slice(x);
            self.base.multiply(&part, power, &mut term);
            self.base.add(&mut sum, &term);
        }
        sum
    }

    /// Digits of the numbers themselves, times those of `factor` that are not in Montgomery form.
    pub fn leave(&self, x: &[B::Limb], factor: &[B::Limb]) -> Numbers<B> {
        let mut out = self.product(x, factor);
        self.base.reduce(&mut out);
        out
    }

    /// The number of two reduced digits.
    pub fn join(&self, x: &[B::Limb]) -> Numbers<B> {
        let (low, high) = x.split_at(self.base.limbs());
        let mut out = self.zeros();
        self.base.multiply_add(high, &self.modulus, low, &mut out);
        out
    }

    /// -1 in Montgomery form.
    pub fn minus_one(&self) -> Numbers<B> {
        let mut digit = self.m.clone();
        digit[0] -= 1;
        let digits = Numbers::<B>::from(self.residue(&digit, 0).repeat(2));
        self.product(&digits, &self.powers[0])
    }

    pub fn product(&self, a: &[B::Limb], b: &[B::Limb]) -> Numbers<B> {
        let mut out = self.zeros();
        self.base.multiply(a, b, &mut out);
        out
    }

    /// Whether the number of the first lane, in Montgomery form, is 1.
    pub fn is_one(&self, x: &[B::Limb]) -> bool {
        let digits = self.leave(x, &self.plain_one());
        let mut row = bigint::zeros(self.base.stride());
        self.base.scatter(&digits, &mut row, &[0]);
        let (first, rest) = row.split_at(1);
        first == [1] && rest.iter().all(|limb| *limb == 0)
    }

    /// x^exponent in Montgomery form, by windows of fixed length: constant time in the exponent but
    /// for its number of limbs.
    pub fn power(&self, x: &[B::Limb], exponent: &[u64]) -> Numbers<B> {
        let limbs = self.limbs();
        let mut powers = zeros::<B>(limbs << WINDOW);
        powers[..limbs].copy_from_slice(&self.one);
        powers[limbs..2 * limbs].copy_from_slice(x);
        for i in 2..1 << WINDOW {
            let (known, rest) = powers.split_at_mut(i * limbs);
            self.base.multiply(&known[(i - 1) * limbs..], x, &mut rest[..limbs]);
        }
        let bit = |i: usize| match exponent.get(i / 64) {
            Some(limb) => (limb >> (i % 64)) as usize & 1,
            None => 0,
        };
        let mut result = self.one.clone();
        let (mut factor, mut next) = (self.zeros(), self.zeros());
        for window in (0..(64 * exponent.len()).div_ceil(WINDOW)).rev() {
            for _ in 0..WINDOW {
                self.base.square(&result, &mut next);
                std::mem::swap(&mut result, &mut next);
            }
            let digit = (0..WINDOW).rev().fold(0, |digit, i| digit << 1 | bit(window * WINDOW + i));
            self.base.choose(&powers, digit, &mut factor);
            self.base.multiply(&result, &factor, &mut next);
            std::mem::swap(&mut result, &mut next);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bigint::montgomery::Modulus;
    use crate::bigint::{add, fill_below, inverse, multiply, subtract};
    use crate::cpu::has_ifma;
    use crate::random;

    /// The lengths in limbs of p and n for keys of 1024 to 4096 bits.
    const SIZES: [usize; 7] = [8, 16, 18, 24, 32, 48, 64];

    /// The smallest odd number of full length, the largest, one between, and one that carries.
    fn moduli(len: usize) -> Vec<Limbs> {
        let mut smallest = bigint::zeros(len);
        (smallest[0], smallest[len - 1]) = (1, 1 << 63);
        let mut random = bigint::zeros(len);
        random::fill_limbs(&mut random);
        (random[0], random[len - 1]) = (random[0] | 1, random[len - 1] | 1 << 63);
        // (2^26 + 1)/2^52 modulo 2^52 and so on: all limbs of 52 bits but the lowest are full.
        let mut full = Limbs::from(vec![u64::MAX; len]);
        full[0] = 1;
        vec![smallest, random, full, vec![u64::MAX; len].into()]
    }

    fn minus(a: &[u64], b: &[u64]) -> Limbs {
        let mut difference = Limbs::from(a.to_vec());
        assert!(!subtract(&mut difference, &[b, &vec![0; a.len() - b.len()]].concat()));
        difference
    }

    /// Numbers below m^2 at the edges of both digits, and with full limbs of 52 bits.
    fn operands(m: &[u64]) -> Vec<Limbs> {
        let square = multiply(m, m);
        let one = |len| -> Limbs { add(&vec![0; len], 1) };
        let wide = |x: &[u64]| -> Limbs { [x, &vec![0; square.len() - x.len()]].concat().into() };
        let mut random = bigint::zeros(square.len());
        fill_below(&square, &mut random);
        let mut ones = bigint::zeros(square.len());
        for bit in 0..64 * square.len() - 12 {
            ones[bit / 64] |= u64::from(bit % 52 != 51) << (bit % 64);
        }
        let last = minus(&square, &one(1));
        vec![
            wide(&[]),
            wide(&[1]),
            wide(&minus(m, &[1])),
            wide(m),
            wide(&add(m, 1)),
            minus(&square, m),
            minus(&last, m),
            last,
            remainder(&ones, &square),
            remainder(&vec![u64::MAX; square.len()], &square),
            random,
        ]
    }

    /// All operands with each other, `WIDTH` at a time.
    fn agrees_with_integers<B: Batch>() {
        for m in SIZES.into_iter().flat_map(moduli) {
            let square = Square::<B>::new(&m, 4);
            let (m2, columns) = (multiply(&m, &m), 2 * m.len());
            let r = remainder(&square.r(1), &m2);
            let r_inverse = inverse(&r, &m2).unwrap();
            let times = |a: &[u64], b: &[u64]| remainder(&multiply(a, b), &m2);
            let load = |rows: &[Limbs]| {
                let rows: Vec<u64> = rows.iter().flat_map(|row| row.iter().copied()).collect();
                let mut out = square.zeros();
                square.base.load(&rows, columns, &mut out);
                out
            };
            let store = |digits: &[B::Limb], count: usize| {
                let mut reduced = Numbers::<B>::from(digits.to_vec());
                square.base.reduce(&mut reduced);
                let mut rows = vec![0; count * columns];
                square.base.store(&square.join(&reduced), &mut rows, columns);
                rows.chunks_exact(columns).map(|row| row.to_vec().into()).collect::<Vec<Limbs>>()
            };
            let operands = operands(&m);
            for shift in (0..operands.len()).step_by(1 + m.len() / 20) {
                let mut others = operands.clone();
                others.rotate_left(shift);
                for (a, b) in operands.chunks(B::WIDTH).zip(others.chunks(B::WIDTH)) {
                    let (x, y) = (load(a), load(b));
                    let pairs = || a.iter().zip(b);
                    let mut split = square.zeros();
                    square.base.split(&x, &mut split);
                    let expected: Vec<_> = a.iter().map(|a| times(a, &r_inverse)).collect();
                    assert_eq!(store(&split, a.len()), expected);

                    let (left, right) = (square.enter(&x), square.enter(&y));
                    let expected: Vec<_> = a.iter().map(|a| times(a, &r)).collect();
                    assert_eq!(store(&left, a.len()), expected);
                    let product = square.product(&left, &right);
                    let expected: Vec<_> = pairs().map(|(a, b)| times(a, b)).collect();
                    let plain = square.leave(&product, &square.plain_one());
                    assert_eq!(store(&plain, a.len()), expected);
                    // As large as factors may be: the sum of four.
                    let mut sums = [left, right, split];
                    for sum in &mut sums {
                        let once = sum.clone();
                        (0..3).for_each(|_| square.base.add(sum, &once));
                    }
                    let expected: Vec<_> =
                        pairs().map(|(a, b)| times(&times(a, b), &times(&r, &[16]))).collect();
                    assert_eq!(store(&square.product(&sums[0], &sums[1]), a.len()), expected);
                    let expected: Vec<_> =
                        a.iter().map(|a| times(&times(a, a), &times(&r, &[16]))).collect();
                    let mut squared = square.zeros();
                    square.base.square(&sums[0], &mut squared);
                    assert_eq!(store(&squared, a.len()), expected);
                    let expected: Vec<_> =
                        a.iter().map(|a| times(&times(a, &[4]), &r_inverse)).collect();
                    assert_eq!(store(&sums[2], a.len()), expected);
                }
            }
            let minus_one = store(&square.leave(&square.minus_one(), &square.plain_one()), 1);
            assert_eq!(minus_one[0], minus(&m2, &[1]));
            assert!(square.is_one(square.one()) && !square.is_one(&square.minus_one()));
        }
    }

    /// One digit: products, differences, and longer products of plain numbers.
    fn digits_agree_with_integers<B: Batch>() {
        for m in SIZES.into_iter().flat_map(moduli) {
            let square = Square::<B>::new(&m, 2);
            let (base, len) = (&square.base, m.len());
            let r_inverse = inverse(&remainder(&square.r(1), &m), &m).unwrap();
            let digit = |x: &[u64]| {
                let mut out = zeros::<B>(base.limbs());
                base.load(&x[..len].repeat(B::WIDTH), len, &mut out);
                out
            };
            let store = |x: &[B::Limb], columns: usize| {
                let mut rows = vec![0; B::WIDTH * columns];
                base.store(x, &mut rows, columns);
                let first = rows[..columns].to_vec();
                assert_eq!(first.repeat(B::WIDTH), rows);
                Limbs::from(first)
            };
            let operands: Vec<_> = operands(&m).iter().map(|x| remainder(x, &m)).collect();
            let ones = Limbs::from(vec![u64::MAX; len]);
            for b in &operands {
                for a in operands.iter().chain([&ones]) {
                    let mut out = zeros::<B>(base.limbs());
                    base.product(&digit(a), &digit(b), &mut out);
                    let expected = remainder(&multiply(a, b), &m);
                    assert_eq!(store(&out, len), remainder(&multiply(&expected, &r_inverse), &m));
                    let mut out = square.zeros();
                    base.multiply_add(&digit(a), &digit(b), &digit(&ones), &mut out);
                    let mut expected = bigint::zeros(2 * len);
                    bigint::multiply_add_to(a, b, &ones, &mut expected);
                    assert_eq!(store(&out, 2 * len), expected);
                }
                for a in &operands {
                    let mut out = zeros::<B>(base.limbs());
                    base.difference(&digit(a), &digit(b), &mut out);
                    let back = remainder(&bigint::multiply(&store(&out, len), &[1]), &m);
                    let mut sum = bigint::zeros(len + 1);
                    bigint::multiply_add_to(&back, &[1], b, &mut sum);
                    assert_eq!(remainder(&sum, &m), *a);
                    assert!(bigint::below(&store(&out, len), &m));
                }
            }
        }
    }

    fn powers_are_repeated_products<B: Batch>() {
        let m = &moduli(8)[1];
        let square = Square::<B>::new(m, 2);
        let x = square.constant(&operands(m)[10]);
        let reduced = |x: &[B::Limb]| {
            let x = square.leave(x, &square.plain_one());
            let mut row = vec![0; square.base.stride()];
            square.base.scatter(&x, &mut row, &[0]);
            row
        };
        let mut power = Numbers::<B>::from(square.one().to_vec());
        for exponent in 0..100 {
            assert_eq!(reduced(&square.power(&x, &[exponent, 0])), reduced(&power));
            power = square.product(&power, &x);
        }
        // x^(2^64 + 1) = (x^(2^63))^2 x
        let root = square.power(&x, &[1 << 63]);
        let expected = square.product(&square.product(&root, &root), &x);
        assert_eq!(reduced(&square.power(&x, &[1, 1])), reduced(&expected));
    }

    #[test]
    fn portable_products_agree_with_integers() {
        agrees_with_integers::<Modulus>();
        digits_agree_with_integers::<Modulus>();
        powers_are_repeated_products::<Modulus>();
    }

    #[test]
    fn lanes_agree_with_integers() {
        if has_ifma() {
            agrees_with_integers::<bigint::Lanes>();
            digits_agree_with_integers::<bigint::Lanes>();
            powers_are_repeated_products::<bigint::Lanes>();
        }
    }
}
