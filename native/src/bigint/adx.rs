//! Rows of products by MULX, ADCX and ADOX (Intel from Broadwell, AMD from Zen on): two chains of
//! carries at once, each in a flag of its own, which compilers do not write.

use std::arch::asm;

/// Limbs to a block of code.
const BLOCK: usize = 8;

pub fn available() -> bool {
    is_x86_feature_detected!("bmi2") && is_x86_feature_detected!("adx")
}

/// One limb: the product's low half, what the last one carries and the limb of `out` meet in `low`.
macro_rules! limb {
    ($carried:literal, $carries:literal, $at:literal) => {
        concat!(
            "mulx {",
            $carries,
            "}, {low}, [{a} + ",
            $at,
            "]\n",
            "adcx {low}, {",
            $carried,
            "}\n",
            "adox {low}, [{out} + ",
            $at,
            "]\n",
            "mov [{out} + ",
            $at,
            "], {low}",
        )
    };
}

/// out += ax for numbers of one length, and the limb that it carries.
///
/// # Safety
/// The processor must have what `available` asks for.
#[inline]
pub unsafe fn multiply_add_row(out: &mut [u64], a: &[u64], x: u64) -> u64 {
    assert_eq!(out.len(), a.len());
    let (out_blocks, out_rest) = out.as_chunks_mut::<BLOCK>();
    let (a_blocks, a_rest) = a.as_chunks::<BLOCK>();
    let mut carry = 0;
    for (out, a) in out_blocks.iter_mut().zip(a_blocks) {
        // SAFETY: reads and writes the block only; the time depends on no value.
        unsafe {
            asm!(
                "xor {low:e}, {low:e}", // and both flags
                limb!("carry", "high", "0"),
                limb!("high", "carry", "8"),
                limb!("carry", "high", "16"),
                limb!("high", "carry", "24"),
                limb!("carry", "high", "32"),
                limb!("high", "carry", "40"),
                limb!("carry", "high", "48"),
                limb!("high", "carry", "56"),
                "mov {low:e}, 0",
                "adcx {carry}, {low}",
                "adox {carry}, {low}",
                a = in(reg) a.as_ptr(),
                out = in(reg) out.as_mut_ptr(),
                in("rdx") x,
                carry = inout(reg) carry,
                low = out(reg) _,
                high = out(reg) _,
                options(nostack),
            );
        }
    }
    for (out, a) in out_rest.iter_mut().zip(a_rest) {
        (*out, carry) = a.carrying_mul_add(x, *out, carry);
    }
    carry
}
