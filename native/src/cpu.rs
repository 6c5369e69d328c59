//! Which kernels this processor can run.

use std::sync::OnceLock;

/// Whether the 8-lane kernels may run: the processor has AVX-512 IFMA, and the environment variable
/// CONCORDAT_PORTABLE is not set. Asked once, at first use. Emulated lanes run on any processor.
pub fn has_ifma() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| std::env::var_os("CONCORDAT_PORTABLE").is_none() && detected())
}

#[cfg(all(target_arch = "x86_64", not(feature = "emulated-lanes")))]
fn detected() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512ifma")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
}

#[cfg(not(all(target_arch = "x86_64", not(feature = "emulated-lanes"))))]
fn detected() -> bool {
    cfg!(feature = "emulated-lanes")
}
