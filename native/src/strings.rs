//! Many byte strings as one joined buffer with n + 1 offsets.
//!
//! Each may be followed by a gap, as a line is by its newline.

use crate::error::{Result, refuse};

#[derive(Clone, Copy)]
pub struct Strings<'a> {
    data: &'a [u8],
    offsets: &'a [u64],
    gap: usize,
}

impl<'a> Strings<'a> {
    pub fn new(data: &'a [u8], offsets: &'a [u64], gap: usize) -> Result<Self> {
        match offsets.last() {
            None => refuse!("offsets must have at least one element"),
            Some(&end) if end > data.len() as u64 => refuse!("offsets reach beyond the data"),
            Some(_) if !offsets.is_sorted() => refuse!("offsets must not decrease"),
            Some(_) if offsets.windows(2).any(|pair| pair[1] - pair[0] < gap as u64) => {
                refuse!("a string is shorter than the gap after it")
            }
            Some(_) => Ok(Self { data, offsets, gap }),
        }
    }

    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    pub fn get(&self, i: usize) -> &'a [u8] {
        &self.data[self.offsets[i] as usize..self.offsets[i + 1] as usize - self.gap]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_offsets_that_leave_the_data_or_run_backwards() {
        assert!(Strings::new(b"abc", &[], 0).is_err());
        assert!(Strings::new(b"abc", &[0, 4], 0).is_err());
        assert!(Strings::new(b"abc", &[0, 2, 1, 3], 0).is_err());
        assert!(Strings::new(b"abc", &[u64::MAX, 3], 0).is_err());
        let strings = Strings::new(b"abc", &[0, 1, 1, 3], 0).unwrap();
        assert!(Strings::new(b"abc", &[0, 1, 1], 1).is_err());
        let lines = Strings::new(b"a\n\nbc\n", &[0, 2, 3, 6], 1).unwrap();
        assert_eq!([lines.get(0), lines.get(1), lines.get(2)], [b"a" as &[u8], b"", b"bc"]);
        assert_eq!(
            (0..strings.len()).map(|i| strings.get(i)).collect::<Vec<_>>(),
            [b"a" as &[u8], b"", b"bc"]
        );
    }
}
