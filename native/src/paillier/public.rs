use std::sync::OnceLock;

use rayon::prelude::*;
use zeroize::Zeroizing;

use crate::bigint::fixed_base::FixedBase;
use crate::bigint::montgomery::Modulus;
use crate::bigint::{
    Limbs, bit_length, coprime, fill_below, from_bytes, multiply, multiply_add_to, zeros,
};
use crate::error::{Result, refuse};
use crate::paillier::{BLOCK, check_below, check_size, exponent_length, first_not_below};
use crate::random;

pub struct PublicKey {
    n: Limbs,
    square: Modulus,
    /// Powers of h^n modulo n^2 for exponents of up to half the bits of n.
    masks: OnceLock<FixedBase>,
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
        let square = Modulus::new(&multiply(n, n));
        Self { n: n.to_vec().into(), square, masks: OnceLock::new() }
    }

    pub fn bits(&self) -> usize {
        64 * self.n.len()
    }

    pub fn modulus(&self) -> &[u64] {
        &self.n
    }

    pub(super) fn square(&self) -> &Modulus {
        &self.square
    }

    pub fn check_plaintexts(&self, plaintexts: &[u64]) -> Result<()> {
        check_below("plaintext", plaintexts, &self.n)
    }

    pub fn check_ciphertexts(&self, ciphertexts: &[u64]) -> Result<()> {
        check_below("ciphertext", ciphertexts, self.square.limbs())
    }

    /// Damgard, Jurik and Nielsen (2010): (1+n)^m (h^n)^r, where h = -x^2 for a random
    /// x and r has `exponent_bits` bits, half of those of n if 0.
    ///
    /// h generates, but for a negligible chance, all elements with Jacobi symbol 1, if n is a
    /// product of two safe primes or of others as that paper asks. Of any other key this knows
    /// nothing: for those there is `encrypt_uniform`.
    pub fn encrypt(&self, plaintexts: &[u64], exponent_bits: usize) -> Result<Vec<u64>> {
        let bits = exponent_length(exponent_bits, self.bits() / 2)?;
        let bytes = bits.div_ceil(8);
        let masks = self.masks.get_or_init(|| self.new_masks());
        self.encrypt_with(plaintexts, |factors| {
            let mut exponents = Zeroizing::new(vec![0; factors.len() / self.square.len() * bytes]);
            fill_exponents(&mut exponents, bits);
            masks.powers(&self.square, &exponents, bytes, factors);
        })
    }

    /// (1+n)^m r^n, r uniform below n, as Paillier wrote it. (An r that is not coprime to n would
    /// factor it.)
    pub fn encrypt_uniform(&self, plaintexts: &[u64]) -> Result<Vec<u64>> {
        self.encrypt_with(plaintexts, |factors| self.fill_residues(factors))
    }

    /// Fills rows with r^n, r uniform below n, in Montgomery form.
    pub(super) fn fill_residues(&self, rows: &mut [u64]) {
        let len = self.n.len();
        let mut r = zeros(rows.len() / 2);
        fill_below(&self.n, &mut r);
        for (r, row) in r.chunks_exact(len).zip(rows.chunks_exact_mut(2 * len)) {
            row[..len].copy_from_slice(r);
            row.copy_from_slice(&self.square.enter(row));
        }
        self.square.power_all(rows, &self.n);
    }

    /// (1+n)^m times a random factor: `draw` fills a block of rows with them, in Montgomery form.
    pub(super) fn encrypt_with(
        &self,
        plaintexts: &[u64],
        draw: impl Fn(&mut [u64]) + Sync,
    ) -> Result<Vec<u64>> {
        self.check_plaintexts(plaintexts)?;
        let len = self.n.len();
        let mut out = vec![0; 2 * plaintexts.len()];
        plaintexts.par_chunks(BLOCK * len).zip(out.par_chunks_mut(BLOCK * 2 * len)).for_each(
            |(plaintexts, out)| {
                let mut factors = zeros(out.len());
                draw(&mut factors);
                let mut lifted = zeros(2 * len);
                for ((m, factor), out) in plaintexts
                    .chunks_exact(len)
                    .zip(factors.chunks_exact(2 * len))
                    .zip(out.chunks_exact_mut(2 * len))
                {
                    // (1+n)^m = 1 + mn modulo n^2; the factor's R goes with this product.
                    multiply_add_to(m, &self.n, &[1], &mut lifted);
                    self.square.multiply(factor, &lifted, out);
                }
            },
        );
        Ok(out)
    }

    /// Row by row, ciphertexts of the sums.
    pub fn add(&self, left: &[u64], right: &[u64]) -> Result<Vec<u64>> {
        if left.len() != right.len() {
            refuse!("as many ciphertexts must stand left as right");
        }
        self.check_ciphertexts(left)?;
        self.check_ciphertexts(right)?;
        let len = self.square.len();
        let mut out = vec![0; left.len()];
        out.par_chunks_exact_mut(len)
            .zip(left.par_chunks_exact(len).zip(right.par_chunks_exact(len)))
            .with_min_len(BLOCK)
            .for_each(|(out, (a, b))| {
                self.square.multiply(&self.square.product(a, b), self.square.r2(), out);
            });
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
        let end = first_not_below(ciphertexts, self.square.limbs());
        let in_range = &ciphertexts[..end.map_or(ciphertexts.len(), |row| row * len)];
        match self.first_not_coprime(in_range).or(end) {
            Some(row) => refuse!("ciphertext {row} is not one of this key"),
            None => Ok(()),
        }
    }

    /// One gcd tells whether there is a row that is not coprime to n; halving finds it.
    fn first_not_coprime(&self, mut rows: &[u64]) -> Option<usize> {
        let len = self.square.len();
        let all_coprime = |rows: &[u64]| coprime(&self.multiply_all(rows), &self.n);
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

    /// The product of all rows up to a power of R, which is coprime to n.
    pub(super) fn multiply_all(&self, rows: &[u64]) -> Limbs {
        let start = || Limbs::from(self.square.one().to_vec());
        rows.par_chunks_exact(self.square.len())
            .with_min_len(BLOCK)
            .fold(start, |product, row| self.square.product(row, &product))
            .reduce(start, |a, b| self.square.product(&a, &b))
    }

    fn new_masks(&self) -> FixedBase {
        let mut x = zeros(self.square.len());
        fill_below(&self.n, &mut x[..self.n.len()]);
        let x = self.square.enter(&x);
        // Its power n does not depend on whether h is reduced modulo n or n^2.
        let h = self.square.negate(&self.square.product(&x, &x));
        let base = self.square.power(&h, &self.n);
        FixedBase::new(&self.square, &base, self.bits() / 16, self.square.one())
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
