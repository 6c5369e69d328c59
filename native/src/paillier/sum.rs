use std::collections::TryReserveError;
use std::sync::Arc;

use rayon::prelude::*;

use crate::bigint::{Limbs, zeros};
use crate::error::{Result, refuse};
use crate::paillier::PublicKey;

/// Running sums by group. A Montgomery product takes a factor R away, so it is enough to count
/// the products of each sum and to give the factors back once, at the end.
pub struct GroupSum {
    key: Arc<PublicKey>,
    groups: usize,
    /// One for each thread, so that threads never wait for each other.
    parts: Vec<Part>,
}

struct Part {
    /// For each group, the product of its `counts` ciphertexts divided by R^counts.
    products: Vec<u64>,
    counts: Vec<u64>,
}

impl Part {
    fn new(groups: usize, len: usize) -> Result<Self, TryReserveError> {
        let (mut products, mut counts) = (Vec::new(), Vec::new());
        products.try_reserve_exact(groups.saturating_mul(len))?;
        counts.try_reserve_exact(groups)?;
        products.resize(groups * len, 0);
        products.iter_mut().step_by(len).for_each(|limb| *limb = 1);
        counts.resize(groups, 0);
        Ok(Self { products, counts })
    }
}

impl GroupSum {
    pub fn new(key: Arc<PublicKey>, groups: usize) -> Result<Self, TryReserveError> {
        let len = key.square().len();
        let parts = (0..rayon::current_num_threads())
            .map(|_| Part::new(groups, len))
            .collect::<Result<_, _>>()?;
        Ok(Self { key, groups, parts })
    }

    /// Adds row i to the sum of `groups[i]`. Changes nothing if it refuses a row.
    pub fn add(&mut self, ciphertexts: &[u64], groups: &[i64]) -> Result<()> {
        let square = self.key.square();
        let len = square.len();
        if ciphertexts.len() != len * groups.len() {
            refuse!("there must be one group for each ciphertext");
        }
        let limit = self.groups;
        let is_group = |group: i64| usize::try_from(group).is_ok_and(|group| group < limit);
        if let Some(row) = groups.iter().position(|group| !is_group(*group)) {
            refuse!("the group of row {row} is not between 0 and {}", limit as i64 - 1);
        }
        self.key.check_ciphertexts(ciphertexts)?;

        let share = groups.len().div_ceil(self.parts.len()).max(1);
        self.parts
            .par_iter_mut()
            .zip(ciphertexts.par_chunks(share * len).zip(groups.par_chunks(share)))
            .for_each(|(part, (ciphertexts, groups))| {
                let mut next = zeros(len);
                for (ciphertext, group) in ciphertexts.chunks_exact(len).zip(groups) {
                    let group = *group as usize;
                    let product = &mut part.products[group * len..][..len];
                    square.multiply(product, ciphertext, &mut next);
                    product.copy_from_slice(&next);
                    part.counts[group] += 1;
                }
            });
        Ok(())
    }

    /// One ciphertext a group; 1 for an empty group.
    pub fn result(&self) -> Vec<u64> {
        let square = self.key.square();
        let len = square.len();
        let mut out = vec![0; self.groups * len];
        out.par_chunks_exact_mut(len).enumerate().for_each(|(group, out)| {
            // In Montgomery form, so that products of two sums keep their factors.
            let mut sum = Limbs::from(square.one().to_vec());
            for part in &self.parts {
                let missing = square.power(square.r2(), &[part.counts[group]]);
                let part = square.product(&part.products[group * len..][..len], &missing);
                sum = square.product(&square.enter(&part), &sum);
            }
            out.copy_from_slice(&square.leave(&sum));
        });
        out
    }
}
