"""One tensor as it was fetched: bytes, type, shape, and what is missing.

numpy and torch are imported when a result is asked for in their form.
"""

import importlib
import json
from typing import Any

from ._errors import Ring2Error

_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


class TensorData:
    """``data`` holds the elements, row-major and little-endian; ``complete`` says whether all is there.

    ``tokens`` are the positions of the token axis and ``gaps`` those that are missing, as half-open
    ranges. Arrays that ``numpy`` and ``torch`` give share ``data``, but for bfloat16 in numpy.
    """

    def __init__(self, data: Any, dtype: str, shape: tuple[int, ...], facts: dict[str, Any]) -> None:
        self.data = memoryview(data)
        self.dtype = dtype
        self.shape = shape
        self.trace_id: str | None = facts.get("trace_id")
        self.request_id: str | None = facts.get("request_id")
        self.hook: str | None = facts.get("hook")
        self.layer = int(facts.get("layer", -1))
        self.completeness: str = facts.get("completeness", "unknown")
        self.tokens = [tuple(pair) for pair in facts.get("tokens", [])]
        self.gaps = [tuple(pair) for pair in facts.get("gaps", [])]

    @property
    def complete(self) -> bool:
        """Whether every token of the request is known to be there."""
        return self.completeness == "complete"

    @property
    def name(self) -> str:
        """``resid_pre.11``, or the hook alone where it has no layers."""
        return str(self.hook) if self.layer < 0 else f"{self.hook}.{self.layer}"

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return self.data.nbytes

    def numpy(self) -> Any:
        """A numpy array; bfloat16, which numpy lacks, becomes float32 without loss."""
        numpy = needed("numpy")
        if self.dtype == "bfloat16":
            halves = numpy.frombuffer(self.data, dtype="<u2").astype("<u4") << 16
            return halves.view("<f4").reshape(self.shape)
        return numpy.frombuffer(self.data, dtype=self.dtype).reshape(self.shape)

    def torch(self) -> Any:
        """A torch tensor of the captured dtype."""
        torch = needed("torch")
        dtype = getattr(torch, self.dtype)
        if not self.data.nbytes:
            return torch.empty(self.shape, dtype=dtype)
        return torch.frombuffer(self.data, dtype=dtype).reshape(self.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """So that ``numpy.asarray(tensor)`` works."""
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            return array.astype(dtype)
        return array.copy() if copy else array

    def __repr__(self) -> str:
        return f"<TensorData {self.name} {self.dtype} {list(self.shape)} {self.completeness}>"


def read_safetensors(body: bytearray, completeness: str) -> TensorData:
    """The one tensor of a safetensors document: 8 bytes of header length, JSON, bytes."""
    length = int.from_bytes(body[:8], "little")
    if length <= 0 or length > len(body) - 8:
        raise Ring2Error.of("RING2_E_INTERNAL", "safetensors", repr(bytes(body[:16])))
    header = json.loads(body[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    if len(header) != 1:
        raise Ring2Error.of("RING2_E_INTERNAL", "one tensor", str(len(header)))
    (entry,) = header.values()
    first, last = entry["data_offsets"]
    facts = {**metadata, "completeness": completeness}
    for name in ("tokens", "gaps"):
        facts[name] = json.loads(metadata.get(name, "[]"))
    data = memoryview(body)[8 + length + first : 8 + length + last]
    if len(data) != last - first:
        raise Ring2Error.of("RING2_E_INTERNAL", f"{last - first} bytes", f"{len(data)}")
    return TensorData(
        data, _DTYPES.get(entry["dtype"], entry["dtype"]), tuple(entry["shape"]), facts
    )


def needed(package: str) -> Any:
    """A package that is the user's to install."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise Ring2Error.of(
            "RING2_E_ARGUMENT", f"the package {package}", str(error),
            f"Install it with `pip install {package}`.",
        ) from error
