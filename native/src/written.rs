//! Canonical JSON (RFC 8785) of plain Python objects.

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyInt, PyList, PyString, PyTuple};

/// How deep values may nest; the program's own entries need two.
const DEPTH: usize = 16;

/// Integers of at most 15 digits, which a double holds exactly.
const LIMIT: i64 = 1_000_000_000_000_000;

/// The canonical JSON of an object, or None if that takes more than copying: escapes, names that
/// are not ASCII, numbers other than integers of at most 15 digits, deep nesting, other types.
pub fn object(value: &Bound<'_, PyAny>) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(256);
    members(value.cast_exact().ok()?, DEPTH, &mut out)?;
    Some(out)
}

fn value(value: &Bound<'_, PyAny>, depth: usize, out: &mut Vec<u8>) -> Option<()> {
    let depth = depth.checked_sub(1)?;
    // By their very types: what a subclass stands for is not ours to say.
    if let Ok(text) = value.cast_exact::<PyString>() {
        string(text.to_str().ok()?, out)
    } else if let Ok(number) = value.cast_exact::<PyInt>() {
        integer(number.extract().ok()?, out)
    } else if let Ok(dict) = value.cast_exact::<PyDict>() {
        members(dict, depth, out)
    } else if let Ok(list) = value.cast_exact::<PyList>() {
        array(list.iter(), depth, out)
    } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
        array(tuple.iter(), depth, out)
    } else if let Ok(truth) = value.cast_exact::<PyBool>() {
        out.extend_from_slice(if truth.is_true() { b"true" } else { b"false" });
        Some(())
    } else {
        out.extend_from_slice(b"null");
        value.is_none().then_some(())
    }
}

fn members(dict: &Bound<'_, PyDict>, depth: usize, out: &mut Vec<u8>) -> Option<()> {
    let mut items = Vec::with_capacity(dict.len());
    for (name, item) in dict.iter() {
        items.push((name.cast_into_exact::<PyString>().ok()?, item));
    }
    let mut named = Vec::with_capacity(items.len());
    for (name, item) in &items {
        let name = name.to_str().ok()?;
        // In the order of UTF-16, which for ASCII is that of the bytes.
        if !name.is_ascii() {
            return None;
        }
        named.push((name, item));
    }
    named.sort_unstable_by_key(|(name, _)| *name);
    out.push(b'{');
    for (i, (name, item)) in named.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        string(name, out)?;
        out.push(b':');
        value(item, depth, out)?;
    }
    out.push(b'}');
    Some(())
}

fn array<'py>(
    items: impl Iterator<Item = Bound<'py, PyAny>>,
    depth: usize,
    out: &mut Vec<u8>,
) -> Option<()> {
    out.push(b'[');
    for (i, item) in items.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        value(&item, depth, out)?;
    }
    out.push(b']');
    Some(())
}

fn string(text: &str, out: &mut Vec<u8>) -> Option<()> {
    let plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    // Of all bytes, without an early end: so it takes many at a time.
    if !text.bytes().fold(true, |all, byte| all & plain(byte)) {
        return None;
    }
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
    Some(())
}

fn integer(number: i64, out: &mut Vec<u8>) -> Option<()> {
    if number <= -LIMIT || number >= LIMIT {
        return None;
    }
    out.extend_from_slice(number.to_string().as_bytes());
    Some(())
}
