//! Batch kernels on byte arrays: `federated._native`. The Python side of it is in
//! federated/_native.pyi; this file only checks shapes and releases the interpreter lock.

mod curve;
mod error;
mod field25519;
mod hash_to_curve;
mod hmac;
mod index;
mod merkle;
mod permutation;
mod pool;
mod random;
mod scalar;
mod strings;

use numpy::ndarray::Dimension;
use numpy::{
    Element, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray, PyReadonlyArray1,
    PyReadonlyArray2, PyUntypedArrayMethods,
};
use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rayon::prelude::*;

use crate::strings::Strings;

type Array2<'py, T> = Bound<'py, PyArray2<T>>;

/// The elements of a C-contiguous array, in order.
fn elements<'a, T: Element, D: Dimension>(
    array: &'a PyReadonlyArray<'_, T, D>,
) -> PyResult<&'a [T]> {
    match array.as_slice() {
        Ok(slice) if array.is_c_contiguous() => Ok(slice),
        _ => Err(PyValueError::new_err("an array must be C-contiguous and aligned")),
    }
}

/// The rows of a C-contiguous array that has W columns.
fn rows<'a, const W: usize>(array: &'a PyReadonlyArray2<'_, u8>) -> PyResult<&'a [[u8; W]]> {
    if array.shape()[1] != W {
        return Err(PyValueError::new_err(format!("an array must have {W} columns")));
    }
    Ok(elements(array)?.as_chunks().0)
}

fn to_array<'py, T: Element>(
    py: Python<'py>,
    elements: Vec<T>,
    columns: usize,
) -> PyResult<Array2<'py, T>> {
    let shape = [elements.len() / columns, columns];
    PyArray1::from_vec(py, elements).reshape(shape)
}

fn digests<'py>(py: Python<'py>, rows: Vec<[u8; 32]>) -> PyResult<Array2<'py, u8>> {
    to_array(py, rows.into_flattened(), 32)
}

/// A joined buffer: bytes or an array.
#[derive(FromPyObject)]
enum Data<'py> {
    Bytes(Bound<'py, PyBytes>),
    Array(PyReadonlyArray1<'py, u8>),
}

impl Data<'_> {
    fn strings<'a>(&'a self, offsets: &'a PyReadonlyArray1<'_, u64>) -> PyResult<Strings<'a>> {
        let data = match self {
            Data::Bytes(bytes) => bytes.as_bytes(),
            Data::Array(array) => elements(array)?,
        };
        Ok(Strings::new(data, elements(offsets)?)?)
    }
}

#[pymodule]
mod _native {
    use super::*;

    #[pyfunction]
    fn set_threads(count: usize) -> PyResult<()> {
        Ok(pool::set_threads(count)?)
    }

    #[pyfunction]
    fn permutation(py: Python<'_>, n: usize) -> PyResult<Bound<'_, PyArray1<u64>>> {
        let permutation = py
            .detach(|| crate::permutation::random(n))
            .map_err(|error| PyMemoryError::new_err(error.to_string()))?;
        Ok(PyArray1::from_vec(py, permutation))
    }

    #[pyfunction]
    fn hmac_sha256<'py>(
        py: Python<'py>,
        key: &[u8],
        data: Data<'py>,
        offsets: PyReadonlyArray1<'py, u64>,
    ) -> PyResult<Array2<'py, u8>> {
        let strings = data.strings(&offsets)?;
        digests(py, py.detach(|| hmac::one_key(key, strings)))
    }

    #[pyfunction]
    fn hmac_sha256_each<'py>(
        py: Python<'py>,
        keys: PyReadonlyArray2<'py, u8>,
        data: Data<'py>,
        offsets: PyReadonlyArray1<'py, u64>,
    ) -> PyResult<Array2<'py, u8>> {
        let (keys, strings) = (rows(&keys)?, data.strings(&offsets)?);
        digests(py, py.detach(|| hmac::own_keys(keys, strings))?)
    }

    #[pyfunction]
    fn merkle_root<'py>(
        py: Python<'py>,
        data: Data<'py>,
        offsets: PyReadonlyArray1<'py, u64>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let strings = data.strings(&offsets)?;
        Ok(PyBytes::new(py, &py.detach(|| merkle::root(strings))))
    }

    #[pyclass(frozen, module = "federated._native")]
    struct Scalar(scalar::Scalar);

    #[pymethods]
    impl Scalar {
        #[staticmethod]
        fn random() -> Self {
            Self(scalar::Scalar::random())
        }

        #[staticmethod]
        fn from_bytes(data: &[u8]) -> PyResult<Self> {
            let bytes =
                data.try_into().map_err(|_| PyValueError::new_err("a scalar has 32 bytes"))?;
            Ok(Self(scalar::Scalar::from_bytes(bytes)?))
        }

        fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
            PyBytes::new(py, self.0.as_bytes())
        }

        fn inverse(&self) -> Self {
            Self(self.0.inverse())
        }
    }

    #[pyfunction]
    fn hash_to_curve<'py>(
        py: Python<'py>,
        prefix: &[u8],
        data: Data<'py>,
        offsets: PyReadonlyArray1<'py, u64>,
        tag: &[u8],
    ) -> PyResult<Array2<'py, u8>> {
        let strings = data.strings(&offsets)?;
        digests(py, py.detach(|| crate::hash_to_curve::hash(prefix, strings, tag))?)
    }

    #[pyfunction]
    fn multiply<'py>(
        py: Python<'py>,
        points: PyReadonlyArray2<'py, u8>,
        scalar: &Scalar,
    ) -> PyResult<Array2<'py, u8>> {
        let points = rows(&points)?;
        digests(py, py.detach(|| curve::multiply(points, &scalar.0))?)
    }

    #[pyfunction]
    fn repeated(py: Python<'_>, points: PyReadonlyArray2<'_, u8>) -> PyResult<usize> {
        let points = rows(&points)?;
        Ok(py.detach(|| curve::repeated(points)))
    }

    /// The first 16 bytes of each row as a number.
    fn keys<'a>(
        array: &'a PyReadonlyArray2<'_, u8>,
    ) -> PyResult<impl IndexedParallelIterator<Item = u128> + use<'a>> {
        let width = array.shape()[1];
        if width < 16 {
            return Err(PyValueError::new_err("a key has at least 16 columns"));
        }
        let rows = elements(array)?.par_chunks_exact(width);
        Ok(rows.map(|row| u128::from_le_bytes(row.as_chunks().0[0])))
    }

    #[pyclass(frozen, module = "federated._native")]
    struct Index(index::Index);

    #[pymethods]
    impl Index {
        #[new]
        fn new(py: Python<'_>, keys: PyReadonlyArray2<'_, u8>) -> PyResult<Self> {
            let keys = self::keys(&keys)?;
            Ok(Self(py.detach(|| index::Index::new(keys.collect()))?))
        }

        fn __len__(&self) -> usize {
            self.0.len()
        }

        fn find<'py>(
            &self,
            py: Python<'py>,
            keys: PyReadonlyArray2<'py, u8>,
        ) -> PyResult<Bound<'py, PyArray1<i64>>> {
            let keys = self::keys(&keys)?;
            Ok(PyArray1::from_vec(py, py.detach(|| self.0.find(keys))))
        }
    }
}
