"""Array types; their shapes and units are in the docstrings of what takes them."""

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]
F64 = NDArray[np.float64]
