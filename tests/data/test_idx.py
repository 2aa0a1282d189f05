from __future__ import annotations

import contextlib
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from mnist_deploy.data.idx import decode_idx, encode_idx
from mnist_deploy.errors import DataError

ARRAYS = st.sampled_from(["u1", "f4", "f8", ">f4", ">f8"]).flatmap(
    lambda dtype: st_np.arrays(
        dtype, st_np.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=6)
    )
)


@given(ARRAYS)
def test_decode_returns_the_encoded_array(array):
    decoded = decode_idx(encode_idx(array))
    assert decoded.shape == array.shape
    assert decoded.dtype == array.dtype.newbyteorder("=")
    assert decoded.tobytes() == array.astype(decoded.dtype).tobytes()


def test_header_is_that_of_the_mnist_files():
    images = np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28)
    assert encode_idx(images)[:16] == struct.pack(">IIII", 2051, 2, 28, 28)
    assert encode_idx(np.zeros(5, np.uint8))[:8] == struct.pack(">II", 2049, 5)


def test_numbers_are_big_endian_in_row_order():
    columns_first = np.asfortranarray([[0.0, 1.0], [0.5, 0.25]])
    assert encode_idx(columns_first)[12:] == struct.pack(">4d", 0.0, 1.0, 0.5, 0.25)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(3, np.int64), "array of int64"),
        (np.array(["seven"]), "array of <U5"),
    ],
)
def test_array_of_another_type_is_rejected(array, message):
    with pytest.raises(DataError, match=message):
        encode_idx(array)


GOOD = encode_idx(np.zeros((2, 3), np.uint8))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "starts with nothing"),
        (b"\x1f\x8b\x08\x00", "Unpack the file first"),
        (b"\0\0\x0c" + GOOD[3:], "type is 0x0c"),
        (b"\0\0\x08\0", "has 0 dimensions"),
        (GOOD[:9], "2 dimensions and 9 bytes"),
        (GOOD[:-1], "18 bytes in total, but the file has 17"),
        (GOOD + b"\0", "18 bytes in total, but the file has 19"),
        (b"\0\0\x08\x02" + b"\xff" * 8, "header states the shape"),
        (b"\0\0\x08\x03" + b"\xff" * 8 + b"\0" * 4, "header states the shape"),
        (b"\0\0\x08\x50" + b"\0" * 320, "header states the shape"),
    ],
)
def test_damaged_file_is_rejected_with_what_was_expected(data, message):
    with pytest.raises(DataError, match=message):
        decode_idx(data)


@given(st.binary(max_size=64))
def test_random_bytes_are_an_array_or_a_data_error(data):
    with contextlib.suppress(DataError):
        assert isinstance(decode_idx(data), np.ndarray)


@given(st.binary(max_size=40))
def test_random_bytes_after_an_idx_magic_are_an_array_or_a_data_error(data):
    with contextlib.suppress(DataError):
        assert isinstance(decode_idx(b"\0\0\x08" + data), np.ndarray)
