//! Merkle tree heads as in RFC 6962, section 2.1.

use rayon::prelude::*;
use sha2::{Digest, Sha256};

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

pub fn leaf_hashes(leaves: Strings<'_>) -> Vec<[u8; 32]> {
    let hash = |i| Sha256::new().chain_update([0]).chain_update(leaves.get(i)).finalize().into();
    if leaves.len() <= BLOCK {
        return (0..leaves.len()).map(hash).collect();
    }
    (0..leaves.len()).into_par_iter().with_min_len(BLOCK).map(hash).collect()
}

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
