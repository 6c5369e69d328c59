//! Entries of the log, written from plain Python objects as canonical JSON (RFC 8785).

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyInt, PyList, PyString, PyTuple};

/// How deep values may nest; the program's own entries need two.
const DEPTH: usize = 16;

/// Integers of at most 15 digits, which a double holds exactly.
const LIMIT: i64 = 1_000_000_000_000_000;

/// What the log adds to the body of an entry.
pub struct Added<'a> {
    pub kind: &'a str,
    pub time: &'a str,
    pub nonce: &'a str,
}

/// The canonical JSON of an entry, or None if that takes more than copying: escapes, names that
/// are not ASCII or that the log adds, numbers other than integers of at most 15 digits, deep
/// nesting, other types.
pub fn entry(body: &Bound<'_, PyAny>, added: &Added<'_>) -> Option<Vec<u8>> {
    let added = [("type", added.kind), ("time", added.time), ("nonce", added.nonce)];
    let mut out = Vec::with_capacity(512);
    members(body.cast_exact().ok()?, &added, DEPTH, &mut out)?;
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
        members(dict, &[], depth, out)
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

/// What a member holds: a value, or text that stands beside the object.
enum Held<'a, 'py> {
    Value(&'a Bound<'py, PyAny>),
    Text(&'a str),
}

fn members(
    dict: &Bound<'_, PyDict>,
    added: &[(&str, &str)],
    depth: usize,
    out: &mut Vec<u8>,
) -> Option<()> {
    let mut items = Vec::with_capacity(dict.len());
    for (name, item) in dict.iter() {
        items.push((name.cast_into_exact::<PyString>().ok()?, item));
    }
    let mut named = Vec::with_capacity(items.len() + added.len());
    named.extend(added.iter().map(|&(name, text)| (name, Held::Text(text))));
    for (name, item) in &items {
        let name = name.to_str().ok()?;
        // In the order of UTF-16, which for ASCII is that of the bytes.
        if !name.is_ascii() {
            return None;
        }
        named.push((name, Held::Value(item)));
    }
    named.sort_unstable_by_key(|(name, _)| *name);
    if named.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return None; // one that is added, too
    }
    out.push(b'{');
    for (i, (name, item)) in named.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        string(name, out)?;
        out.push(b':');
        match item {
            Held::Value(item) => value(item, depth, out)?,
            Held::Text(text) => string(text, out)?,
        }
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
