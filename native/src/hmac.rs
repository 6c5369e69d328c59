//! HMAC-SHA256 (RFC 2104) of many strings.

use hmac::{Hmac, KeyInit, Mac};
use rayon::prelude::*;
use sha2::Sha256;

use crate::error::{Result, refuse};
use crate::strings::Strings;

/// Strings to a unit of parallel work.
const BLOCK: usize = 1024;

/// Every string under one key.
pub fn one_key(key: &[u8], strings: Strings<'_>) -> Vec<[u8; 32]> {
    let start = keyed(key);
    each(strings, |i| start.clone().chain_update(strings.get(i)))
}

/// String i under key i.
pub fn own_keys(keys: &[[u8; 32]], strings: Strings<'_>) -> Result<Vec<[u8; 32]>> {
    if keys.len() != strings.len() {
        refuse!("{} keys for {} strings", keys.len(), strings.len());
    }
    Ok(each(strings, |i| keyed(&keys[i]).chain_update(strings.get(i))))
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes a key of any length")
}

fn each(strings: Strings<'_>, mac: impl Fn(usize) -> Hmac<Sha256> + Sync) -> Vec<[u8; 32]> {
    (0..strings.len())
        .into_par_iter()
        .with_min_len(BLOCK)
        .map(|i| mac(i).finalize().into_bytes().into())
        .collect()
}
