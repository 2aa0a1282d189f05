"""Encode and decode IDX, the file format in which MNIST is published.

An IDX file is two zero bytes, one byte for the type of its numbers, one byte for the
number of dimensions, the length of each dimension as a big-endian 32-bit integer, and then
the numbers themselves, big-endian, the last dimension varying fastest.
"""

from __future__ import annotations

import math
import struct

import numpy as np
from numpy.typing import ArrayLike

from ..errors import DataError

TYPE_CODES: dict[int, np.dtype] = {
    0x08: np.dtype(np.uint8),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
_CODE_OF = {dtype.newbyteorder("="): code for code, dtype in TYPE_CODES.items()}


def encode_idx(array: ArrayLike) -> bytes:
    """Write an array of uint8, float32 or float64 as the bytes of an IDX file.

    >>> encode_idx(np.array([7, 2, 1], dtype=np.uint8)).hex(" ", -4)
    '00000801 00000003 070201'
    """
    array = np.asarray(array)
    code = _CODE_OF.get(array.dtype.newbyteorder("="))
    if code is None:
        raise DataError(
            f"An array of {array.dtype} cannot be written as IDX; expected uint8, float32 or "
            "float64. Convert it with array.astype(...) first."
        )
    header = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
    return b"".join((header, np.ascontiguousarray(array, TYPE_CODES[code]).data))


def decode_idx(data: bytes) -> np.ndarray:
    """Read an unpacked IDX file as an array in native byte order; uint8 is not copied.

    >>> decode_idx(bytes.fromhex("00000801 00000003 070201"))
    array([7, 2, 1], dtype=uint8)
    """
    if len(data) < 4 or data[:2] != b"\0\0":
        found = f"0x{data[:4].hex()}" if data else "nothing"
        raise DataError(
            f"not an IDX file: it starts with {found}, expected two zero bytes, the type "
            "and the number of dimensions. Unpack the file first if it is compressed."
        )
    code, ndim = data[2], data[3]
    if code not in TYPE_CODES:
        known = ", ".join(f"0x{code:02x} {dtype.name}" for code, dtype in TYPE_CODES.items())
        raise DataError(f"the IDX type is 0x{code:02x}, expected one of: {known}.")
    start = 4 + 4 * ndim
    if ndim == 0 or len(data) < start:
        raise DataError(
            f"the IDX header has {ndim} dimensions and {len(data)} bytes; expected at least one "
            f"dimension, and {max(start, 8)} bytes or more."
        )
    shape, dtype = struct.unpack_from(f">{ndim}I", data, 4), TYPE_CODES[code]
    expected = start + math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise DataError(
            f"the IDX header states the shape {shape} of {dtype.name}, {expected} bytes in total, "
            f"but the file has {len(data)}. It is truncated or damaged: download it again."
        )
    try:
        numbers = np.frombuffer(data, dtype, offset=start).reshape(shape)
    except ValueError as error:  # no numbers, and a shape that exceeds NumPy's limits
        raise DataError(f"the IDX header states the shape {shape}: {error}") from error
    return numbers.astype(dtype.newbyteorder("="), copy=False)
