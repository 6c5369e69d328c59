//! [`Batch`] for any processor: one number at a time, always reduced.

use crate::bigint::batch::Batch;
use crate::bigint::montgomery::Modulus;
use crate::bigint::{choose, multiply_add_to, zeros};

impl Batch for Modulus {
    type Limb = u64;
    const WIDTH: usize = 1;
    const ZERO: u64 = 0;
    const BITS: usize = 64;
    const MAX_WINDOW: usize = 8;

    fn new(m: &[u64]) -> Self {
        Modulus::new(m)
    }

    fn limbs(&self) -> usize {
        self.len()
    }

    fn load(&self, rows: &[u64], _: usize, out: &mut [u64]) {
        out[..rows.len()].copy_from_slice(rows);
        out[rows.len()..].fill(0);
    }

    fn store(&self, x: &[u64], rows: &mut [u64], columns: usize) {
        rows.copy_from_slice(&x[..columns]);
    }

    fn choose(&self, table: &[u64], index: usize, out: &mut [u64]) {
        choose(table, index, out);
    }

    fn stride(&self) -> usize {
        2 * self.len()
    }

    fn scatter(&self, x: &[u64], table: &mut [u64], starts: &[usize]) {
        table[starts[0]..][..x.len()].copy_from_slice(x);
    }

    fn gather(&self, table: &[u64], starts: &[usize], out: &mut [u64]) {
        out.copy_from_slice(&table[starts[0]..][..out.len()]);
    }

    fn product(&self, a: &[u64], b: &[u64], out: &mut [u64]) {
        Modulus::multiply(self, a, b, out);
    }

    fn difference(&self, a: &[u64], b: &[u64], out: &mut [u64]) {
        self.subtract(a, b, out);
    }

    fn add(&self, a: &mut [u64], b: &[u64]) {
        // A digit that passes m counts 1 in the next.
        let mut passed = false;
        for (a, b) in a.chunks_exact_mut(self.len()).zip(b.chunks_exact(self.len())) {
            let mut carry = passed;
            for (a, b) in a.iter_mut().zip(b) {
                (*a, carry) = a.carrying_add(*b, carry);
            }
            (_, passed) = self.subtract_if_above(carry.into(), a);
        }
    }

    fn multiply_add(&self, a: &[u64], b: &[u64], addend: &[u64], out: &mut [u64]) {
        multiply_add_to(a, b, addend, out);
    }

    fn multiply(&self, a: &[u64], b: &[u64], out: &mut [u64]) {
        let ((a0, a1), (b0, b1)) = (a.split_at(self.len()), b.split_at(self.len()));
        self.multiply_digits(a0, b0, b1, out);
        let mut mixed = zeros(self.len());
        Modulus::multiply(self, a1, b0, &mut mixed);
        self.add(&mut out[self.len()..], &mixed);
    }

    fn square(&self, a: &[u64], out: &mut [u64]) {
        let (a0, a1) = a.split_at(self.len());
        let mut double = zeros(self.len());
        double.copy_from_slice(a1);
        self.add(&mut double, a1);
        self.multiply_digits(a0, a0, &double, out);
    }

    fn split(&self, x: &[u64], out: &mut [u64]) {
        let (low, high) = out.split_at_mut(self.len());
        low.copy_from_slice(&x[..self.len()]);
        let (above, carry) = self.quotient_of(None, low, high);
        let mut carried = false;
        for (limb, x) in low.iter_mut().zip(&x[self.len()..]) {
            (*limb, carried) = limb.carrying_add(*x, carried);
        }
        self.finish_digits(None, low, high, above + u64::from(carried), carry);
    }

    fn reduce(&self, _: &mut [u64]) {}
}

impl Modulus {
    /// The digits of a(b0 + b1 m)/R.
    #[inline(never)]
    fn multiply_digits(&self, a: &[u64], b0: &[u64], b1: &[u64], out: &mut [u64]) {
        let (low, high) = out.split_at_mut(self.len());
        low.fill(0);
        let (above, carry) = self.quotient_of(Some((a, b0)), low, high);
        self.finish_digits(Some((a, b1)), low, high, above, carry);
    }

    /// low = (product + low + qm)/R and high = R - q; the limbs above both.
    #[inline(always)]
    fn quotient_of(
        &self,
        product: Option<(&[u64], &[u64])>,
        low: &mut [u64],
        high: &mut [u64],
    ) -> (u64, u64) {
        // The complement and 1.
        let mut carry = true;
        let above = self.add_product(product, low, 0, |i, quotient| {
            (high[i], carry) = (!quotient).overflowing_add(carry.into());
        });
        (above, carry.into())
    }

    /// Reduces `low`, and high = (product + high)/R - 1.
    #[inline(always)]
    fn finish_digits(
        &self,
        product: Option<(&[u64], &[u64])>,
        low: &mut [u64],
        high: &mut [u64],
        above_low: u64,
        above_high: u64,
    ) {
        // Below 2m; an m taken away here is a 1 for the other digit.
        let (_, mut carry) = self.subtract_if_above(above_low, low);
        let mut above = self.add_product(product, high, above_high, |_, _| ());
        // What has become of R.
        let mut borrow = true;
        for limb in high.iter_mut() {
            let (less, under) = limb.overflowing_sub(borrow.into());
            let (more, over) = less.overflowing_add(carry.into());
            (*limb, borrow, carry) = (more, under, over);
        }
        above = above + u64::from(carry) - u64::from(borrow);
        // Below 2m.
        self.subtract_if_above(above, high);
    }
}
