//! Rows of a table that only whoever knows the row's label can find and open: AES-256-GCM
//! (NIST SP 800-38D) under keys derived from the labels, many at a time.

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use rayon::prelude::*;
use sha2::{Digest, Sha512};

use crate::error::{Result, refuse};
use crate::random;
use crate::strings::Strings;

/// Bytes of a label: 16 to find a row, 32 to open it.
pub const LABEL: usize = 48;
const NONCE: usize = 12;
const TAG: usize = 16;
pub const OVERHEAD: usize = NONCE + TAG;

/// Rows to a unit of parallel work.
const BLOCK: usize = 256;

/// The first 48 bytes of SHA-512(prefix || string || point) for each string and its point.
pub fn derive(
    prefix: &[u8],
    strings: Strings<'_>,
    points: &[[u8; 32]],
) -> Result<Vec<[u8; LABEL]>> {
    if points.len() != strings.len() {
        refuse!("{} points for {} strings", points.len(), strings.len());
    }
    let start = Sha512::new().chain_update(prefix);
    let label = |i: usize| {
        let hash = start.clone().chain_update(strings.get(i)).chain_update(points[i]).finalize();
        let (label, _) = hash.split_first_chunk().expect("a SHA-512 has 64 bytes");
        *label
    };
    Ok((0..strings.len()).into_par_iter().with_min_len(BLOCK).map(label).collect())
}

/// Nonce, ciphertext and tag of each payload of `width` bytes under its key.
pub fn seal(
    keys: &[[u8; 32]],
    payloads: &[u8],
    width: usize,
    associated: &[u8],
) -> Result<Vec<u8>> {
    if payloads.len() != keys.len() * width {
        refuse!("there must be one key for each payload");
    }
    let sealed = width + OVERHEAD;
    let mut out = vec![0; keys.len() * sealed];
    out.par_chunks_mut(BLOCK * sealed).zip(keys.par_chunks(BLOCK)).enumerate().for_each(
        |(block, (out, keys))| {
            for (i, (row, key)) in out.chunks_exact_mut(sealed).zip(keys).enumerate() {
                let (nonce, rest) = row.split_at_mut(NONCE);
                random::fill(nonce);
                let (text, tag) = rest.split_at_mut(width);
                text.copy_from_slice(&payloads[(block * BLOCK + i) * width..][..width]);
                let nonce = Nonce::try_from(&*nonce).expect("a nonce has 12 bytes");
                let computed = Aes256Gcm::new(key.into())
                    .encrypt_inout_detached(&nonce, associated, InOutBuf::from(text))
                    .expect("a payload is shorter than 64 GiB");
                tag.copy_from_slice(&computed);
            }
        },
    );
    Ok(out)
}

/// The payloads of rows that `seal` made, and which of the rows open; of the others, zeros. One that
/// does not is no failure: whoever made the table could tell from a failure who was looked up.
pub fn open(
    keys: &[[u8; 32]],
    rows: &[u8],
    width: usize,
    associated: &[u8],
) -> Result<(Vec<u8>, Vec<bool>)> {
    if width < OVERHEAD || rows.len() != keys.len() * width {
        refuse!("there must be one key for each row, and a row has at least {OVERHEAD} bytes");
    }
    let text = NONCE..width - TAG;
    let mut rows = rows.to_vec();
    let opens = |(row, key): (&mut [u8], &[u8; 32])| {
        let (nonce, rest) = row.split_at_mut(NONCE);
        let (text, tag) = rest.split_at_mut(width - OVERHEAD);
        let nonce = Nonce::try_from(&*nonce).expect("a nonce has 12 bytes");
        let tag = Tag::try_from(&*tag).expect("a tag has 16 bytes");
        let opens = Aes256Gcm::new(key.into())
            .decrypt_inout_detached(&nonce, associated, InOutBuf::from(&mut *text), &tag)
            .is_ok();
        if !opens {
            text.fill(0);
        }
        opens
    };
    let opened =
        rows.par_chunks_exact_mut(width).zip(keys).with_min_len(BLOCK).map(opens).collect();
    let mut payloads = Vec::with_capacity(keys.len() * text.len());
    rows.chunks_exact(width).for_each(|row| payloads.extend_from_slice(&row[text.clone()]));
    Ok((payloads, opened))
}
