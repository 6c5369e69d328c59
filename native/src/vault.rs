//! Secrets under a few wrapping keys, each bound to its person: AES-256-GCM (NIST SP 800-38D).

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use rayon::prelude::*;

use crate::error::{Result, refuse};
use crate::random;

const NONCE: usize = 12;
const SECRET: usize = 32;
const TAG: usize = 16;
pub const WRAPPED: usize = NONCE + SECRET + TAG;

/// Secrets to a unit of parallel work.
const BLOCK: usize = 256;

/// Wrapping keys, and which of them each secret is under.
pub struct Keys<'a> {
    ciphers: Vec<Aes256Gcm>,
    which: &'a [i64],
}

impl<'a> Keys<'a> {
    pub fn new(keys: &[[u8; 32]], which: &'a [i64]) -> Result<Self> {
        if which.iter().any(|&key| key < 0 || key >= keys.len() as i64) {
            refuse!("there are {} keys", keys.len());
        }
        let ciphers = keys.iter().map(|key| Aes256Gcm::new(key.into())).collect();
        Ok(Self { ciphers, which })
    }

    fn of(&self, i: usize) -> &Aes256Gcm {
        &self.ciphers[self.which[i] as usize]
    }

    fn check(&self, rows: usize, associated: usize) -> Result<()> {
        if self.which.len() != rows || associated != rows {
            refuse!(
                "{} keys and {associated} associated values for {rows} secrets",
                self.which.len()
            );
        }
        Ok(())
    }
}

/// Nonce, ciphertext and tag of each secret, with its associated data.
pub fn wrap(
    keys: &Keys<'_>,
    secrets: &[[u8; SECRET]],
    associated: &[[u8; 32]],
) -> Result<Vec<[u8; WRAPPED]>> {
    keys.check(secrets.len(), associated.len())?;
    let mut out = vec![[0; WRAPPED]; secrets.len()];
    out.par_chunks_mut(BLOCK).for_each(|block| {
        for row in block {
            random::fill(&mut row[..NONCE]);
        }
    });
    out.par_iter_mut().zip(secrets).zip(associated).enumerate().with_min_len(BLOCK).for_each(
        |(i, ((row, secret), associated))| {
            let (nonce, rest) = row.split_at_mut(NONCE);
            let (text, tag) = rest.split_at_mut(SECRET);
            text.copy_from_slice(secret);
            let nonce = Nonce::try_from(&*nonce).expect("a nonce has 12 bytes");
            let computed = keys
                .of(i)
                .encrypt_inout_detached(&nonce, associated, InOutBuf::from(text))
                .expect("a secret is shorter than 64 GiB");
            tag.copy_from_slice(&computed);
        },
    );
    Ok(out)
}

/// The secrets that `wrap` wrapped, zeros for one that does not open; and whether each opened.
pub fn unwrap(
    keys: &Keys<'_>,
    wrapped: &[[u8; WRAPPED]],
    associated: &[[u8; 32]],
) -> Result<(Vec<[u8; SECRET]>, Vec<bool>)> {
    keys.check(wrapped.len(), associated.len())?;
    Ok((wrapped, associated)
        .into_par_iter()
        .enumerate()
        .with_min_len(BLOCK)
        .map(|(i, (row, associated))| {
            let (nonce, rest) = row.split_at(NONCE);
            let (text, tag) = rest.split_at(SECRET);
            let mut secret = [0; SECRET];
            secret.copy_from_slice(text);
            let nonce = Nonce::try_from(nonce).expect("a nonce has 12 bytes");
            let tag = Tag::try_from(tag).expect("a tag has 16 bytes");
            let buffer = InOutBuf::from(&mut secret[..]);
            let opened =
                keys.of(i).decrypt_inout_detached(&nonce, associated, buffer, &tag).is_ok();
            if opened { (secret, true) } else { ([0; SECRET], false) }
        })
        .unzip())
}
