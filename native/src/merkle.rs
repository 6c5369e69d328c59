//! Merkle tree heads as in RFC 6962, section 2.1.

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::error::{Result, refuse};
use crate::strings::Strings;

/// Hashes to a unit of parallel work. Fewer are done at once by who asks: waking a thread of the
/// pool takes longer, and on a busy machine much longer.
const BLOCK: usize = 1024;

pub fn root(leaves: Strings<'_>) -> [u8; 32] {
    if leaves.len() == 0 {
        return Sha256::digest([]).into();
    }
    let mut level = leaf_hashes(leaves);
    // Pairing neighbours and lifting an odd last node builds the RFC's tree, whose left sub-trees
    // are the largest full ones.
    while level.len() > 1 {
        level = level.par_chunks(2).with_min_len(BLOCK).map(parent).collect();
    }
    level[0]
}

pub fn leaf_hash(leaf: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update([0]).chain_update(leaf).finalize().into()
}

pub fn leaf_hashes(leaves: Strings<'_>) -> Vec<[u8; 32]> {
    let hash = |i| leaf_hash(leaves.get(i));
    if leaves.len() <= BLOCK {
        return (0..leaves.len()).map(hash).collect();
    }
    (0..leaves.len()).into_par_iter().with_min_len(BLOCK).map(hash).collect()
}

/// A tree of a size, whose largest complete subtrees are the peaks, with more leaves.
///
/// Its peaks then, and the subtrees that this completes: of each level from 1 up, where the first
/// stands on its level and their hashes.
pub fn grown(size: u64, peaks: &[[u8; 32]], leaves: &[[u8; 32]]) -> Result<Grown> {
    if peaks.len() != size.count_ones() as usize {
        refuse!("{} peaks for {size} leaves", peaks.len());
    }
    let mut old = peaks.to_vec();
    let mut new = Vec::new(); // from the lowest level up
    let mut completed = Vec::new();
    let (mut start, mut level) = (size, leaves.to_vec());
    while !level.is_empty() {
        if start & 1 == 1 {
            level.insert(0, old.pop().expect("a peak for every bit of the size"));
            start -= 1;
        }
        if level.len() % 2 == 1 {
            new.push(level[level.len() - 1]);
        }
        (start, level) = (start >> 1, parents(&level));
        if !level.is_empty() {
            completed.push((start, level.clone()));
        }
    }
    old.extend(new.into_iter().rev());
    Ok((old, completed))
}

type Grown = (Vec<[u8; 32]>, Vec<(u64, Vec<[u8; 32]>)>);

/// The nodes above neighbours; an odd last one has none.
pub fn parents(children: &[[u8; 32]]) -> Vec<[u8; 32]> {
    if children.len() <= 2 * BLOCK {
        return children.chunks_exact(2).map(parent).collect();
    }
    children.par_chunks_exact(2).with_min_len(BLOCK).map(parent).collect()
}

fn parent(children: &[[u8; 32]]) -> [u8; 32] {
    match children {
        [left, right] => {
            Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
        }
        _ => children[0],
    }
}
