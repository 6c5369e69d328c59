use std::sync::{Arc, OnceLock};

use rayon::prelude::*;
use zeroize::Zeroizing;

use crate::bigint::fixed_base::FixedBase;
use crate::bigint::montgomery::Modulus;
use crate::bigint::{
    Limbs, add, bit_length, fill_below, from_bytes, halve, inverse, inverse_of_odd, multiply,
    multiply_add_to, subtract, to_bytes, zeros,
};
use crate::error::{Result, refuse};
use crate::paillier::public::fill_exponents;
use crate::paillier::{BLOCK, PublicKey, check_size, exponent_length};
use crate::primes::{is_prime, is_safe_prime, safe_prime};

/// Works modulo p^2 and q^2 and joins both results (Chinese remainder theorem).
pub struct SecretKey {
    p: Half,
    q: Half,
    /// q^2 to join residues of p^2 and q^2, q to join those of p and q.
    join_squares: Join,
    join_primes: Join,
    safe: bool,
    public: Arc<PublicKey>,
}

/// What the key knows of one of its primes, here called p.
struct Half {
    prime: Modulus,
    square: Modulus,
    /// p - 1
    order: Limbs,
    /// 1/p modulo R, R = 2^(64 * limbs of p)
    exact: Limbs,
    /// 1/L((1+n)^(p-1)) modulo p, times R
    scale: Limbs,
    /// Powers of a generator of the n-th residues modulo p^2, only with safe primes.
    masks: OnceLock<FixedBase>,
}

/// Garner's recombination: the number below ab that is x modulo a and y modulo b.
struct Join {
    b: Limbs,
    /// 1/b modulo a, times R
    inverse: Limbs,
}

impl SecretKey {
    /// From two safe primes of bits/2 bits each.
    pub fn generate(bits: usize) -> Result<Self> {
        check_size(bits)?;
        loop {
            let (p, q) = rayon::join(|| safe_prime(bits / 2), || safe_prime(bits / 2));
            if p != q {
                return Self::new(&p, &q, true);
            }
        }
    }

    pub fn from_bytes(p: &[u8], q: &[u8]) -> Result<Self> {
        let (mut p, mut q) = (from_bytes(p), from_bytes(q));
        let bits = bit_length(&p);
        check_size(2 * bits)?;
        p.truncate(bits / 64);
        if bit_length(&q) != bits {
            refuse!("both primes have the same length");
        }
        q.truncate(bits / 64);
        if p == q {
            refuse!("the primes differ");
        }
        let (p_safe, q_safe) = rayon::join(|| is_safe_prime(&p), || is_safe_prime(&q));
        if !(p_safe || is_prime(&p)) || !(q_safe || is_prime(&q)) {
            refuse!("both factors must be prime");
        }
        Self::new(&p, &q, p_safe && q_safe)
    }

    /// p and q are different primes of one length, so that neither divides the other less one: n
    /// is coprime to (p-1)(q-1).
    fn new(p: &[u64], q: &[u64], safe: bool) -> Result<Self> {
        let n = multiply(p, q);
        if bit_length(&n) != 64 * n.len() {
            refuse!("the product of both primes must have twice their length");
        }
        let (p, q) = (Half::new(p, q), Half::new(q, p));
        let join_squares = Join::new(&p.square, q.square.limbs());
        let join_primes = Join::new(&p.prime, q.prime.limbs());
        let public = Arc::new(PublicKey::new(&n));
        Ok(Self { p, q, join_squares, join_primes, safe, public })
    }

    pub fn primes(&self) -> [Zeroizing<Vec<u8>>; 2] {
        [&self.p, &self.q].map(|half| to_bytes(half.prime.limbs()))
    }

    pub fn safe(&self) -> bool {
        self.safe
    }

    pub fn public(&self) -> &Arc<PublicKey> {
        &self.public
    }

    /// (1+n)^m r^n, r uniform and coprime to n.
    ///
    /// r^n modulo p^2 depends on r modulo p only. The units modulo p^2 are a cyclic group of order
    /// p (p-1), in which the n-th powers are the subgroup of order p-1, and each comes from equally
    /// many r, because n is coprime to p-1. The residues of r modulo p and q are independent. So
    /// two independent uniform elements of the subgroups modulo p^2 and q^2 are r^n, exactly:
    /// - with safe primes, a generator to the power of a uniform number below p-1;
    /// - else u^p for a uniform unit u modulo p.
    ///
    /// With `exponent_bits` above 0 (safe primes only) the exponents are as short as that.
    pub fn encrypt(&self, plaintexts: &[u64], exponent_bits: usize) -> Result<Vec<u64>> {
        if exponent_bits != 0 && !self.safe {
            refuse!("short exponents need a key of safe primes");
        }
        let bits = exponent_length(exponent_bits, self.public.bits() / 2)?;
        let uniform = exponent_bits == 0;
        if self.safe {
            // Not inside the pool: a thread that builds a table may meanwhile be given other work
            // of the pool, and must not find there that it has to wait for that table.
            self.p.masks();
            self.q.masks();
        }
        let len = self.p.square.len();
        self.public.encrypt_with(plaintexts, |factors| {
            let rows = factors.len() / (2 * len);
            let (mut p, mut q) = (zeros(rows * len), zeros(rows * len));
            for (half, residues) in [(&self.p, &mut p), (&self.q, &mut q)] {
                match self.safe {
                    true => half.powers_of_generator(residues, bits, uniform),
                    false => half.powers_of_units(residues),
                }
            }
            for ((p, q), factor) in
                p.chunks_exact(len).zip(q.chunks_exact(len)).zip(factors.chunks_exact_mut(2 * len))
            {
                self.join_squares.join(&self.p.square, p, q, factor);
            }
        })
    }

    pub fn decrypt(&self, ciphertexts: &[u64]) -> Result<Vec<u64>> {
        self.public.check_ciphertexts(ciphertexts)?;
        let len = self.public.modulus().len();
        let mut out = vec![0; ciphertexts.len() / 2];
        ciphertexts.par_chunks(BLOCK * 2 * len).zip(out.par_chunks_mut(BLOCK * len)).for_each(
            |(ciphertexts, out)| {
                let (p, q) = (self.p.decrypt(ciphertexts), self.q.decrypt(ciphertexts));
                for ((p, q), out) in p
                    .chunks_exact(len / 2)
                    .zip(q.chunks_exact(len / 2))
                    .zip(out.chunks_exact_mut(len))
                {
                    self.join_primes.join(&self.p.prime, p, q, out);
                }
            },
        );
        Ok(out)
    }
}

impl Half {
    fn new(p: &[u64], other: &[u64]) -> Self {
        let mut order: Limbs = p.to_vec().into();
        order[0] -= 1;
        let prime = Modulus::new(p);
        // (1+n)^(p-1) = 1 + (p-1)n modulo p^2, so L gives (p-1)q, which is -q modulo p.
        let inverse = inverse(other, p).expect("different primes are coprime");
        let scale = prime.negate(&prime.enter(&inverse));
        Self {
            square: Modulus::new(&multiply(p, p)),
            exact: inverse_of_odd(p),
            prime,
            order,
            scale,
            masks: OnceLock::new(),
        }
    }

    /// Random powers of the generator, as x R^2 (see `Join`).
    fn powers_of_generator(&self, out: &mut [u64], bits: usize, uniform: bool) {
        let rows = out.len() / self.square.len();
        let exponents = match uniform {
            true => {
                let mut exponents = zeros(rows * self.order.len());
                fill_below(&self.order, &mut exponents);
                to_bytes(&exponents)
            }
            false => {
                let mut exponents = Zeroizing::new(vec![0; rows * bits.div_ceil(8)]);
                fill_exponents(&mut exponents, bits);
                exponents
            }
        };
        self.masks().powers(&self.square, &exponents, bits.div_ceil(8), out);
    }

    /// u^p for uniform units u modulo p, as x R^2.
    fn powers_of_units(&self, out: &mut [u64]) {
        let len = self.prime.len();
        let mut units = zeros(out.len() / 2);
        fill_below(&self.order, &mut units);
        for (unit, out) in units.chunks_exact(len).zip(out.chunks_exact_mut(2 * len)) {
            out[..len].copy_from_slice(&add(unit, 1));
            out.copy_from_slice(&self.square.enter(out));
        }
        self.square.power_all(out, self.prime.limbs());
        for row in out.chunks_exact_mut(2 * len) {
            row.copy_from_slice(&self.square.enter(row));
        }
    }

    fn masks(&self) -> &FixedBase {
        self.masks.get_or_init(|| self.new_masks())
    }

    /// A table for a generator of the subgroup of order p-1 = 2p'. It is a p-th power, so its
    /// order divides p-1; p' is prime, so powers 2 and p' other than 1 make it p-1.
    fn new_masks(&self) -> FixedBase {
        let square = &self.square;
        loop {
            let mut candidate = zeros(square.len());
            self.powers_of_units(&mut candidate);
            let candidate = square.leave(&candidate); // x R^2 to x R
            let is_one = |x: &[u64]| x == square.one();
            if !is_one(&square.product(&candidate, &candidate))
                && !is_one(&square.power(&candidate, &halve(&self.order)))
            {
                let bytes = 8 * self.order.len();
                return FixedBase::new(square, &candidate, bytes, square.r2());
            }
        }
    }

    /// L(c^(p-1)) / L((1+n)^(p-1)) modulo p, L(x) = (x-1)/p, for each row.
    fn decrypt(&self, ciphertexts: &[u64]) -> Limbs {
        let len = self.prime.len();
        let mut powers = zeros(ciphertexts.len() / 2);
        for (c, power) in ciphertexts.chunks_exact(4 * len).zip(powers.chunks_exact_mut(2 * len)) {
            power.copy_from_slice(&self.square.enter_wide(c));
        }
        self.square.power_all(&mut powers, &self.order);
        let mut out = zeros(ciphertexts.len() / 4);
        let mut quotient = zeros(len);
        for (power, out) in powers.chunks_exact(2 * len).zip(out.chunks_exact_mut(len)) {
            let mut x = self.square.leave(power);
            let mut one = zeros(2 * len);
            one[0] = 1;
            subtract(&mut x, &one);
            // Division without remainder is multiplication by the inverse modulo R.
            multiply_add_to(&x[..len], &self.exact, &[], &mut quotient);
            self.prime.multiply(&quotient, &self.scale, out);
        }
        out
    }
}

impl Join {
    fn new(a: &Modulus, b: &[u64]) -> Self {
        let inverse = inverse(b, a.limbs()).expect("different primes are coprime");
        Self { b: b.to_vec().into(), inverse: a.enter(&inverse) }
    }

    /// out = y + b ((x - y)/b modulo a). Any factor common to x and y stays a factor of the
    /// result, such as the R^2 modulo p^2 that is the R of Montgomery form modulo n^2.
    fn join(&self, a: &Modulus, x: &[u64], y: &[u64], out: &mut [u64]) {
        let mut quotient = zeros(a.len());
        a.subtract(&a.product(x, &self.inverse), &a.product(y, &self.inverse), &mut quotient);
        multiply_add_to(&quotient, &self.b, y, out);
    }
}
