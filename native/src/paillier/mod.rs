//! Paillier's cryptosystem (Eurocrypt 1999) with generator 1 + n, many rows at a time.
//!
//! Plaintexts are rows of L limbs, ciphertexts rows of 2L limbs, L = bits/64 of the modulus n.

mod public;
mod rerandomiser;
mod secret;
mod sum;

use rayon::prelude::*;

pub use public::PublicKey;
pub use rerandomiser::Rerandomiser;
pub use secret::SecretKey;
pub use sum::GroupSum;

use crate::bigint::below;
use crate::error::{Result, refuse};

/// Rows to a unit of parallel work.
const BLOCK: usize = 16;

/// Sizes of n that are accepted: multiples of 128 bits in this range.
const BITS: std::ops::RangeInclusive<usize> = 1024..=4096;

/// Generic attacks on a short exponent cost the root of its range: 224 bits would do for the 112
/// of the smallest modulus. Twice that leaves a margin.
const MIN_EXPONENT_BITS: usize = 448;

fn check_size(bits: usize) -> Result<()> {
    if !BITS.contains(&bits) || !bits.is_multiple_of(128) {
        refuse!("a modulus has 1024 to 4096 bits, a multiple of 128, not {bits}");
    }
    Ok(())
}

/// The length of random exponents: 0 stands for the longest.
fn exponent_length(bits: usize, longest: usize) -> Result<usize> {
    match bits {
        0 => Ok(longest),
        bits if (MIN_EXPONENT_BITS..=longest).contains(&bits) => Ok(bits),
        bits => refuse!(
            "exponents have 0 (for the default) or {MIN_EXPONENT_BITS} to {longest} bits, not {bits}"
        ),
    }
}

/// Refuses the first row that is not below the bound.
fn check_below(what: &str, rows: &[u64], bound: &[u64]) -> Result<()> {
    match first_not_below(rows, bound) {
        Some(row) => refuse!("{what} {row} is too large for the key"),
        None => Ok(()),
    }
}

fn first_not_below(rows: &[u64], bound: &[u64]) -> Option<usize> {
    rows.par_chunks_exact(bound.len()).position_first(|row| !below(row, bound))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::bigint::montgomery::Modulus;
    use crate::bigint::{Limbs, fill_below, multiply, remainder, zeros};

    /// Two safe primes of 512 bits, least significant byte last.
    const PRIMES: [&str; 2] = [
        "e73f96cea73e53ea2d4443840b984b49d372c41d19bc35ba6131fe69af1947c0\
         2ad0ab4dcc02a40bfe4bed970adcc7b4d676ea1785867a41b0e83a520edac96f",
        "c9f0642b579bce7b8cb2faf927e83f6c001ac20facb850104d0ec05ca5e516b5\
         52e415755dba9c2970047728dc031f0bf599f6f57d732ba66f7ccdce761588cf",
    ];
    /// More than lanes, and no multiple of them.
    const ROWS: usize = 11;

    fn key() -> SecretKey {
        let [p, q] = PRIMES.map(|hex| {
            let digit = |i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
            (0..hex.len()).step_by(2).rev().map(digit).collect::<Vec<u8>>()
        });
        SecretKey::from_bytes(&p, &q).unwrap()
    }

    /// 0, 1, n-1 and random numbers.
    fn plaintexts(n: &[u64]) -> Vec<u64> {
        let mut rows = vec![0; ROWS * n.len()];
        fill_below(n, &mut rows[3 * n.len()..]);
        rows[n.len()] = 1;
        rows[2 * n.len()..3 * n.len()].copy_from_slice(n);
        rows[2 * n.len()] -= 1; // n is odd
        rows
    }

    /// (1 + mn) r^n, by plain integers and a Montgomery form modulo n^2.
    fn ciphertexts(n: &[u64], plaintexts: &[u64]) -> Vec<u64> {
        let square = multiply(n, n);
        let modulus = Modulus::new(&square);
        let mut out = vec![];
        for plaintext in plaintexts.chunks_exact(n.len()) {
            let mut r = zeros(square.len());
            fill_below(n, &mut r[..n.len()]);
            let mut one = zeros(square.len());
            one[0] = 1;
            let mask = modulus.product(&modulus.power(&modulus.enter(&r), n), &one);
            let mut power: Limbs = multiply(plaintext, n);
            power[0] += 1; // below n^2; mn is even, or ends in less than 2^64 - 1
            out.extend_from_slice(&remainder(&multiply(&power, &mask), &square));
        }
        out
    }

    /// Whatever path the processor takes: what plain integers encrypt is decrypted, and everything
    /// that makes a ciphertext makes one that is.
    #[test]
    fn agrees_with_integers() {
        let key = key();
        let public = Arc::clone(key.public());
        let n = public.modulus();
        let rows = plaintexts(n);
        let plain = ciphertexts(n, &rows);
        assert_eq!(key.decrypt(&plain).unwrap(), rows);

        for made in [
            key.encrypt(&rows, 0),
            key.encrypt(&rows, MIN_EXPONENT_BITS),
            public.encrypt(&rows, 0),
            public.encrypt(&rows, MIN_EXPONENT_BITS),
            public.encrypt_uniform(&rows),
            public.rerandomise(&plain, None),
        ] {
            let made = made.unwrap();
            assert_ne!(made, plain);
            assert_eq!(key.decrypt(&made).unwrap(), rows);
            public.check(&made).unwrap();
        }

        let plus = |a: &[u64], b: &[u64]| {
            let mut sum = [a, &[0]].concat();
            let mut carry = false;
            for (x, y) in sum.iter_mut().zip(b.iter().chain([&0])) {
                (*x, carry) = x.carrying_add(*y, carry);
            }
            remainder(&sum, n).to_vec()
        };
        let row = |i: usize| &rows[i * n.len()..][..n.len()];
        let twice: Vec<u64> = (0..ROWS).flat_map(|i| plus(row(i), row(i))).collect();
        assert_eq!(key.decrypt(&public.add(&plain, &plain).unwrap()).unwrap(), twice);

        // Three groups, of which one stays empty, in two portions.
        let mut sums = GroupSum::new(Arc::clone(&public), 3).unwrap();
        let groups: Vec<i64> = (0..ROWS as i64).map(|i| i % 2 * 2).collect();
        sums.add(&plain, &groups).unwrap();
        sums.add(&plain[..2 * n.len()], &[0]).unwrap();
        let mut expected = vec![0; 3 * n.len()];
        for (i, group) in groups.iter().map(|group| *group as usize).enumerate() {
            let sum = &mut expected[group * n.len()..][..n.len()];
            sum.copy_from_slice(&plus(sum, row(i)));
        }
        assert_eq!(key.decrypt(&sums.result()).unwrap(), expected);

        let choices: Vec<i64> = (0..2 * ROWS as i64).map(|i| i % ROWS as i64).collect();
        let chosen = Rerandomiser::new(public.clone()).unwrap().sums(&plain, &choices, 2).unwrap();
        let row_of = |i: usize| row(choices[i] as usize);
        let expected: Vec<u64> =
            (0..ROWS).flat_map(|i| plus(row_of(2 * i), row_of(2 * i + 1))).collect();
        assert_eq!(key.decrypt(&chosen).unwrap(), expected);
    }
}
