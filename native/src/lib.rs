//! Batch kernels on byte arrays: `federated._native`. The Python side of it is in
//! federated/_native.pyi; this file only checks shapes and releases the interpreter lock.

mod bigint;
mod cpu;
mod curve;
mod entries;
mod error;
mod field25519;
mod hash_to_curve;
mod hmac;
#[cfg(any(target_arch = "x86_64", feature = "emulated-lanes"))]
mod ifma;
mod index;
mod labels;
mod merkle;
mod paillier;
mod permutation;
mod pool;
mod primes;
mod random;
mod scalar;
mod strings;
mod vault;
mod written;

use std::sync::Arc;

use numpy::ndarray::Dimension;
use numpy::{
    Element, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray, PyReadonlyArray1,
    PyReadonlyArray2, PyUntypedArrayMethods,
};
use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::PyBytes;
use rayon::prelude::*;

use crate::strings::Strings;

type Array2<'py, T> = Bound<'py, PyArray2<T>>;
type Input2<'py, T> = PyReadonlyArray2<'py, T>;

/// Peaks of a grown tree, and of each level the first index that is new and the hashes from there.
type GrownTree<'py> = (Array2<'py, u8>, Vec<(u64, Array2<'py, u8>)>);

/// Entries, None where they take more than copying, and the leaf hash of each, zeros for None.
type WrittenEntries<'py> = (Vec<Option<Bound<'py, PyBytes>>>, Array2<'py, u8>);

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
fn rows<'a, const W: usize>(array: &'a Input2<'_, u8>) -> PyResult<&'a [[u8; W]]> {
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
        self.spaced(offsets, 0)
    }

    fn spaced<'a>(
        &'a self,
        offsets: &'a PyReadonlyArray1<'_, u64>,
        gap: usize,
    ) -> PyResult<Strings<'a>> {
        let data = match self {
            Data::Bytes(bytes) => bytes.as_bytes(),
            Data::Array(array) => elements(array)?,
        };
        Ok(Strings::new(data, elements(offsets)?, gap)?)
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
        keys: Input2<'py, u8>,
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

    #[pyfunction]
    fn derive_labels<'py>(
        py: Python<'py>,
        prefix: &[u8],
        data: Data<'py>,
        offsets: PyReadonlyArray1<'py, u64>,
        points: Input2<'py, u8>,
    ) -> PyResult<Array2<'py, u8>> {
        let (strings, points) = (data.strings(&offsets)?, rows(&points)?);
        let derived = py.detach(|| labels::derive(prefix, strings, points))?;
        to_array(py, derived.into_flattened(), labels::LABEL)
    }

    #[pyfunction]
    fn seal<'py>(
        py: Python<'py>,
        keys: Input2<'py, u8>,
        payloads: Input2<'py, u8>,
        associated: &[u8],
    ) -> PyResult<Array2<'py, u8>> {
        let width = payloads.shape()[1];
        let (keys, payloads) = (rows(&keys)?, elements(&payloads)?);
        let sealed = py.detach(|| labels::seal(keys, payloads, width, associated))?;
        to_array(py, sealed, width + labels::OVERHEAD)
    }

    #[pyfunction]
    fn unseal<'py>(
        py: Python<'py>,
        keys: Input2<'py, u8>,
        sealed: Input2<'py, u8>,
        associated: &[u8],
    ) -> PyResult<(Array2<'py, u8>, Bound<'py, PyArray1<bool>>)> {
        let width = sealed.shape()[1];
        let (keys, sealed) = (rows(&keys)?, elements(&sealed)?);
        let (payloads, opened) = py.detach(|| labels::open(keys, sealed, width, associated))?;
        let payloads = PyArray1::from_vec(py, payloads);
        let payloads = payloads.reshape([keys.len(), width - labels::OVERHEAD])?;
        Ok((payloads, PyArray1::from_vec(py, opened)))
    }

    #[pyfunction]
    #[pyo3(signature = (data, offsets, gap=0))]
    fn leaf_hashes<'py>(
        py: Python<'py>,
        data: Data<'py>,
        offsets: PyReadonlyArray1<'py, u64>,
        gap: usize,
    ) -> PyResult<Array2<'py, u8>> {
        let strings = data.spaced(&offsets, gap)?;
        digests(py, py.detach(|| merkle::leaf_hashes(strings)))
    }

    #[pyfunction]
    fn parent_hashes<'py>(py: Python<'py>, children: Input2<'py, u8>) -> PyResult<Array2<'py, u8>> {
        let children = rows(&children)?;
        digests(py, py.detach(|| merkle::parents(children)))
    }

    #[pyfunction]
    fn grown_tree<'py>(
        py: Python<'py>,
        size: u64,
        peaks: Input2<'py, u8>,
        leaves: Input2<'py, u8>,
    ) -> PyResult<GrownTree<'py>> {
        let (peaks, leaves) = (rows(&peaks)?, rows(&leaves)?);
        let (peaks, levels) = py.detach(|| merkle::grown(size, peaks, leaves))?;
        let levels = levels.into_iter().map(|(first, level)| Ok((first, digests(py, level)?)));
        Ok((digests(py, peaks)?, levels.collect::<PyResult<_>>()?))
    }

    #[pyfunction]
    #[pyo3(signature = (data, offsets, columns, apart, gap=0))]
    fn plain_entries<'py>(
        py: Python<'py>,
        data: Data<'py>,
        offsets: PyReadonlyArray1<'py, u64>,
        columns: Vec<(PyBackedStr, Data<'py>, PyReadonlyArray1<'py, u64>)>,
        apart: &str,
        gap: usize,
    ) -> PyResult<Bound<'py, PyArray1<bool>>> {
        let leaves = data.spaced(&offsets, gap)?;
        let columns = columns
            .iter()
            .map(|(name, data, offsets)| {
                Ok(entries::Column { name: name.as_bytes(), values: data.spaced(offsets, gap)? })
            })
            .collect::<PyResult<Vec<_>>>()?;
        let plain = py.detach(|| entries::plain(leaves, &columns, apart.as_bytes()))?;
        Ok(PyArray1::from_vec(py, plain))
    }

    #[pyfunction]
    fn written_entries<'py>(
        py: Python<'py>,
        bodies: Vec<Bound<'py, PyAny>>,
        kinds: Vec<PyBackedStr>,
        time: &str,
        nonces: &str,
    ) -> PyResult<WrittenEntries<'py>> {
        let width = nonces.len() / bodies.len().max(1);
        if kinds.len() != bodies.len() || nonces.len() != width * bodies.len() || !nonces.is_ascii()
        {
            return Err(PyValueError::new_err("an entry has one kind and one nonce"));
        }
        let mut hashes = Vec::with_capacity(bodies.len());
        let mut leaves = Vec::with_capacity(bodies.len());
        for (i, (body, kind)) in bodies.iter().zip(&kinds).enumerate() {
            let nonce = &nonces[i * width..(i + 1) * width];
            let leaf = written::entry(body, &written::Added { kind, time, nonce });
            hashes.push(leaf.as_deref().map_or([0; 32], merkle::leaf_hash));
            leaves.push(leaf.map(|leaf| PyBytes::new(py, &leaf)));
        }
        Ok((leaves, digests(py, hashes)?))
    }

    #[pyfunction]
    fn wrap_secrets<'py>(
        py: Python<'py>,
        keys: Input2<'py, u8>,
        which: PyReadonlyArray1<'py, i64>,
        secrets: Input2<'py, u8>,
        associated: Input2<'py, u8>,
    ) -> PyResult<Array2<'py, u8>> {
        let keys = vault::Keys::new(rows(&keys)?, elements(&which)?)?;
        let (secrets, associated) = (rows(&secrets)?, rows(&associated)?);
        let wrapped = py.detach(|| vault::wrap(&keys, secrets, associated))?;
        to_array(py, wrapped.into_flattened(), vault::WRAPPED)
    }

    #[pyfunction]
    fn unwrap_secrets<'py>(
        py: Python<'py>,
        keys: Input2<'py, u8>,
        which: PyReadonlyArray1<'py, i64>,
        wrapped: Input2<'py, u8>,
        associated: Input2<'py, u8>,
    ) -> PyResult<(Array2<'py, u8>, Bound<'py, PyArray1<bool>>)> {
        let keys = vault::Keys::new(rows(&keys)?, elements(&which)?)?;
        let (wrapped, associated) = (rows(&wrapped)?, rows(&associated)?);
        let (secrets, opened) = py.detach(|| vault::unwrap(&keys, wrapped, associated))?;
        Ok((digests(py, secrets)?, PyArray1::from_vec(py, opened)))
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
        points: Input2<'py, u8>,
        scalar: &Scalar,
    ) -> PyResult<Array2<'py, u8>> {
        let points = rows(&points)?;
        digests(py, py.detach(|| curve::multiply(points, &scalar.0))?)
    }

    #[pyfunction]
    fn repeated(py: Python<'_>, points: Input2<'_, u8>) -> PyResult<usize> {
        let points = rows(&points)?;
        Ok(py.detach(|| curve::repeated(points)))
    }

    /// The first 16 bytes of each row as a number.
    fn keys<'a>(
        array: &'a Input2<'_, u8>,
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
        fn new(py: Python<'_>, keys: Input2<'_, u8>) -> PyResult<Self> {
            let keys = self::keys(&keys)?;
            Ok(Self(py.detach(|| index::Index::new(keys.collect()))?))
        }

        fn __len__(&self) -> usize {
            self.0.len()
        }

        fn find<'py>(
            &self,
            py: Python<'py>,
            keys: Input2<'py, u8>,
        ) -> PyResult<Bound<'py, PyArray1<i64>>> {
            let keys = self::keys(&keys)?;
            Ok(PyArray1::from_vec(py, py.detach(|| self.0.find(keys))))
        }
    }

    /// The limbs of an array with a given number of columns.
    fn limbs<'a>(array: &'a Input2<'_, u64>, columns: usize) -> PyResult<&'a [u64]> {
        if array.shape()[1] != columns {
            let message = format!("an array for this key must have {columns} columns");
            return Err(PyValueError::new_err(message));
        }
        elements(array)
    }

    #[pyclass(frozen, module = "federated._native")]
    struct PublicKey(Arc<paillier::PublicKey>);

    impl PublicKey {
        fn plaintexts<'a>(&self, array: &'a Input2<'_, u64>) -> PyResult<&'a [u64]> {
            limbs(array, self.0.modulus().len())
        }

        fn ciphertexts<'a>(&self, array: &'a Input2<'_, u64>) -> PyResult<&'a [u64]> {
            limbs(array, 2 * self.0.modulus().len())
        }

        /// Runs `kernel` without the interpreter lock; its rows become an array of ciphertexts.
        fn run<'py>(
            &self,
            py: Python<'py>,
            kernel: impl FnOnce(&paillier::PublicKey) -> error::Result<Vec<u64>> + Send,
        ) -> PyResult<Array2<'py, u64>> {
            to_array(py, py.detach(|| kernel(&self.0))?, 2 * self.0.modulus().len())
        }
    }

    #[pymethods]
    impl PublicKey {
        #[new]
        fn new(modulus: &[u8]) -> PyResult<Self> {
            Ok(Self(Arc::new(paillier::PublicKey::from_bytes(modulus)?)))
        }

        #[getter]
        fn bits(&self) -> usize {
            self.0.bits()
        }

        #[getter]
        fn modulus<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
            PyBytes::new(py, &bigint::to_bytes(self.0.modulus()))
        }

        #[pyo3(signature = (plaintexts, exponent_bits = 0))]
        fn encrypt<'py>(
            &self,
            py: Python<'py>,
            plaintexts: Input2<'py, u64>,
            exponent_bits: usize,
        ) -> PyResult<Array2<'py, u64>> {
            let plaintexts = self.plaintexts(&plaintexts)?;
            self.run(py, |key| key.encrypt(plaintexts, exponent_bits))
        }

        fn encrypt_uniform<'py>(
            &self,
            py: Python<'py>,
            plaintexts: Input2<'py, u64>,
        ) -> PyResult<Array2<'py, u64>> {
            let plaintexts = self.plaintexts(&plaintexts)?;
            self.run(py, |key| key.encrypt_uniform(plaintexts))
        }

        fn add<'py>(
            &self,
            py: Python<'py>,
            left: Input2<'py, u64>,
            right: Input2<'py, u64>,
        ) -> PyResult<Array2<'py, u64>> {
            let (left, right) = (self.ciphertexts(&left)?, self.ciphertexts(&right)?);
            self.run(py, |key| key.add(left, right))
        }

        #[pyo3(signature = (ciphertexts, plaintexts = None))]
        fn rerandomise<'py>(
            &self,
            py: Python<'py>,
            ciphertexts: Input2<'py, u64>,
            plaintexts: Option<Input2<'py, u64>>,
        ) -> PyResult<Array2<'py, u64>> {
            let ciphertexts = self.ciphertexts(&ciphertexts)?;
            let plaintexts = plaintexts.as_ref().map(|array| self.plaintexts(array)).transpose()?;
            self.run(py, |key| key.rerandomise(ciphertexts, plaintexts))
        }

        fn check(&self, py: Python<'_>, ciphertexts: Input2<'_, u64>) -> PyResult<()> {
            let ciphertexts = self.ciphertexts(&ciphertexts)?;
            Ok(py.detach(|| self.0.check(ciphertexts))?)
        }
    }

    #[pyclass(frozen, module = "federated._native")]
    struct SecretKey(paillier::SecretKey);

    #[pymethods]
    impl SecretKey {
        #[staticmethod]
        fn generate(py: Python<'_>, bits: usize) -> PyResult<Self> {
            Ok(Self(py.detach(|| paillier::SecretKey::generate(bits))?))
        }

        #[staticmethod]
        fn from_primes(py: Python<'_>, p: &[u8], q: &[u8]) -> PyResult<Self> {
            Ok(Self(py.detach(|| paillier::SecretKey::from_bytes(p, q))?))
        }

        fn primes<'py>(&self, py: Python<'py>) -> (Bound<'py, PyBytes>, Bound<'py, PyBytes>) {
            let [p, q] = self.0.primes();
            (PyBytes::new(py, &p), PyBytes::new(py, &q))
        }

        #[getter]
        fn safe(&self) -> bool {
            self.0.safe()
        }

        #[getter]
        fn public(&self) -> PublicKey {
            PublicKey(self.0.public().clone())
        }

        #[pyo3(signature = (plaintexts, exponent_bits = 0))]
        fn encrypt<'py>(
            &self,
            py: Python<'py>,
            plaintexts: Input2<'py, u64>,
            exponent_bits: usize,
        ) -> PyResult<Array2<'py, u64>> {
            let public = self.public();
            let plaintexts = public.plaintexts(&plaintexts)?;
            public.run(py, |_| self.0.encrypt(plaintexts, exponent_bits))
        }

        fn decrypt<'py>(
            &self,
            py: Python<'py>,
            ciphertexts: Input2<'py, u64>,
        ) -> PyResult<Array2<'py, u64>> {
            let public = self.public();
            let ciphertexts = public.ciphertexts(&ciphertexts)?;
            let plaintexts = py.detach(|| self.0.decrypt(ciphertexts))?;
            to_array(py, plaintexts, public.0.modulus().len())
        }
    }

    #[pyclass(module = "federated._native")]
    struct GroupSum {
        key: Py<PublicKey>,
        sums: paillier::GroupSum,
    }

    #[pymethods]
    impl GroupSum {
        #[new]
        fn new(key: Py<PublicKey>, groups: usize) -> PyResult<Self> {
            let sums = paillier::GroupSum::new(key.get().0.clone(), groups)
                .map_err(|error| PyMemoryError::new_err(error.to_string()))?;
            Ok(Self { key, sums })
        }

        fn add(
            &mut self,
            py: Python<'_>,
            ciphertexts: Input2<'_, u64>,
            groups: PyReadonlyArray1<'_, i64>,
        ) -> PyResult<()> {
            let (ciphertexts, groups) =
                (self.key.get().ciphertexts(&ciphertexts)?, elements(&groups)?);
            Ok(py.detach(|| self.sums.add(ciphertexts, groups))?)
        }

        fn result<'py>(&self, py: Python<'py>) -> PyResult<Array2<'py, u64>> {
            self.key.get().run(py, |_| Ok(self.sums.result()))
        }
    }

    #[pyclass(frozen, module = "federated._native")]
    struct Rerandomiser {
        key: Py<PublicKey>,
        masks: paillier::Rerandomiser,
    }

    #[pymethods]
    impl Rerandomiser {
        #[new]
        fn new(py: Python<'_>, key: Py<PublicKey>) -> PyResult<Self> {
            let public = key.get().0.clone();
            let masks = py.detach(|| paillier::Rerandomiser::new(public))?;
            Ok(Self { key, masks })
        }

        fn sums<'py>(
            &self,
            py: Python<'py>,
            ciphertexts: Input2<'py, u64>,
            choices: Input2<'py, i64>,
        ) -> PyResult<Array2<'py, u64>> {
            let key = self.key.get();
            let width = choices.shape()[1];
            let (ciphertexts, choices) = (key.ciphertexts(&ciphertexts)?, elements(&choices)?);
            key.run(py, |_| self.masks.sums(ciphertexts, choices, width))
        }
    }
}
