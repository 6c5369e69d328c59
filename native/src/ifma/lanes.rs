//! Eight unsigned 64-bit integers, and what the kernels do with them: the instructions of AVX-512
//! IFMA, or with the feature `emulated-lanes` the same in plain Rust, which is slow and lets any
//! processor test the kernels.
//!
//! Safety: the functions are inlined into kernels that enable the processor features, and those run
//! only where `cpu::has_ifma` found them. They touch registers only.

#[cfg(feature = "emulated-lanes")]
pub use emulated::*;
#[cfg(not(feature = "emulated-lanes"))]
pub use x86_64::*;

pub const LANES: usize = 8;

/// One bit a lane.
pub type Mask = u8;

/// Bits of a factor that the multiply-add instructions take; they ignore the others.
pub const BITS: u32 = 52;
pub const LIMB: u64 = (1 << BITS) - 1;

/// The first words, or fewer and zeros.
#[inline]
#[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
pub fn load_some(words: &[u64]) -> Lanes {
    let mut lanes = [0; LANES];
    match words.first_chunk() {
        Some(words) => lanes = *words,
        None => lanes[..words.len()].copy_from_slice(words),
    }
    load(lanes)
}

/// To the first words, or fewer.
#[inline]
#[cfg_attr(not(feature = "emulated-lanes"), target_feature(enable = "avx512dq,avx512ifma"))]
pub fn store_some(lanes: Lanes, words: &mut [u64]) {
    let len = words.len().min(LANES);
    words[..len].copy_from_slice(&store(lanes)[..len]);
}

#[cfg(not(feature = "emulated-lanes"))]
mod x86_64 {
    use std::arch::x86_64::*;

    use super::{LANES, Mask};

    pub type Lanes = __m512i;

    pub const ZERO: Lanes = unsafe { std::mem::transmute([0u64; LANES]) };

    #[inline]
    #[target_feature(enable = "avx512dq,avx512ifma")]
    pub fn splat(value: u64) -> Lanes {
        _mm512_set1_epi64(value as i64)
    }

    #[inline]
    #[target_feature(enable = "avx512dq,avx512ifma")]
    pub fn and(a: Lanes, b: u64) -> Lanes {
        _mm512_and_si512(a, splat(b))
    }

    #[inline]
    #[target_feature(enable = "avx512dq,avx512ifma")]
    pub fn or(a: Lanes, b: Lanes) -> Lanes {
        _mm512_or_si512(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx512dq,avx512ifma")]
    pub fn xor(a: Lanes, b: Lanes) -> Lanes {
        _mm512_xor_si512(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx512dq,avx512ifma")]
    pub fn plus(a: Lanes, b: Lanes) -> Lanes {
        _mm512_add_epi64(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx512dq,avx512ifma")]
    pub fn minus(a: Lanes, b: Lanes) -> Lanes {
        _mm512_sub_epi64(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx512dq,avx512ifma")]
    pub fn right<const BY: u32>(a: Lanes) -> Lanes {
        _mm512_srli_epi64::<BY>(a)
    }

    #[inline]
    #[target_feature(enable = "avx512dq,avx512ifma")]
    pub fn left<const BY: u32>(a: Lanes) -> Lanes {
        _mm512_slli_epi64::<BY>(a)
    }

    /// To the right.
    #[inline]
    #[target_feature(enable = "avx512dq,avx512ifma")]
    pub fn rotate<const BY: i32>(a: Lanes) -> Lanes {
        _mm512_ror_epi64::<BY>(a)
    }

    /// The low 64 bits of the product.
    #[inline]
    #[target_feature(enable = "avx512dq,avx512ifma")]
    pub fn multiply(a: Lanes, b: u64) -> Lanes {
        _mm512_mullo_epi64(a, splat(b))
    }

    /// sum + (a b mod 2^52), of a and b their low 52 bits.
    #[inline]
    #[target_feature(enable = "avx512dq,avx512ifma")]
    pub fn low(sum: Lanes, a: Lanes, b: Lanes) -> Lanes {
        _mm512_madd52lo_epu64(sum, a, b)
    }

    /// sum + (a b div 2^52), of a and b their low 52 bits.
    #[inline]
    #[target_feature(enable = "avx512dq,avx512ifma")]
    pub fn high(sum: Lanes, a: Lanes, b: Lanes) -> Lanes {
        _mm512_madd52hi_epu64(sum, a, b)
    }

    #[inline]
    #[target_feature(enable = "avx512dq,avx512ifma")]
    pub fn select(choice: Mask, yes: Lanes, no: Lanes) -> Lanes {
        _mm512_mask_blend_epi64(choice, no, yes)
    }

    #[inline]
    #[target_feature(enable = "avx512dq,avx512ifma")]
    pub fn equal(a: Lanes, b: u64) -> Mask {
        _mm512_cmpeq_epi64_mask(a, splat(b))
    }

    #[inline]
    #[target_feature(enable = "avx512dq,avx512ifma")]
    pub fn load(lanes: [u64; LANES]) -> Lanes {
        unsafe { std::mem::transmute(lanes) }
    }

    #[inline]
    #[target_feature(enable = "avx512dq,avx512ifma")]
    pub fn store(lanes: Lanes) -> [u64; LANES] {
        unsafe { std::mem::transmute(lanes) }
    }

    #[inline]
    #[target_feature(enable = "avx512dq,avx512ifma")]
    pub fn both(a: Lanes, b: Lanes) -> Lanes {
        _mm512_and_si512(a, b)
    }

    /// Zero if there are 64 places or more.
    #[inline]
    #[target_feature(enable = "avx512dq,avx512ifma")]
    pub fn right_by(a: Lanes, by: u64) -> Lanes {
        _mm512_srlv_epi64(a, splat(by))
    }

    /// Zero if there are 64 places or more.
    #[inline]
    #[target_feature(enable = "avx512dq,avx512ifma")]
    pub fn left_by(a: Lanes, by: u64) -> Lanes {
        _mm512_sllv_epi64(a, splat(by))
    }

    /// Lane i of word k from lane k of word i.
    #[inline]
    #[target_feature(enable = "avx512dq,avx512ifma")]
    pub fn transpose(words: [Lanes; LANES]) -> [Lanes; LANES] {
        let [a, b, c, d, e, f, g, h] = words;
        // Pairs of lanes, then pairs of pairs, then halves.
        let pairs = [(a, b), (c, d), (e, f), (g, h)];
        let even = pairs.map(|(x, y)| _mm512_unpacklo_epi64(x, y));
        let odd = pairs.map(|(x, y)| _mm512_unpackhi_epi64(x, y));
        let [even, odd] = [even, odd].map(|[ab, cd, ef, gh]| {
            let low = _mm512_shuffle_i64x2::<0b10_00_10_00>(ab, cd);
            let high = _mm512_shuffle_i64x2::<0b11_01_11_01>(ab, cd);
            let low_2 = _mm512_shuffle_i64x2::<0b10_00_10_00>(ef, gh);
            let high_2 = _mm512_shuffle_i64x2::<0b11_01_11_01>(ef, gh);
            [
                _mm512_shuffle_i64x2::<0b10_00_10_00>(low, low_2),
                _mm512_shuffle_i64x2::<0b10_00_10_00>(high, high_2),
                _mm512_shuffle_i64x2::<0b11_01_11_01>(low, low_2),
                _mm512_shuffle_i64x2::<0b11_01_11_01>(high, high_2),
            ]
        });
        [even[0], odd[0], even[1], odd[1], even[2], odd[2], even[3], odd[3]]
    }

    pub fn prefetch(word: &u64) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(word).cast()) }
    }
}

#[cfg(feature = "emulated-lanes")]
mod emulated {
    use std::array::from_fn;

    use zeroize::DefaultIsZeroes;

    use super::{BITS, LANES, LIMB, Mask};

    #[derive(Clone, Copy, Default)]
    #[repr(align(64))]
    pub struct Lanes([u64; LANES]);

    impl DefaultIsZeroes for Lanes {}

    pub const ZERO: Lanes = Lanes([0; LANES]);

    pub fn splat(value: u64) -> Lanes {
        Lanes([value; LANES])
    }

    pub fn and(a: Lanes, b: u64) -> Lanes {
        Lanes(a.0.map(|x| x & b))
    }

    pub fn or(a: Lanes, b: Lanes) -> Lanes {
        Lanes(from_fn(|i| a.0[i] | b.0[i]))
    }

    pub fn xor(a: Lanes, b: Lanes) -> Lanes {
        Lanes(from_fn(|i| a.0[i] ^ b.0[i]))
    }

    pub fn plus(a: Lanes, b: Lanes) -> Lanes {
        Lanes(from_fn(|i| a.0[i].wrapping_add(b.0[i])))
    }

    pub fn minus(a: Lanes, b: Lanes) -> Lanes {
        Lanes(from_fn(|i| a.0[i].wrapping_sub(b.0[i])))
    }

    pub fn right<const BY: u32>(a: Lanes) -> Lanes {
        Lanes(a.0.map(|x| x >> BY))
    }

    pub fn left<const BY: u32>(a: Lanes) -> Lanes {
        Lanes(a.0.map(|x| x << BY))
    }

    pub fn rotate<const BY: i32>(a: Lanes) -> Lanes {
        Lanes(a.0.map(|x| x.rotate_right(BY as u32)))
    }

    pub fn multiply(a: Lanes, b: u64) -> Lanes {
        Lanes(a.0.map(|x| x.wrapping_mul(b)))
    }

    fn product(a: u64, b: u64) -> u128 {
        u128::from(a & LIMB) * u128::from(b & LIMB)
    }

    pub fn low(sum: Lanes, a: Lanes, b: Lanes) -> Lanes {
        Lanes(from_fn(|i| sum.0[i].wrapping_add(product(a.0[i], b.0[i]) as u64 & LIMB)))
    }

    pub fn high(sum: Lanes, a: Lanes, b: Lanes) -> Lanes {
        Lanes(from_fn(|i| sum.0[i].wrapping_add((product(a.0[i], b.0[i]) >> BITS) as u64)))
    }

    pub fn select(choice: Mask, yes: Lanes, no: Lanes) -> Lanes {
        Lanes(from_fn(|i| if choice >> i & 1 == 1 { yes.0[i] } else { no.0[i] }))
    }

    pub fn equal(a: Lanes, b: u64) -> Mask {
        (0..LANES).fold(0, |mask, i| mask | Mask::from(a.0[i] == b) << i)
    }

    pub fn load(lanes: [u64; LANES]) -> Lanes {
        Lanes(lanes)
    }

    pub fn store(lanes: Lanes) -> [u64; LANES] {
        lanes.0
    }

    pub fn both(a: Lanes, b: Lanes) -> Lanes {
        Lanes(from_fn(|i| a.0[i] & b.0[i]))
    }

    pub fn right_by(a: Lanes, by: u64) -> Lanes {
        Lanes(a.0.map(|x| x.checked_shr(by as u32).unwrap_or(0)))
    }

    pub fn left_by(a: Lanes, by: u64) -> Lanes {
        Lanes(a.0.map(|x| x.checked_shl(by as u32).unwrap_or(0)))
    }

    pub fn transpose(words: [Lanes; LANES]) -> [Lanes; LANES] {
        from_fn(|i| Lanes(words.map(|word| word.0[i])))
    }

    pub fn prefetch(_: &u64) {}
}
