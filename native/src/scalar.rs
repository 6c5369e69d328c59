//! Secret multipliers on Curve25519.

use crypto_bigint::{Odd, U256};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::error::{Result, refuse};
use crate::random;

/// The prime order l = 2^252 + 27742317777372353535851937790883648493.
const ORDER: Odd<U256> =
    Odd::<U256>::from_be_hex("1000000000000000000000000000000014def9dea2f79cd65812631a5cf5d3ed");

/// 32 little-endian bytes: a multiple of the cofactor 8, so that a product says nothing of the
/// small-order part of a point, and not of the order, so that it never maps honest points to zero.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Scalar([u8; 32]);

impl Scalar {
    /// 8s, s uniform and non-zero modulo l.
    pub fn random() -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        loop {
            random::fill(&mut *bytes);
            bytes[31] &= 0x1f; // 253 bits: about half of them are below l
            let s = Zeroizing::new(U256::from_le_slice(&*bytes));
            if *s < *ORDER && s.is_nonzero().into() {
                return Self::eightfold(&s);
            }
        }
    }

    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self> {
        let scalar = Self(bytes);
        if scalar.0[0] & 7 != 0 {
            refuse!("a scalar must be a multiple of 8");
        }
        if scalar.residue().is_zero().into() {
            refuse!("a scalar must not be a multiple of the group order");
        }
        Ok(scalar)
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// For 8s: 8 ((64s)^-1 mod l). The product of both is 1 modulo l and divisible by 64.
    pub fn inverse(&self) -> Self {
        let order = ORDER.as_nz_ref();
        let eight_k = Zeroizing::new(self.residue().mul_mod(&U256::from_u8(8), order));
        let inverse = eight_k.invert_odd_mod(&ORDER).expect("l is prime and does not divide 8k");
        Self::eightfold(&Zeroizing::new(inverse))
    }

    fn residue(&self) -> Zeroizing<U256> {
        Zeroizing::new(U256::from_le_slice(&self.0).rem(ORDER.as_nz_ref()))
    }

    /// 8s for s below l: below 2^256.
    fn eightfold(s: &U256) -> Self {
        Self(s.shl_vartime(3).to_le_bytes().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product(a: &Scalar, b: &Scalar) -> U256 {
        a.residue().mul_mod(&b.residue(), ORDER.as_nz_ref())
    }

    #[test]
    fn inverse_undoes() {
        for _ in 0..100 {
            let scalar = Scalar::random();
            let inverse = scalar.inverse();
            assert_eq!(product(&scalar, &inverse), U256::ONE);
            assert_eq!(inverse.as_bytes()[0] & 7, 0);
            assert_eq!(inverse.inverse().as_bytes(), scalar.as_bytes());
        }
    }

    #[test]
    fn refuses_what_is_no_multiplier() {
        let eight_l = ORDER.shl_vartime(3).to_le_bytes().into();
        assert!(Scalar::from_bytes(eight_l).is_err());
        assert!(Scalar::from_bytes([0; 32]).is_err());
        assert!(Scalar::from_bytes([9; 32]).is_err());
        assert!(Scalar::from_bytes([8; 32]).is_ok());
    }
}
