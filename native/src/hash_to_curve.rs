//! RFC 9380, suite curve25519_XMD:SHA-512_ELL2_RO_, many strings at a time.

use rayon::prelude::*;
use sha2::{Digest, Sha512};
use subtle::{ConditionallySelectable, ConstantTimeEq};
use zeroize::Zeroizing;

#[cfg(any(target_arch = "x86_64", feature = "emulated-lanes"))]
use crate::cpu::has_ifma;
use crate::curve::{A, BLOCK, Projective, encode_all};
use crate::error::{Result, refuse};
use crate::field25519::Field;
#[cfg(any(target_arch = "x86_64", feature = "emulated-lanes"))]
use crate::ifma;
use crate::strings::Strings;

/// A point with an affine v-coordinate and u = x/z.
struct Point {
    u: Projective,
    v: Field,
}

/// The u-coordinates of `prefix || string` hashed to the prime-order group.
pub fn hash(prefix: &[u8], strings: Strings<'_>, tag: &[u8]) -> Result<Vec<[u8; 32]>> {
    if tag.is_empty() || tag.len() > 255 {
        refuse!("the domain separation tag must have 1 to 255 bytes");
    }
    let hasher = Hasher::new(prefix, tag);
    let mut out = vec![[0; 32]; strings.len()];
    out.par_chunks_mut(BLOCK).enumerate().for_each(|(block, out)| {
        let first = block * BLOCK;
        let strings = (first..first + out.len()).map(|i| strings.get(i)).collect::<Vec<_>>();
        hash_block(&hasher.expand_block(&strings), out);
    });
    Ok(out)
}

/// Expanded messages to points.
fn hash_block(uniform: &Zeroizing<Vec<[u8; 96]>>, out: &mut [[u8; 32]]) {
    #[cfg(any(target_arch = "x86_64", feature = "emulated-lanes"))]
    if has_ifma() {
        // SAFETY: the processor has the features.
        return unsafe { ifma::hash_to_curve::hash_block(uniform, out) };
    }
    hash_block_portable(uniform, out);
}

fn hash_block_portable(uniform: &[[u8; 96]], out: &mut [[u8; 32]]) {
    let points = uniform.iter().map(|bytes| {
        let [a, b] = hash_to_field(bytes).map(map_to_curve);
        // Times the cofactor.
        add(&a, &b).double().double().double()
    });
    encode_all(points.collect::<Vec<_>>().into(), out);
}

struct Hasher<'a> {
    prefix: &'a [u8],
    /// SHA-512 after the zero block and the prefix.
    start: Sha512,
    /// The tag and its length.
    tag: Vec<u8>,
}

impl<'a> Hasher<'a> {
    fn new(prefix: &'a [u8], tag: &[u8]) -> Self {
        let start = Sha512::new().chain_update([0; 128]).chain_update(prefix);
        Self { prefix, start, tag: [tag, &[tag.len() as u8]].concat() }
    }

    fn expand_block(&self, strings: &[&[u8]]) -> Zeroizing<Vec<[u8; 96]>> {
        #[cfg(any(target_arch = "x86_64", feature = "emulated-lanes"))]
        if has_ifma() {
            let mut out = Zeroizing::new(vec![[0; 96]; strings.len()]);
            // SAFETY: the processor has the features.
            unsafe { ifma::sha512::expand_block(self.prefix, strings, &self.tag, &mut out) };
            return out;
        }
        strings.iter().map(|string| self.expand(string)).collect::<Vec<_>>().into()
    }

    /// 96 bytes of expand_message_xmd (section 5.3.1).
    fn expand(&self, message: &[u8]) -> [u8; 96] {
        let digest = |start: Sha512, parts: &[&[u8]]| {
            let hasher = parts.iter().fold(start, |hasher, part| hasher.chain_update(part));
            <[u8; 64]>::from(hasher.chain_update(&self.tag).finalize())
        };
        let b0 = digest(self.start.clone(), &[message, &[0, 96], &[0]]);
        let b1 = digest(Sha512::new(), &[&b0, &[1]]);
        let mixed: [u8; 64] = std::array::from_fn(|i| b0[i] ^ b1[i]);
        let b2 = digest(Sha512::new(), &[&mixed, &[2]]);
        let mut uniform = [0; 96];
        uniform[..64].copy_from_slice(&b1);
        uniform[64..].copy_from_slice(&b2[..32]);
        uniform
    }
}

/// Two elements (section 5.2).
fn hash_to_field(uniform: &[u8; 96]) -> [Field; 2] {
    std::array::from_fn(|i| Field::from_be_48(&uniform.as_chunks().0[i]))
}

/// Elligator 2 (section 6.7.1) with Z = 2, constant time and without inversion.
///
/// With t = 2r^2 and d = 1 + t the two candidates are x1 = -A/d and x2 = -A - x1 = t x1, and for
/// g(x) = x^3 + Ax^2 + x, g(x2) = t g(x1) = 2r^2 g(x1); exactly one of them is a square. (d is
/// never zero: 2 is no square, -1 is one.)
fn map_to_curve(r: Field) -> Point {
    let a = Field::small(A);
    let t = r.square().times_small(2);
    let d = t + Field::ONE;
    // g(x1) = numerator / d^3
    let d2 = d.square();
    let d3 = d2 * d;
    let numerator = (a.square() * t - d2) * a;

    // Of numerator/d^3 as a fraction, one exponentiation gives a root w of it times a fourth root
    // of unity: w = n d^9 (n d^21)^((p-5)/8), so w^2 d^3 = +-n or +-sqrt(-1) n.
    let nd9 = numerator * d3.square() * d3;
    let nd21 = nd9 * d3.square().square();
    let w = nd9 * nd21.power_p58();
    let root_of = |w: Field, n: &Field| {
        let exact = (w.square() * d3).ct_eq(n);
        Field::conditional_select(&(w * Field::SQRT_MINUS_ONE), &w, exact)
    };
    let v1 = root_of(w, &numerator);
    // In the other case w^2 d^3 = +-sqrt(-1) n, and 2 = -sqrt(-1) (1 + sqrt(-1))^2 turns it into
    // a root of 2r^2 n: multiply by r (1 + sqrt(-1)).
    let other = t * numerator;
    let v2 = root_of(w * r * (Field::ONE + Field::SQRT_MINUS_ONE), &other);

    let first = (v1.square() * d3).ct_eq(&numerator);
    let x = Field::conditional_select(&(t * (Field::ZERO - a)), &(Field::ZERO - a), first);
    let v = Field::conditional_select(&v2, &v1, first);
    // sgn0 is 1 for the first candidate, 0 for the second.
    let negate = v.is_odd() ^ first;
    let v = Field::conditional_select(&v, &-v, negate);
    Point { u: Projective { x, z: d }, v }
}

/// The sum of two points, as a u-coordinate.
///
/// From u = ((v2-v1)/(u2-u1))^2 - A - u1 - u2, with both fractions over one denominator. Opposite
/// points give z = 0, the neutral element. Only equal points need the other formula; they come
/// from colliding hashes, which nobody can find.
fn add(left: &Point, right: &Point) -> Projective {
    let (xz, zx, zz) = (left.u.x * right.u.z, left.u.z * right.u.x, left.u.z * right.u.z);
    let du = zx - xz;
    let dv = right.v - left.v;
    let du2 = du.square();
    let zz_dv = zz * dv;
    let sum =
        Projective { x: zz_dv.square() * zz - du2 * (zz.times_small(A) + xz + zx), z: du2 * zz };
    let equal = du.is_zero() & dv.is_zero();
    Projective {
        x: Field::conditional_select(&sum.x, &left.u.double().x, equal),
        z: Field::conditional_select(&sum.z, &left.u.double().z, equal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn affine(point: Projective) -> [u8; 32] {
        (point.x * point.z.invert()).encode()
    }

    /// Hashes reach these only by chance, the map takes them as any other.
    fn inputs() -> [Field; 5] {
        [Field::ZERO, Field::ONE, -Field::ONE, Field::SQRT_MINUS_ONE, Field::small(12345)]
    }

    #[test]
    fn maps_onto_the_curve() {
        for r in inputs() {
            let point = map_to_curve(r);
            let u = point.u.x * point.u.z.invert();
            let right = u * (u.square() + u * Field::small(A) + Field::ONE);
            assert_eq!(point.v.square().encode(), right.encode());
            let same = map_to_curve(-r);
            assert_eq!(affine(same.u), affine(point.u));
        }
    }

    #[test]
    fn adds_equal_and_opposite_points() {
        for r in &inputs()[1..] {
            let (left, mut right) = (map_to_curve(*r), map_to_curve(-*r));
            assert_eq!(affine(add(&left, &right)), affine(left.u.double()));
            right.v = -right.v;
            let zero = add(&left, &right);
            assert!(bool::from(zero.z.is_zero() & !zero.x.is_zero()));
        }
    }

    #[test]
    fn adds_the_point_of_order_two() {
        // (0, 0) is what zero maps to; adding it twice changes nothing: u(P + (0, 0)) = 1/u(P).
        let order_two = map_to_curve(Field::ZERO);
        for r in &inputs()[1..] {
            let point = map_to_curve(*r);
            let sum = add(&point, &order_two);
            assert_eq!(affine(sum), (point.u.z * point.u.x.invert()).encode());
        }
    }

    /// Both paths, with messages of zero to three blocks, of unlike lengths side by side.
    #[test]
    fn both_paths_expand_alike() {
        let bytes = (0..=255).chain(0..=255).collect::<Vec<u8>>();
        for (prefix, tag) in [(0, 1), (3, 40), (128, 255)] {
            let hasher = Hasher::new(&bytes[..prefix], &bytes[..tag]);
            let strings = (0..bytes.len() - 130).step_by(5).map(|len| &bytes[len / 3..][..len]);
            let strings = strings.collect::<Vec<_>>();
            let expected = strings.iter().map(|string| hasher.expand(string)).collect::<Vec<_>>();
            assert_eq!(*hasher.expand_block(&strings), expected);
        }
    }

    /// Both paths, where this processor (or the emulation) has both.
    #[test]
    fn both_paths_agree() {
        // Zero, p, 2p and all ones among field elements, then those of random bytes.
        let mut uniform = vec![[0; 96], [0xff; 96]];
        let mut p = [0xff; 96];
        p[..16].fill(0);
        (p[16], p[47]) = (0x7f, 0xed);
        p[48..64].fill(0);
        p[95] = 0xda;
        uniform.push(p);
        uniform.resize_with(100, || {
            let mut bytes = [0; 96];
            crate::random::fill(&mut bytes);
            bytes
        });
        let uniform = Zeroizing::new(uniform);
        let (mut expected, mut found) = (vec![[0; 32]; 100], vec![[0; 32]; 100]);
        hash_block_portable(&uniform, &mut expected);
        hash_block(&uniform, &mut found);
        assert_eq!(found, expected);
    }
}
