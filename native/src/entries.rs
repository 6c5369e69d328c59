//! Entries of the log that are plainly what they should be.

use rayon::prelude::*;

use crate::error::{Result, refuse};
use crate::strings::Strings;

/// Entries to a unit of parallel work; fewer are not worth waking a thread for.
const BLOCK: usize = 1024;

/// How deep values may nest; the program's own entries need two.
const DEPTH: usize = 16;

/// The columns beside the entries: what each says under this name.
pub struct Column<'a> {
    pub name: &'a [u8],
    pub values: Strings<'a>,
}

/// Whether each leaf is plainly a JSON object in canonical form (RFC 8785) whose members agree
/// with the columns, and without a member of the name `apart`. An empty value in a column stands
/// for no such member.
///
/// "Plainly" leaves out what takes more than a glance: escapes, names that are not ASCII, numbers
/// other than integers of at most 15 digits, deep nesting. Of those the answer is no, whatever they
/// are; so yes is always true.
pub fn plain(leaves: Strings<'_>, columns: &[Column<'_>], apart: &[u8]) -> Result<Vec<bool>> {
    for column in columns {
        if column.values.len() != leaves.len() {
            refuse!("{} values for {} entries", column.values.len(), leaves.len());
        }
    }
    let plain = |i| is_plain(leaves.get(i), columns, i, apart).is_some();
    if leaves.len() <= BLOCK {
        return Ok((0..leaves.len()).map(plain).collect());
    }
    Ok((0..leaves.len()).into_par_iter().with_min_len(BLOCK).map(plain).collect())
}

fn is_plain(leaf: &[u8], columns: &[Column<'_>], i: usize, apart: &[u8]) -> Option<()> {
    let mut scanner = Scanner { rest: std::str::from_utf8(leaf).ok()?.as_bytes() };
    let mut expected = columns.iter().filter(|column| !column.values.get(i).is_empty()).count();
    scanner.object(|scanner, name| {
        if name == apart {
            return None;
        }
        match columns.iter().find(|column| column.name == name) {
            None => scanner.value(DEPTH),
            Some(column) => {
                expected = expected.checked_sub(1)?;
                let value = scanner.string()?;
                (!value.is_empty() && value == column.values.get(i)).then_some(())
            }
        }
    })?;
    (expected == 0 && scanner.rest.is_empty()).then_some(())
}

/// Reads canonical JSON; None where it is not plain.
struct Scanner<'a> {
    rest: &'a [u8],
}

impl<'a> Scanner<'a> {
    fn value(&mut self, depth: usize) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        match self.rest.first()? {
            b'"' => self.string().map(|_| ()),
            b'{' => self.object(|scanner, _| scanner.value(depth)),
            b'[' => self.array(depth),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            _ => self.integer(),
        }
    }

    fn object(&mut self, mut member: impl FnMut(&mut Self, &[u8]) -> Option<()>) -> Option<()> {
        self.word(b"{")?;
        if self.word(b"}").is_some() {
            return Some(());
        }
        let mut last: Option<&[u8]> = None;
        loop {
            let name = self.string()?;
            // In the order of UTF-16, which for ASCII is that of the bytes, and each once.
            if !name.is_ascii() || last.is_some_and(|last| name <= last) {
                return None;
            }
            last = Some(name);
            self.word(b":")?;
            member(self, name)?;
            if self.word(b",").is_none() {
                return self.word(b"}");
            }
        }
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        self.word(b"[")?;
        if self.word(b"]").is_some() {
            return Some(());
        }
        loop {
            self.value(depth)?;
            if self.word(b",").is_none() {
                return self.word(b"]");
            }
        }
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        self.word(b"\"")?;
        let end =
            self.rest.iter().position(|&byte| byte == b'"' || byte == b'\\' || byte < 0x20)?;
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest.strip_prefix(b"\"")?;
        Some(text)
    }

    /// At most 15 digits, so that a double holds it exactly.
    fn integer(&mut self) -> Option<()> {
        let unsigned = self.rest.strip_prefix(b"-").unwrap_or(self.rest);
        let digits = unsigned.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let zero = unsigned.first() == Some(&b'0');
        if digits == 0 || digits > 15 || (zero && unsigned.len() < self.rest.len()) {
            return None;
        }
        if zero && digits > 1 {
            return None;
        }
        self.rest = &unsigned[digits..];
        // What could follow in a number is no end of a value: the caller refuses it.
        Some(())
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(word)?;
        Some(())
    }
}
