//! What the Paillier kernels ask of a processor: arithmetic modulo an odd m, and modulo its square,
//! on a few numbers at a time.

use zeroize::{Zeroize, Zeroizing};

/// Limbs of `WIDTH` numbers at a time, and modulo one m. A number has `limbs()` of them, and R is
/// the power of two just beyond.
///
/// A number x modulo m^2 is kept as its two digits to the base m, x0 + x1 m, one after the other,
/// and stands for xR^-1 modulo m^2 as usual after Montgomery. A product of two is
///
///   ab = a0 b0 + (a0 b1 + a1 b0) m   modulo m^2
///
/// and if c0 = (a0 b0 + qm)/R is Montgomery's reduction of the first part, then
///
///   ab/R = c0 + ((a0 b1 + a1 b0 - q)/R modulo m) m
///
/// with one more reduction modulo m: five multiplications of half the length, where Montgomery's
/// form modulo m^2 takes two of full length, the work of eight.
///
/// "Reduced" means below m. What `add`, `multiply`, `square` and `split` leave need not be reduced,
/// but may be an operand of any of them; digits of a sum of four such products too.
pub trait Batch: Sized + Send + Sync + 'static {
    /// One limb of `WIDTH` numbers.
    type Limb: Copy + Zeroize + Send + Sync;
    const WIDTH: usize;
    const ZERO: Self::Limb;
    /// Bits of a limb.
    const BITS: usize;
    /// More bits of an exponent at a time would not pay for the table of powers.
    const MAX_WINDOW: usize;

    fn new(m: &[u64]) -> Self;
    fn limbs(&self) -> usize;

    /// From at most `WIDTH` rows of 64-bit limbs; zero where there is no row or no limb.
    fn load(&self, rows: &[u64], columns: usize, out: &mut [Self::Limb]);
    /// To at most `WIDTH` rows, which must have room for the values.
    fn store(&self, x: &[Self::Limb], rows: &mut [u64], columns: usize);

    /// out = number `index` of a table, by reading all of it: which one stays secret.
    fn choose(&self, table: &[Self::Limb], index: usize, out: &mut [Self::Limb]);

    /// 64-bit words that `scatter` fills for each number modulo m^2.
    fn stride(&self) -> usize;
    /// Puts numbers modulo m^2 where `starts` says, at most `WIDTH` of them, and gets them back,
    /// zero beyond.
    fn scatter(&self, x: &[Self::Limb], table: &mut [u64], starts: &[usize]);
    fn gather(&self, table: &[u64], starts: &[usize], out: &mut [Self::Limb]);
    /// Says that these will be wanted.
    fn prefetch(&self, _table: &[u64], _starts: &[usize]) {}

    /// out = ab/R modulo m, reduced, for a below R and b reduced.
    fn product(&self, a: &[Self::Limb], b: &[Self::Limb], out: &mut [Self::Limb]);
    /// out = a - b modulo m, all reduced.
    fn difference(&self, a: &[Self::Limb], b: &[Self::Limb], out: &mut [Self::Limb]);
    /// a += b modulo m, or with two digits modulo m^2.
    fn add(&self, a: &mut [Self::Limb], b: &[Self::Limb]);
    /// out = ab + addend, of any length; of `out` as many limbs as a and b have together.
    fn multiply_add(
        &self,
        a: &[Self::Limb],
        b: &[Self::Limb],
        addend: &[Self::Limb],
        out: &mut [Self::Limb],
    );

    /// out = ab/R modulo m^2. A factor of one reduced digit may be any number below R.
    fn multiply(&self, a: &[Self::Limb], b: &[Self::Limb], out: &mut [Self::Limb]);
    /// out = a^2/R modulo m^2.
    fn square(&self, a: &[Self::Limb], out: &mut [Self::Limb]);
    /// out = x/R modulo m^2 as digits, for x below m^2 that is not in digits yet.
    fn split(&self, x: &[Self::Limb], out: &mut [Self::Limb]);
    /// Reduces both digits.
    fn reduce(&self, x: &mut [Self::Limb]);
}

pub type Numbers<B> = Zeroizing<Vec<<B as Batch>::Limb>>;

pub fn zeros<B: Batch>(limbs: usize) -> Numbers<B> {
    Zeroizing::new(vec![B::ZERO; limbs])
}
