//! The operating system's generator. A process that cannot read it has no safe way to go on.

use zeroize::Zeroizing;

pub fn fill(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system's random generator failed");
}

/// Fills limbs with independent uniform bits.
pub fn fill_limbs(limbs: &mut [u64]) {
    let mut bytes = Zeroizing::new(vec![0; limbs.len() * 8]);
    fill(&mut bytes);
    for (limb, chunk) in limbs.iter_mut().zip(bytes.as_chunks().0) {
        *limb = u64::from_le_bytes(*chunk);
    }
}
