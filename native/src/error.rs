use std::fmt;

use pyo3::PyErr;
use pyo3::exceptions::PyValueError;

/// Input that a kernel refuses. Names rows and lengths, never their content.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed(pub String);

pub type Result<T, E = Malformed> = std::result::Result<T, E>;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Malformed> for PyErr {
    fn from(error: Malformed) -> Self {
        PyValueError::new_err(error.0)
    }
}

/// `return Err(Malformed(format!(...)))`, short.
macro_rules! refuse {
    ($($text:tt)*) => {
        return Err($crate::error::Malformed(format!($($text)*)))
    };
}
pub(crate) use refuse;
