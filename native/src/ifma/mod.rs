//! Kernels for AVX-512 IFMA: eight 64-bit lanes, products of 52 bits.

pub mod curve25519;
pub mod field25519;
pub mod hash_to_curve;
pub mod lanes;
#[cfg_attr(feature = "emulated-lanes", allow(unused_unsafe))]
pub mod modulus;
pub mod sha512;
