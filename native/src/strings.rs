//! Many byte strings as one joined buffer with n + 1 offsets.

use crate::error::{Result, refuse};

#[derive(Clone, Copy)]
pub struct Strings<'a> {
    data: &'a [u8],
    offsets: &'a [u64],
}

impl<'a> Strings<'a> {
    pub fn new(data: &'a [u8], offsets: &'a [u64]) -> Result<Self> {
        match offsets.last() {
            None => refuse!("offsets must have at least one element"),
            Some(&end) if end > data.len() as u64 => refuse!("offsets reach beyond the data"),
            Some(_) if !offsets.is_sorted() => refuse!("offsets must not decrease"),
            Some(_) => Ok(Self { data, offsets }),
        }
    }

    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    pub fn get(&self, i: usize) -> &'a [u8] {
        &self.data[self.offsets[i] as usize..self.offsets[i + 1] as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_offsets_that_leave_the_data_or_run_backwards() {
        assert!(Strings::new(b"abc", &[]).is_err());
        assert!(Strings::new(b"abc", &[0, 4]).is_err());
        assert!(Strings::new(b"abc", &[0, 2, 1, 3]).is_err());
        assert!(Strings::new(b"abc", &[u64::MAX, 3]).is_err());
        let strings = Strings::new(b"abc", &[0, 1, 1, 3]).unwrap();
        assert_eq!(
            (0..strings.len()).map(|i| strings.get(i)).collect::<Vec<_>>(),
            [b"a" as &[u8], b"", b"bc"]
        );
    }
}
