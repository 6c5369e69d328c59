use std::collections::TryReserveError;
use std::sync::Arc;

use rayon::prelude::*;

use crate::error::{Result, refuse};
use crate::paillier::PublicKey;

/// Threads beyond the first share out no more memory than this.
const PARTS_BYTES: usize = 256 << 20;

/// Running sums by group. A Montgomery product takes a factor R away, so it is enough to count
/// the products of each sum and to give the factors back once, at the end.
pub struct GroupSum {
    key: Arc<PublicKey>,
    groups: usize,
    /// One for each thread, so that threads never wait for each other.
    parts: Vec<Part>,
}

/// Each lane of a kernel has sums of its own: rows of one group may stand side by side.
pub(super) struct Part {
    groups: usize,
    stride: usize,
    /// By lane and group, the product of `counts` ciphertexts divided by R^(2 counts).
    pub products: Vec<u64>,
    pub counts: Vec<u64>,
}

impl Part {
    fn new(groups: usize, key: &PublicKey) -> Result<Self, TryReserveError> {
        let (width, stride) = (key.kernels().width(), key.kernels().stride());
        let (mut products, mut counts) = (Vec::new(), Vec::new());
        products.try_reserve_exact(groups.saturating_mul(width * stride))?;
        counts.try_reserve_exact(groups * width)?;
        products.resize(groups * width * stride, 0);
        products.iter_mut().step_by(stride).for_each(|limb| *limb = 1);
        counts.resize(groups * width, 0);
        Ok(Self { groups, stride, products, counts })
    }

    /// Where the product of a lane for a group starts.
    pub fn start(&self, lane: usize, group: usize) -> usize {
        (lane * self.groups + group) * self.stride
    }

    pub fn counted(&self, lane: usize, group: usize) -> u64 {
        self.counts[lane * self.groups + group]
    }

    /// Counts one ciphertext for each lane; where their products start.
    pub fn count(&mut self, groups: &[i64]) -> Vec<usize> {
        let count = |(lane, group): (usize, &i64)| {
            let group = *group as usize;
            self.counts[lane * self.groups + group] += 1;
            self.start(lane, group)
        };
        groups.iter().enumerate().map(count).collect()
    }
}

impl GroupSum {
    pub fn new(key: Arc<PublicKey>, groups: usize) -> Result<Self, TryReserveError> {
        let mut parts = vec![Part::new(groups, &key)?];
        let bytes = parts[0].products.len() * size_of::<u64>();
        let more = (PARTS_BYTES / bytes.max(1)).min(rayon::current_num_threads() - 1);
        for _ in 0..more {
            parts.push(Part::new(groups, &key)?);
        }
        Ok(Self { key, groups, parts })
    }

    /// Adds row i to the sum of `groups[i]`. Changes nothing if it refuses a row.
    pub fn add(&mut self, ciphertexts: &[u64], groups: &[i64]) -> Result<()> {
        let len = 2 * self.key.modulus().len();
        if ciphertexts.len() != len * groups.len() {
            refuse!("there must be one group for each ciphertext");
        }
        let limit = self.groups;
        let is_group = |group: i64| usize::try_from(group).is_ok_and(|group| group < limit);
        if let Some(row) = groups.iter().position(|group| !is_group(*group)) {
            refuse!("the group of row {row} is not between 0 and {}", limit as i64 - 1);
        }
        self.key.check_ciphertexts(ciphertexts)?;

        let kernels = self.key.kernels();
        let width = kernels.width();
        let share = groups.len().div_ceil(self.parts.len()).next_multiple_of(width).max(width);
        self.parts
            .par_iter_mut()
            .zip(ciphertexts.par_chunks(share * len).zip(groups.par_chunks(share)))
            .for_each(|(part, (ciphertexts, groups))| {
                for (ciphertexts, groups) in
                    ciphertexts.chunks(width * len).zip(groups.chunks(width))
                {
                    kernels.add_to_groups(part, ciphertexts, groups);
                }
            });
        Ok(())
    }

    /// One ciphertext a group; 1 for an empty group.
    pub fn result(&self) -> Vec<u64> {
        self.key.kernels().sums(&self.parts, self.groups)
    }
}
