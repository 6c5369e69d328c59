//! Where a 16-byte key stands.

use rayon::prelude::*;

use crate::error::{Result, refuse};
use crate::random;

/// Keys to a unit of parallel work.
const BLOCK: usize = 4096;

/// A hash table with open addressing. The keys may be a peer's choice, so the hash is seeded: a
/// peer cannot prepare keys that fall together.
pub struct Index {
    keys: Vec<u128>,
    /// Row + 1, or 0 for a free slot; at least half are free.
    slots: Vec<u32>,
    seed: [u64; 2],
}

impl Index {
    /// Refuses the first key that stands in an earlier row.
    pub fn new(keys: Vec<u128>) -> Result<Self> {
        if keys.len() >= u32::MAX as usize {
            refuse!("an index holds less than 2^32 - 1 keys");
        }
        let mut seed = [0; 2];
        random::fill_limbs(&mut seed);
        let slots = vec![0; (2 * keys.len()).next_power_of_two()];
        let mut index = Self { keys, slots, seed };
        for row in 0..index.keys.len() {
            match index.probe(index.keys[row]) {
                Ok(earlier) => refuse!("row {row} has the key of row {earlier}"),
                Err(free) => index.slots[free] = row as u32 + 1,
            }
        }
        Ok(index)
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// The row of each key, or -1.
    pub fn find(&self, keys: impl IndexedParallelIterator<Item = u128>) -> Vec<i64> {
        keys.with_min_len(BLOCK).map(|key| self.probe(key).map_or(-1, |row| row as i64)).collect()
    }

    /// The row of the key, or else the free slot where it would go.
    fn probe(&self, key: u128) -> Result<usize, usize> {
        let mask = self.slots.len() - 1;
        let low = key as u64 ^ self.seed[0];
        let high = (key >> 64) as u64 ^ self.seed[1];
        let product = u128::from(low) * u128::from(high);
        let mut slot = (product as u64 ^ (product >> 64) as u64) as usize & mask;
        loop {
            match self.slots[slot] {
                0 => return Err(slot),
                row if self.keys[row as usize - 1] == key => return Ok(row as usize - 1),
                _ => slot = (slot + 1) & mask,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_there_and_only_that() {
        let keys: Vec<u128> = (0..10_000).map(|i| (i << 64) | (i * i)).collect();
        let index = Index::new(keys.clone()).unwrap();
        let asked: Vec<u128> = keys.iter().rev().flat_map(|key| [*key, key ^ 1 << 127]).collect();
        let expected: Vec<i64> = (0..10_000).rev().flat_map(|row| [row, -1]).collect();
        assert_eq!(index.find(asked.into_par_iter()), expected);
    }

    #[test]
    fn empty_and_repeated() {
        let empty = Index::new(vec![]).unwrap();
        assert_eq!(empty.find([0u128].into_par_iter()), [-1]);
        assert!(Index::new(vec![1, 2, 1]).is_err());
    }
}
