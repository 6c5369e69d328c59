//! Safe primes from the operating system's generator.

use crypto_bigint::BoxedUint;
use crypto_primes::fips::{self, FipsOptions};
use crypto_primes::{Flavor, is_prime as is_baillie_psw_prime};
use getrandom::SysRng;
use getrandom::rand_core::UnwrapErr;
use rayon::prelude::*;
use zeroize::Zeroizing;

use crate::bigint::montgomery::Modulus;
use crate::bigint::{Limbs, add, bit_length, double, halve, zeros};
use crate::random;

/// Odd candidates sieved together.
const CANDIDATES: usize = 1 << 20;

/// Candidates divisible by a prime below this go without a test.
const SIEVE_LIMIT: u32 = 1 << 20;

/// Rounds of Miller-Rabin with random bases: at most 2^-128 of all sets of bases pass a composite.
const ROUNDS: usize = 64;

/// A prime p of exactly `bits` bits (a multiple of 64), the two highest set, with (p-1)/2 prime.
pub fn safe_prime(bits: usize) -> Limbs {
    let small = odd_primes(SIEVE_LIMIT);
    loop {
        // Candidates for (p-1)/2 are the odd numbers from a random one on.
        let mut start = zeros(bits / 64);
        random::fill_limbs(&mut start);
        start[0] |= 1;
        start[bits / 64 - 1] = start[bits / 64 - 1] >> 1 | 3 << 61;
        let found = sieve(&start, &small).into_par_iter().find_map_any(|i| {
            let half = add(&start, 2 * i as u64);
            let prime = add(&double(&half), 1);
            let found = bit_length(&half) == bits - 1
                && passes_fermat(&half)
                && passes_fermat(&prime)
                && is_prime(&half)
                && is_prime(&prime);
            found.then_some(prime)
        });
        if let Some(prime) = found {
            return prime;
        }
    }
}

/// The i for which neither q = start + 2i nor 2q + 1 has a small factor.
fn sieve(start: &[u64], small: &[u32]) -> Vec<usize> {
    let mut composite = vec![false; CANDIDATES];
    for &prime in small {
        let prime = u64::from(prime);
        let half = |x: u64| x * prime.div_ceil(2) % prime;
        let residue = residue(start, prime);
        // q is divisible where it is 0, and 2q + 1 where q is (prime - 1)/2.
        for target in [0, prime / 2] {
            let first = half(target + prime - residue) as usize;
            for i in (first..CANDIDATES).step_by(prime as usize) {
                composite[i] = true;
            }
        }
    }
    (0..CANDIDATES).filter(|i| !composite[*i]).collect()
}

fn odd_primes(limit: u32) -> Vec<u32> {
    let mut composite = vec![false; limit as usize];
    let mut primes = Vec::new();
    for number in (3..limit).step_by(2) {
        if !composite[number as usize] {
            primes.push(number);
            (number as usize..limit as usize)
                .step_by(number as usize)
                .for_each(|multiple| composite[multiple] = true);
        }
    }
    primes
}

/// `number` modulo a divisor of at most 32 bits.
fn residue(number: &[u64], divisor: u64) -> u64 {
    number
        .iter()
        .rev()
        .flat_map(|limb| [limb >> 32, limb & u64::from(u32::MAX)])
        .fold(0, |rest, digit| (rest << 32 | digit) % divisor)
}

/// 2^(n-1) = 1 modulo n: nearly no composite passes.
fn passes_fermat(number: &[u64]) -> bool {
    let modulus = Modulus::new(number);
    let mut two = zeros(number.len());
    two[0] = 2;
    let mut exponent = Zeroizing::new(number.to_vec());
    exponent[0] -= 1;
    *modulus.power(&modulus.enter(&two), &exponent) == *modulus.one()
}

/// Baillie-PSW and Miller-Rabin.
pub fn is_prime(number: &[u64]) -> bool {
    let number = Zeroizing::new(BoxedUint::from_words(number.iter().copied()));
    let rounds = FipsOptions::with_mr_iterations(ROUNDS);
    is_baillie_psw_prime(Flavor::Any, &*number)
        && fips::is_prime(&mut UnwrapErr(SysRng), Flavor::Any, &*number, rounds)
}

pub fn is_safe_prime(number: &[u64]) -> bool {
    number[0] & 3 == 3 && is_prime(number) && is_prime(&halve(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn safe_primes_have_their_size_and_are_safe() {
        let prime = safe_prime(512);
        assert_eq!(prime[7] >> 62, 3);
        assert!(is_safe_prime(&prime));
    }

    #[test]
    fn tells_primes_from_composites() {
        // 2^127 - 1 is prime, but (2^127 - 2)/2 is not; 2047 passes Miller-Rabin to base 2.
        let mersenne = [u64::MAX, u64::MAX >> 1];
        assert!(is_prime(&mersenne) && !is_safe_prime(&mersenne));
        assert!(!is_prime(&[2047]) && is_safe_prime(&[2879]));
        assert!(!passes_fermat(&[2049]) && passes_fermat(&[2879]));
    }

    #[test]
    fn the_sieve_keeps_just_those_without_small_factors() {
        let small = odd_primes(100);
        assert_eq!(small.len(), 24);
        let start = [u64::MAX, 1];
        let kept = sieve(&start, &small);
        let free = |i: &usize| {
            let q = (2u128 << 64) - 1 + 2 * *i as u128;
            let divides = |s: &u32| [q, 2 * q + 1].iter().any(|n| n.is_multiple_of((*s).into()));
            !small.iter().any(divides)
        };
        assert!(kept.iter().copied().eq((0..CANDIDATES).filter(free)));
    }
}
