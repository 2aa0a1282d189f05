"""Score images of handwritten digits: the script that the deployed service runs.

The service calls ``init()`` once, when its container starts, and ``run(request)`` for every
request to /score. A request holds images in one of two formats:

* the tutorial's JSON, ``{"data": [[784 intensities in [0, 1]], ...]}``;
* an IDX image file, the format in which MNIST is published: of uint8 pixels (0 to 255), or of
  float32 or float64 intensities (0 to 1), with the shape (n, 28, 28) or (n, 784).

Both may be compressed with gzip, and no content type is needed. The response is a JSON list with
one label per image, ``[7, 2, 1, ...]``. The response to an invalid request has the status 4xx and
``{"message": ...}``, which states what was wrong and what was expected.
"""

import gzip
import io
import math
import os
import struct
import zlib
from collections.abc import Callable, Iterator

import joblib
import msgspec
import numpy as np
from azureml_inference_server_http.api.aml_request import AMLRequest, rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV

MODEL_FILE = "sklearn_mnist_model.pkl"
MAX_BYTES = 128 * 2**20  # of one request, as sent and as unpacked
BLOCK = 256  # images that are converted and scored together; they fit into the CPU's cache
MIN_SINGLE = 32  # images: with fewer, single precision costs more than it saves
IDX_TYPES: dict[int, np.dtype] = {
    0x08: np.dtype(np.uint8),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}

Predict = Callable[[np.ndarray], np.ndarray]
features: int  # numbers in one image: 784 for MNIST
predict: Predict


class Rejected(Exception):
    """The request cannot be scored; the message is sent to the client."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def init() -> None:
    """Load the registered model from the folder AZUREML_MODEL_DIR."""
    global features, predict
    model = joblib.load(os.path.join(os.environ["AZUREML_MODEL_DIR"], MODEL_FILE))
    features = model.n_features_in_
    predict = choose_predict(model)


@rawhttp
def run(request: AMLRequest) -> list | AMLResponse:
    """Return a label for each image of a request."""
    try:
        if request.method == "OPTIONS":  # a browser sends it before a POST (CORS)
            return AMLResponse("", 200, {"Allow": "POST"})
        if request.method != "POST":
            raise Rejected(f"{request.method} is not supported; POST images.", 405)
        labels = []
        for images in read_images(read_body(request)):
            labels += predict(images).tolist()
        return labels
    except Rejected as rejection:
        return AMLResponse({"message": str(rejection)}, rejection.status, json_str=True)


def choose_predict(model) -> Predict:
    """Return model.predict, or for the tutorial's model an equivalent matrix product.

    ``predict`` validates its input and its parameters on each call, which takes several times
    longer than to score one image. The input was validated before.
    """
    if type(model) not in (LogisticRegression, LogisticRegressionCV) or len(model.classes_) == 2:
        return lambda images: model.predict(intensities(images))
    weights, intercept = np.asarray(model.coef_.T, dtype=np.float64), model.intercept_
    # Pixels are scored in single precision, which is faster. `error` bounds the error of such a
    # score: one rounding for each feature. If the two best scores are closer, double precision
    # decides.
    single = (weights / 255).astype(np.float32)
    error = (features + 4) * np.finfo(np.float32).eps * np.abs(weights).sum(axis=0).max()

    def winners(images: np.ndarray) -> np.ndarray:
        return (intensities(images) @ weights + intercept).argmax(axis=1)

    def predict(images: np.ndarray) -> np.ndarray:
        if images.dtype != np.uint8 or len(images) < MIN_SINGLE:
            return model.classes_[winners(images)]
        scores = images.astype(np.float32) @ single + intercept
        best = scores.max(axis=1, keepdims=True)
        labels = scores.argmax(axis=1)
        unsure = np.count_nonzero(scores >= best - 2 * error, axis=1) != 1
        if unsure.any():
            labels[unsure] = winners(images[unsure])
        return model.classes_[labels]

    return predict


def intensities(images: np.ndarray) -> np.ndarray:
    """Convert pixels (uint8, 0 to 255) to the intensities of the training data, 0 to 1."""
    return images / 255.0 if images.dtype == np.uint8 else images


def read_body(request: AMLRequest) -> bytes:
    """Read the body of any content type, MAX_BYTES at most."""
    try:
        announced = int(request.environ.get("CONTENT_LENGTH") or MAX_BYTES)  # absent if chunked
        if announced <= MAX_BYTES:
            body = request.stream.read(announced + 1)
            if len(body) <= MAX_BYTES:
                return body
        for _ in range(1024):  # clients read the response after they have sent the body
            if not request.stream.read(2**20):
                break
    except Exception as error:  # each server raises its own class if the connection breaks
        raise Rejected(f"the body could not be read to its end: {error!r}") from error
    raise Rejected(f"the body is larger than {MAX_BYTES} bytes; send fewer images at once.", 413)


def read_images(body: bytes) -> Iterator[np.ndarray]:
    """Yield the images of a request, pixels or intensities, in blocks of up to BLOCK rows."""
    if not body:
        raise Rejected('the request is empty; expected {"data": [[...], ...]} or an IDX file.')
    file: io.BufferedIOBase = io.BytesIO(body)
    if body.startswith(b"\x1f\x8b"):
        file = gzip.GzipFile(fileobj=file)
    try:
        is_idx = file.read(2) == b"\0\0"
        file.seek(0)
        yield from read_idx(file) if is_idx else read_json(file)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise Rejected(f"the gzip data is damaged or truncated: {error}.") from error


def read_idx(file: io.BufferedIOBase) -> Iterator[np.ndarray]:
    """Yield the images of an IDX file; each block is unpacked when it is scored."""
    _, _, code, ndim = file.read(4).ljust(4, b"\0")
    if code not in IDX_TYPES or ndim not in (2, 3):
        raise Rejected(
            f"the IDX file holds {ndim} dimensions of type 0x{code:02x}; expected images: 2 or 3 "
            "dimensions of type 0x08 (uint8), 0x0d (float32) or 0x0e (float64)."
        )
    header = file.read(4 * ndim)
    if len(header) < 4 * ndim:
        raise Rejected("the IDX file ends within its header.")
    count, *shape = struct.unpack(f">{ndim}I", header)
    if math.prod(shape) != features:
        raise Rejected(f"each image in the IDX file has shape {shape}; the model takes {features}.")
    dtype = IDX_TYPES[code]
    image_bytes = features * dtype.itemsize
    if count * image_bytes > MAX_BYTES:
        raise Rejected(f"{count} images unpack to more than {MAX_BYTES} bytes; send fewer.", 413)
    for start in range(0, count, BLOCK):
        size = min(BLOCK, count - start) * image_bytes
        data = file.read(size)
        if len(data) < size:
            raise Rejected(f"the IDX file has fewer images than the {count} of its header.")
        images = np.frombuffer(data, dtype).reshape(-1, features)
        yield images if code == 0x08 else checked(images.astype(np.float64), start)
    if file.read(1):
        raise Rejected(f"the IDX file has more bytes than the {count} images of its header.")


class JsonImages(msgspec.Struct):
    """The tutorial's JSON. Rows are parsed when they are scored: numbers need more memory."""

    data: list[msgspec.Raw]  # not as a string: the server hides this module from lookups


parse_request = msgspec.json.Decoder(JsonImages).decode
parse_row = msgspec.json.Decoder(list[float]).decode  # numbers only: no null, "0.5" or true


def read_json(file: io.BufferedIOBase) -> Iterator[np.ndarray]:
    """Yield the images of the tutorial's JSON."""
    text = file.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        raise Rejected(f"the body unpacks to more than {MAX_BYTES} bytes; send fewer images.", 413)
    rows = parsed(parse_request, text, "the body").data
    row_bytes = struct.Struct(f"{features}d")  # several times faster than NumPy on a list
    for start in range(0, len(rows), BLOCK):
        images = np.empty((min(BLOCK, len(rows) - start), features))
        for i in range(len(images)):
            row = parsed(parse_row, rows[start + i], f"image {start + i}")
            if len(row) != features:
                raise Rejected(f"image {start + i} has {len(row)} numbers; expected {features}.")
            row_bytes.pack_into(images, i * row_bytes.size, *row)
        yield checked(images, start)


def parsed(parse: Callable, text: bytes | msgspec.Raw, what: str):
    try:
        return parse(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Rejected(
            f'{what} is not valid: {error}; expected {{"data": [[...], ...]}}, each image a '
            f"list of {features} numbers in [0, 1] (NaN and Infinity are not JSON), or an IDX file."
        ) from error


def checked(images: np.ndarray, start: int) -> np.ndarray:
    """Return the images if all their intensities lie in [0, 1]; NaN does not."""
    if images.min() >= 0 and images.max() <= 1:
        return images
    row = int(np.argmin(((images >= 0) & (images <= 1)).all(axis=1)))
    low, high = images[row].min(), images[row].max()
    advice = "expected intensities in [0, 1]"
    if low >= 0 and 1 < high <= 255:
        advice += "; it looks like 0-255: divide by 255 or send uint8 IDX"
    raise Rejected(f"image {start + row} has values from {low:g} to {high:g}; {advice}.")
