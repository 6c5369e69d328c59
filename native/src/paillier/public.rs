use rayon::prelude::*;
use zeroize::Zeroizing;

use crate::bigint::batch::{Batch, Numbers, zeros as limbs};
use crate::bigint::fixed_base::{FixedBase, Tables};
use crate::bigint::montgomery::Modulus;
use crate::bigint::square::Square;
use crate::bigint::{Lanes, Limbs, bit_length, coprime, fill_below, from_bytes, multiply, zeros};
use crate::cpu::has_ifma;
use crate::error::{Result, refuse};
use crate::paillier::sum::Part;
use crate::paillier::{BLOCK, check_below, check_size, exponent_length, first_not_below};
use crate::random;

pub struct PublicKey {
    n: Modulus,
    square: Limbs,
    kernels: Box<dyn Kernels>,
}

/// On blocks of at most `width` rows.
pub(super) trait Kernels: Send + Sync {
    fn width(&self) -> usize;
    /// Makes the table for `encrypt`.
    fn prepare(&self, exponent_bits: usize);
    fn encrypt(&self, plaintexts: &[u64], exponent_bits: usize, out: &mut [u64]);
    fn encrypt_uniform(&self, plaintexts: &[u64], out: &mut [u64]);
    fn add(&self, left: &[u64], right: &[u64], out: &mut [u64]);
    /// The product of the rows of each lane, up to powers of R, modulo n. Any number of rows.
    fn products(&self, ciphertexts: &[u64]) -> Limbs;
    /// Words of a row of `Part`.
    fn stride(&self) -> usize;
    fn add_to_groups(&self, part: &mut Part, ciphertexts: &[u64], groups: &[i64]);
    /// The sums of all groups.
    fn sums(&self, parts: &[Part], groups: usize) -> Vec<u64>;
    /// Powers of so many random n-th powers, for exponents of one byte.
    fn draw_masks(&self, count: usize) -> FixedBase;
    /// Ciphertexts as rows of `stride` words.
    fn terms(&self, ciphertexts: &[u64]) -> Limbs;
    /// For each row of `choices` the sum of `width` terms, times a random n-th power: a product of
    /// those in `masks`, or drawn for itself.
    fn sum_terms(
        &self,
        terms: &[u64],
        choices: &[i64],
        width: usize,
        masks: Option<&FixedBase>,
        out: &mut [u64],
    );
}

impl PublicKey {
    pub fn from_bytes(modulus: &[u8]) -> Result<Self> {
        let mut n = from_bytes(modulus);
        let bits = bit_length(&n);
        check_size(bits)?;
        n.truncate(bits / 64);
        if n[0] & 1 == 0 {
            refuse!("a modulus is odd");
        }
        Ok(Self::new(&n))
    }

    /// n is odd, of a size that `check_size` accepts.
    pub(super) fn new(n: &[u64]) -> Self {
        let kernels: Box<dyn Kernels> = match has_ifma() {
            true => Box::new(Public::<Lanes>::new(n)),
            false => Box::new(Public::<Modulus>::new(n)),
        };
        Self { n: Modulus::new(n), square: multiply(n, n), kernels }
    }

    pub fn bits(&self) -> usize {
        64 * self.n.len()
    }

    pub fn modulus(&self) -> &[u64] {
        self.n.limbs()
    }

    pub(super) fn kernels(&self) -> &dyn Kernels {
        &*self.kernels
    }

    pub fn check_plaintexts(&self, plaintexts: &[u64]) -> Result<()> {
        check_below("plaintext", plaintexts, self.modulus())
    }

    pub fn check_ciphertexts(&self, ciphertexts: &[u64]) -> Result<()> {
        check_below("ciphertext", ciphertexts, &self.square)
    }

    /// Damgard, Jurik and Nielsen (2010): (1+n)^m (h^n)^r, where h = -x^2 for a random
    /// x and r has `exponent_bits` bits, half of those of n if 0.
    ///
    /// h generates, but for a negligible chance, all elements with Jacobi symbol 1, if n is a
    /// product of two safe primes or of others as that paper asks. Of any other key this knows
    /// nothing: for those there is `encrypt_uniform`.
    pub fn encrypt(&self, plaintexts: &[u64], exponent_bits: usize) -> Result<Vec<u64>> {
        let bits = exponent_length(exponent_bits, self.bits() / 2)?;
        // Not inside the pool: a thread that builds a table may meanwhile be given other work of
        // the pool, and must not find there that it has to wait for that table.
        self.kernels.prepare(bits);
        self.encrypt_with(plaintexts, |plaintexts, out| self.kernels.encrypt(plaintexts, bits, out))
    }

    /// (1+n)^m r^n, r uniform below n, as Paillier wrote it. (An r that is not coprime to n would
    /// factor it.)
    pub fn encrypt_uniform(&self, plaintexts: &[u64]) -> Result<Vec<u64>> {
        self.encrypt_with(plaintexts, |plaintexts, out| {
            self.kernels.encrypt_uniform(plaintexts, out);
        })
    }

    /// Block by block.
    pub(super) fn encrypt_with(
        &self,
        plaintexts: &[u64],
        encrypt: impl Fn(&[u64], &mut [u64]) + Sync,
    ) -> Result<Vec<u64>> {
        self.check_plaintexts(plaintexts)?;
        let block = self.kernels.width() * self.n.len();
        let mut out = vec![0; 2 * plaintexts.len()];
        plaintexts
            .par_chunks(block)
            .zip(out.par_chunks_mut(2 * block))
            .for_each(|(plaintexts, out)| encrypt(plaintexts, out));
        Ok(out)
    }

    /// Row by row, ciphertexts of the sums.
    pub fn add(&self, left: &[u64], right: &[u64]) -> Result<Vec<u64>> {
        if left.len() != right.len() {
            refuse!("as many ciphertexts must stand left as right");
        }
        self.check_ciphertexts(left)?;
        self.check_ciphertexts(right)?;
        let block = self.kernels.width() * self.square.len();
        let mut out = vec![0; left.len()];
        out.par_chunks_mut(block)
            .zip(left.par_chunks(block).zip(right.par_chunks(block)))
            .for_each(|(out, (left, right))| self.kernels.add(left, right, out));
        Ok(out)
    }

    /// Every ciphertext times r^n, r uniform, and times (1+n)^m if there are plaintexts.
    pub fn rerandomise(&self, ciphertexts: &[u64], plaintexts: Option<&[u64]>) -> Result<Vec<u64>> {
        let zero = zeros(ciphertexts.len() / 2);
        let plaintexts = plaintexts.unwrap_or(&zero);
        if ciphertexts.len() != 2 * plaintexts.len() {
            refuse!("there must be as many plaintexts as ciphertexts");
        }
        self.check_ciphertexts(ciphertexts)?;
        self.add(ciphertexts, &self.encrypt_uniform(plaintexts)?)
    }

    /// Refuses the first row that is zero, not below n^2 or not coprime to n.
    pub fn check(&self, ciphertexts: &[u64]) -> Result<()> {
        let len = self.square.len();
        let end = first_not_below(ciphertexts, &self.square);
        let in_range = &ciphertexts[..end.map_or(ciphertexts.len(), |row| row * len)];
        match self.first_not_coprime(in_range).or(end) {
            Some(row) => refuse!("ciphertext {row} is not one of this key"),
            None => Ok(()),
        }
    }

    /// One gcd tells whether there is a row that is not coprime to n; halving finds it.
    fn first_not_coprime(&self, mut rows: &[u64]) -> Option<usize> {
        let len = self.square.len();
        let all_coprime = |rows: &[u64]| coprime(&self.multiply_all(rows), self.modulus());
        if all_coprime(rows) {
            return None;
        }
        let mut first = 0;
        while rows.len() > len {
            let half = rows.len() / len / 2;
            let (left, right) = rows.split_at(half * len);
            if all_coprime(left) {
                first += half;
                rows = right;
            } else {
                rows = left;
            }
        }
        Some(first)
    }

    /// The product of all rows up to a power of R, which is coprime to n, modulo n.
    fn multiply_all(&self, rows: &[u64]) -> Limbs {
        let start = || Limbs::from(self.n.one().to_vec());
        let multiply = |product: Limbs, row: &[u64]| self.n.product(&product, row);
        rows.par_chunks(BLOCK * self.square.len())
            .map(|rows| {
                let products = self.kernels.products(rows);
                products.chunks_exact(self.n.len()).fold(start(), multiply)
            })
            .reduce(start, |a, b| multiply(a, &b))
    }
}

/// Fills rows of little-endian bytes with uniform numbers of `bits` bits.
pub(super) fn fill_exponents(rows: &mut [u8], bits: usize) {
    let bytes = bits.div_ceil(8);
    random::fill(rows);
    for row in rows.chunks_exact_mut(bytes) {
        row[bytes - 1] &= u8::MAX >> (8 * bytes - bits);
    }
}

struct Public<B: Batch> {
    n: Limbs,
    /// Arithmetic modulo n and n^2.
    square: Square<B>,
    r4: Numbers<B>,
    /// Powers of h^n modulo n^2 for exponents of up to half the bits of n.
    masks: Tables,
}

impl<B: Batch> Public<B> {
    fn new(n: &[u64]) -> Self {
        let square = Square::new(n, 2);
        Self { n: n.to_vec().into(), r4: square.power_of_r(4), square, masks: Tables::new() }
    }

    /// r^n in Montgomery form for each row.
    fn residues(&self, r: &[u64]) -> Numbers<B> {
        let mut base = limbs::<B>(self.square.base.limbs());
        self.square.base.load(r, self.n.len(), &mut base);
        self.square.power(&self.square.enter(&base), &self.n)
    }

    /// r^n, r uniform among what is coprime to n: of a hostile key, not everything may be.
    fn unit_residues(&self, rows: usize) -> Numbers<B> {
        let mut r = zeros(rows * self.n.len());
        for row in r.chunks_exact_mut(self.n.len()) {
            fill_below(&self.n, row);
            while !coprime(row, &self.n) {
                fill_below(&self.n, row);
            }
        }
        self.residues(&r)
    }

    fn masks(&self, exponent_bits: usize) -> &FixedBase {
        self.masks.get(&self.square, exponent_bits, 32 * self.n.len(), || {
            let mut x = zeros(self.n.len());
            fill_below(&self.n, &mut x);
            let x = self.square.enter(&self.square.residue(&x, 0));
            // Its power n does not depend on whether h is reduced modulo n or n^2.
            let h = self.square.product(&self.square.product(&x, &x), &self.square.minus_one());
            self.square.power(&h, &self.n)
        })
    }

    /// Ciphertexts from plaintexts and factors in Montgomery form: (1+n)^m = 1 + mn modulo n^2.
    fn finish(&self, plaintexts: &[u64], factors: &[B::Limb], out: &mut [u64]) {
        let mut lifted = self.square.plain_one();
        let high = &mut lifted[self.square.base.limbs()..];
        self.square.base.load(plaintexts, self.n.len(), high);
        self.store(&self.square.leave(factors, &lifted), out);
    }

    fn load(&self, ciphertexts: &[u64]) -> Numbers<B> {
        let mut out = self.square.zeros();
        self.square.base.load(ciphertexts, 2 * self.n.len(), &mut out);
        out
    }

    fn store(&self, digits: &[B::Limb], out: &mut [u64]) {
        self.square.base.store(&self.square.join(digits), out, 2 * self.n.len());
    }

    /// c/R
    fn split(&self, ciphertexts: &[u64]) -> Numbers<B> {
        let mut out = self.square.zeros();
        self.square.base.split(&self.load(ciphertexts), &mut out);
        out
    }
}

impl<B: Batch> Kernels for Public<B> {
    fn width(&self) -> usize {
        B::WIDTH
    }

    fn prepare(&self, exponent_bits: usize) {
        self.masks(exponent_bits);
    }

    fn encrypt(&self, plaintexts: &[u64], exponent_bits: usize, out: &mut [u64]) {
        let bytes = exponent_bits.div_ceil(8);
        let mut exponents = Zeroizing::new(vec![0; plaintexts.len() / self.n.len() * bytes]);
        fill_exponents(&mut exponents, exponent_bits);
        let factors = self.masks(exponent_bits).powers(&self.square, &exponents, bytes);
        self.finish(plaintexts, &factors, out);
    }

    fn encrypt_uniform(&self, plaintexts: &[u64], out: &mut [u64]) {
        let mut r = zeros(plaintexts.len());
        fill_below(&self.n, &mut r);
        self.finish(plaintexts, &self.residues(&r), out);
    }

    fn add(&self, left: &[u64], right: &[u64], out: &mut [u64]) {
        // Two factors R are gone before, two more with these products.
        let sum = self.square.product(&self.split(left), &self.split(right));
        self.store(&self.square.leave(&sum, &self.r4), out);
    }

    fn products(&self, ciphertexts: &[u64]) -> Limbs {
        let (base, row) = (&self.square.base, 2 * self.n.len());
        let one = &self.square.plain_one()[..base.limbs()];
        let [mut product, mut low, mut next] = std::array::from_fn(|_| limbs::<B>(base.limbs()));
        product.copy_from_slice(one);
        // Lanes that are left over multiply by 1.
        let mut block = zeros(B::WIDTH * row);
        for rows in ciphertexts.chunks(B::WIDTH * row) {
            block.fill(0);
            block.iter_mut().step_by(row).for_each(|limb| *limb = 1);
            block[..rows.len()].copy_from_slice(rows);
            let numbers = self.load(&block);
            let (digits, above) = numbers.split_at(base.limbs());
            base.product(digits, one, &mut low);
            base.add(&mut low, above);
            base.product(&low, &product, &mut next);
            std::mem::swap(&mut product, &mut next);
        }
        let mut rows = zeros(B::WIDTH * self.n.len());
        base.store(&product, &mut rows, self.n.len());
        rows
    }

    fn stride(&self) -> usize {
        self.square.base.stride()
    }

    fn add_to_groups(&self, part: &mut Part, ciphertexts: &[u64], groups: &[i64]) {
        let base = &self.square.base;
        let starts = part.count(groups);
        let mut products = self.square.zeros();
        base.gather(&part.products, &starts, &mut products);
        let products = self.square.product(&products, &self.split(ciphertexts));
        base.scatter(&products, &mut part.products, &starts);
    }

    fn sums(&self, parts: &[Part], groups: usize) -> Vec<u64> {
        let base = &self.square.base;
        // R as base: in Montgomery form it is R^2.
        let powers = FixedBase::new(&self.square, &self.square.power_of_r(2), 64, 4);
        let row = 2 * self.n.len();
        let mut out = vec![0; groups * row];
        out.par_chunks_mut(B::WIDTH * row).enumerate().for_each(|(block, out)| {
            let groups: Vec<_> = (block * B::WIDTH..).take(out.len() / row).collect();
            let mut product = Numbers::<B>::from(self.square.one().to_vec());
            let mut next = self.square.zeros();
            let mut missing = vec![(parts.len() * B::WIDTH - 1) as u64; groups.len()];
            for (part, lane) in
                parts.iter().flat_map(|part| (0..B::WIDTH).map(move |lane| (part, lane)))
            {
                let mut starts = vec![0; groups.len()];
                for ((group, start), missing) in groups.iter().zip(&mut starts).zip(&mut missing) {
                    *start = part.start(lane, *group);
                    *missing += 2 * part.counted(lane, *group);
                }
                base.gather(&part.products, &starts, &mut next);
                product = self.square.product(&product, &next);
            }
            let exponents: Vec<u8> = missing.iter().flat_map(|e| e.to_le_bytes()).collect();
            let factor = powers.powers(&self.square, &exponents, 8);
            self.store(&self.square.leave(&product, &factor), out);
        });
        out
    }

    fn draw_masks(&self, count: usize) -> FixedBase {
        let stride = self.stride();
        let mut bases = zeros(count * stride);
        bases.par_chunks_mut(B::WIDTH * stride).for_each(|rows| {
            let starts: Vec<_> = (0..rows.len()).step_by(stride).collect();
            self.square.base.scatter(&self.unit_residues(starts.len()), rows, &starts);
        });
        FixedBase::of(&self.square, &bases, 8)
    }

    fn terms(&self, ciphertexts: &[u64]) -> Limbs {
        let (row, stride) = (2 * self.n.len(), self.stride());
        let mut terms = zeros(ciphertexts.len() / row * stride);
        terms
            .par_chunks_mut(B::WIDTH * stride)
            .zip(ciphertexts.par_chunks(B::WIDTH * row))
            .for_each(|(terms, ciphertexts)| {
                let starts: Vec<_> = (0..terms.len()).step_by(stride).collect();
                let entered = self.square.enter(&self.load(ciphertexts));
                self.square.base.scatter(&entered, terms, &starts);
            });
        terms
    }

    fn sum_terms(
        &self,
        terms: &[u64],
        choices: &[i64],
        width: usize,
        masks: Option<&FixedBase>,
        out: &mut [u64],
    ) {
        let rows = choices.len() / width;
        let mut sum = match masks {
            Some(masks) => {
                let mut exponents = Zeroizing::new(vec![0; rows * masks.digits()]);
                random::fill(&mut exponents);
                masks.powers(&self.square, &exponents, masks.digits())
            }
            None => self.unit_residues(rows),
        };
        let (mut term, mut next) = (self.square.zeros(), self.square.zeros());
        for i in 0..width {
            let chosen = choices.iter().skip(i).step_by(width);
            let starts: Vec<_> = chosen.map(|choice| *choice as usize * self.stride()).collect();
            self.square.base.gather(terms, &starts, &mut term);
            self.square.base.multiply(&sum, &term, &mut next);
            std::mem::swap(&mut sum, &mut next);
        }
        self.store(&self.square.leave(&sum, &self.square.plain_one()), out);
    }
}
