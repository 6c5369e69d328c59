use std::sync::Arc;

use rayon::prelude::*;
use zeroize::Zeroizing;

use crate::bigint::batch::{Batch, Numbers, zeros as limbs};
use crate::bigint::fixed_base::{FixedBase, Tables};
use crate::bigint::montgomery::Modulus;
use crate::bigint::square::Square;
use crate::bigint::{
    Lanes, Limbs, add, bit_length, fill_below, from_bytes, halve, inverse, multiply, subtract,
    to_bytes, zeros,
};
use crate::cpu::has_ifma;
use crate::error::{Result, refuse};
use crate::paillier::public::fill_exponents;
use crate::paillier::{PublicKey, check_size, exponent_length};
use crate::primes::{is_prime, is_safe_prime, safe_prime};

pub struct SecretKey {
    p: Limbs,
    q: Limbs,
    safe: bool,
    kernels: Box<dyn Kernels>,
    public: Arc<PublicKey>,
}

/// On blocks of as many rows as the public key's kernels take.
trait Kernels: Send + Sync {
    /// Makes the tables for `encrypt`.
    fn prepare(&self, exponents: Exponents);
    fn encrypt(&self, plaintexts: &[u64], exponents: Exponents, out: &mut [u64]);
    fn decrypt(&self, ciphertexts: &[u64], out: &mut [u64]);
}

/// How to draw a random n-th residue modulo p^2.
#[derive(Clone, Copy)]
enum Exponents {
    /// A generator to the power of a uniform number below p-1.
    Uniform,
    /// A generator to the power of a number of so many bits.
    Short(usize),
    /// u^p for a uniform unit u.
    Units,
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
        let kernels: Box<dyn Kernels> = match has_ifma() {
            true => Box::new(Secret::<Lanes>::new(p, q)),
            false => Box::new(Secret::<Modulus>::new(p, q)),
        };
        let public = Arc::new(PublicKey::new(&n));
        Ok(Self { p: p.to_vec().into(), q: q.to_vec().into(), safe, kernels, public })
    }

    pub fn primes(&self) -> [Zeroizing<Vec<u8>>; 2] {
        [&self.p, &self.q].map(|prime| to_bytes(prime))
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
        let exponents = match (self.safe, exponent_bits) {
            (false, _) => Exponents::Units,
            (true, 0) => Exponents::Uniform,
            (true, _) => Exponents::Short(bits),
        };
        // Not inside the pool: see `PublicKey::encrypt`.
        self.kernels.prepare(exponents);
        self.public.encrypt_with(plaintexts, |plaintexts, out| {
            self.kernels.encrypt(plaintexts, exponents, out);
        })
    }

    pub fn decrypt(&self, ciphertexts: &[u64]) -> Result<Vec<u64>> {
        self.public.check_ciphertexts(ciphertexts)?;
        let block = self.public.kernels().width() * self.public.modulus().len();
        let mut out = vec![0; ciphertexts.len() / 2];
        ciphertexts
            .par_chunks(2 * block)
            .zip(out.par_chunks_mut(block))
            .for_each(|(ciphertexts, out)| self.kernels.decrypt(ciphertexts, out));
        Ok(out)
    }
}

/// Works modulo p^2 and q^2 and joins both results (Chinese remainder theorem).
struct Secret<B: Batch> {
    p: Half<B>,
    q: Half<B>,
    /// n for every lane.
    n: Numbers<B>,
}

/// What the key knows of one of its primes, here called p, the other q.
struct Half<B: Batch> {
    prime: Limbs,
    /// p - 1
    order: Limbs,
    /// Arithmetic modulo p and p^2.
    square: Square<B>,
    /// qR and qR^2 modulo p
    lift: [Numbers<B>; 2],
    /// R/q modulo p
    inverse: Numbers<B>,
    /// -R/q modulo p
    scale: Numbers<B>,
    /// Powers of a generator of the n-th residues modulo p^2, only with safe primes.
    masks: Tables,
}

impl<B: Batch> Secret<B> {
    fn new(p: &[u64], q: &[u64]) -> Self {
        let (p, q) = (Half::new(p, q), Half::new(q, p));
        let base: &B = &p.square.base;
        let mut n = limbs::<B>(2 * base.limbs());
        let zero = limbs::<B>(base.limbs());
        base.multiply_add(p.square.modulus(), q.square.modulus(), &zero, &mut n);
        Self { p, q, n }
    }

    /// The number below pq that is x modulo p and y modulo q, both reduced (Garner), and what it
    /// is made of: y + qv.
    fn join(&self, x: &[B::Limb], y: &[B::Limb]) -> (Numbers<B>, Numbers<B>) {
        let v = self.p.quotient(x, y);
        let base = &self.p.square.base;
        let mut number = limbs::<B>(2 * base.limbs());
        base.multiply_add(&v, self.q.square.modulus(), y, &mut number);
        (number, v)
    }
}

impl<B: Batch> Kernels for Secret<B> {
    fn prepare(&self, exponents: Exponents) {
        self.p.prepare(exponents);
        self.q.prepare(exponents);
    }

    /// Of c modulo p^2 and q^2, as digits x0 + x1 p and y0 + y1 q, to c = c0 + c1 n:
    ///
    /// c0 = x0 modulo p and y0 modulo q, that is c0 = x0 + pu = y0 + qv. Modulo p^2 then
    /// x1 p = up + c1 pq, so c1 = (x1 - u)/q modulo p, and likewise (y1 - v)/p modulo q.
    fn encrypt(&self, plaintexts: &[u64], exponents: Exponents, out: &mut [u64]) {
        let base = &self.p.square.base;
        let columns = 2 * self.p.prime.len();
        let rows = plaintexts.len() / columns;
        let mut messages = limbs::<B>(2 * base.limbs());
        base.load(plaintexts, columns, &mut messages);
        let x = self.p.encrypt(&messages, rows, exponents);
        let y = self.q.encrypt(&messages, rows, exponents);
        let ((x0, x1), (y0, y1)) = (x.split_at(base.limbs()), y.split_at(base.limbs()));

        let (c0, v) = self.join(x0, y0);
        let u = self.q.quotient(y0, x0);
        let (c1, _) = self.join(&self.p.quotient(x1, &u), &self.q.quotient(y1, &v));
        let mut ciphertexts = limbs::<B>(4 * base.limbs());
        base.multiply_add(&c1, &self.n, &c0, &mut ciphertexts);
        base.store(&ciphertexts, out, 2 * columns);
    }

    fn decrypt(&self, ciphertexts: &[u64], out: &mut [u64]) {
        let base = &self.p.square.base;
        let columns = 2 * self.p.prime.len();
        let mut numbers = limbs::<B>(4 * base.limbs());
        base.load(ciphertexts, 2 * columns, &mut numbers);
        let (x, y) = (self.p.decrypt(&numbers), self.q.decrypt(&numbers));
        base.store(&self.join(&x, &y).0, out, columns);
    }
}

impl<B: Batch> Half<B> {
    fn new(p: &[u64], q: &[u64]) -> Self {
        let mut order: Limbs = p.to_vec().into();
        order[0] -= 1;
        let square = Square::new(p, 4);
        let inverse = inverse(q, p).expect("different primes are coprime");
        let mut negated: Limbs = p.to_vec().into();
        subtract(&mut negated, &inverse);
        Self {
            lift: [1, 2].map(|exponent| square.residue(q, exponent)),
            inverse: square.residue(&inverse, 1),
            scale: square.residue(&negated, 1),
            prime: p.to_vec().into(),
            order,
            square,
            masks: Tables::new(),
        }
    }

    fn digit(&self) -> Numbers<B> {
        limbs::<B>(self.square.base.limbs())
    }

    fn product(&self, a: &[B::Limb], b: &[B::Limb]) -> Numbers<B> {
        let mut out = self.digit();
        self.square.base.product(a, b, &mut out);
        out
    }

    /// (x - y)/q modulo p.
    fn quotient(&self, x: &[B::Limb], y: &[B::Limb]) -> Numbers<B> {
        let mut out = self.digit();
        let (x, y) = (self.product(x, &self.inverse), self.product(y, &self.inverse));
        self.square.base.difference(&x, &y, &mut out);
        out
    }

    /// (1+n)^m = 1 + (mq mod p) p modulo p^2, times random n-th residues: reduced digits.
    fn encrypt(&self, messages: &[B::Limb], rows: usize, exponents: Exponents) -> Numbers<B> {
        let (low, high) = messages.split_at(self.square.base.limbs());
        let mut lifted = self.square.plain_one();
        let digit = &mut lifted[self.square.base.limbs()..];
        self.square.base.product(low, &self.lift[0], digit);
        self.square.base.add(digit, &self.product(high, &self.lift[1]));
        self.square.leave(&self.residues(rows, exponents), &lifted)
    }

    /// Random n-th residues in Montgomery form.
    fn residues(&self, rows: usize, exponents: Exponents) -> Numbers<B> {
        match exponents {
            Exponents::Uniform => {
                let mut exponents = zeros(rows * self.order.len());
                fill_below(&self.order, &mut exponents);
                let bits = 64 * self.order.len();
                self.masks(bits).powers(&self.square, &to_bytes(&exponents), bits / 8)
            }
            Exponents::Short(bits) => {
                let mut exponents = Zeroizing::new(vec![0; rows * bits.div_ceil(8)]);
                fill_exponents(&mut exponents, bits);
                self.masks(bits).powers(&self.square, &exponents, bits.div_ceil(8))
            }
            Exponents::Units => {
                let len = self.prime.len();
                let mut units = zeros(rows * len);
                fill_below(&self.order, &mut units);
                for unit in units.chunks_exact_mut(len) {
                    unit.copy_from_slice(&add(unit, 1));
                }
                let mut base = self.digit();
                self.square.base.load(&units, len, &mut base);
                self.square.power(&self.square.enter(&base), &self.prime)
            }
        }
    }

    fn prepare(&self, exponents: Exponents) {
        match exponents {
            Exponents::Uniform => self.masks(64 * self.order.len()),
            Exponents::Short(bits) => self.masks(bits),
            Exponents::Units => return,
        };
    }

    fn masks(&self, bits: usize) -> &FixedBase {
        self.masks.get(&self.square, bits, 64 * self.order.len(), || self.generator())
    }

    /// A generator of the subgroup of order p-1 = 2p'. It is a p-th power, so its order divides
    /// p-1; p' is prime, so powers 2 and p' other than 1 make it p-1.
    fn generator(&self) -> Numbers<B> {
        let square = &self.square;
        loop {
            let mut unit = zeros(self.prime.len());
            fill_below(&self.order, &mut unit);
            let unit = square.enter(&square.residue(&add(&unit, 1), 0));
            let candidate = square.power(&unit, &self.prime);
            if !square.is_one(&square.product(&candidate, &candidate))
                && !square.is_one(&square.power(&candidate, &halve(&self.order)))
            {
                return candidate;
            }
        }
    }

    /// L(c^(p-1)) / L((1+n)^(p-1)) modulo p, L(x) = (x-1)/p: with x as digits 1 + x1 p it is x1.
    /// And L((1+n)^(p-1)) = (p-1)q, which is -q modulo p.
    fn decrypt(&self, ciphertexts: &[B::Limb]) -> Numbers<B> {
        let power = self.square.power(&self.square.enter(ciphertexts), &self.order);
        let digits = self.square.leave(&power, &self.square.plain_one());
        self.product(&digits[self.square.base.limbs()..], &self.scale)
    }
}
