"""Decodes payloads of stored rows, read with any reader of Parquet. Formats: docs/codecs.md.

    table = duckdb.sql("select * from 'store/tensors/**/*.parquet'").fetch_arrow_table()
    array = ring2.decode(table.slice(0, 1).to_pylist()[0])

Needs numpy, and for compressed planes one of: Python 3.14 (``compression.zstd``), pyarrow, zstandard.
Everything a payload says is compared with its row before anything of that size is made.
"""

import struct
from collections.abc import Callable, Mapping
from typing import Any

from ._crc32c import crc32c
from ._errors import Ring2Error

RAW = "raw"
REDACTED = "redacted"
LOSSLESS = "bytes-zstd-1"
BOUNDED = "absmax-zstd-1"

_HEADER = struct.Struct("<4s4B2I")
_CODES = struct.Struct("<HBBI")
_ENTRY = struct.Struct("<3I")
_HEADER_BYTES = 24
# dtype -> (bytes of an element, numpy name of its bits or of itself)
_DTYPES = {
    "float32": (4, "<f4"),
    "float16": (2, "<f2"),
    "bfloat16": (2, "<u2"),
    "float64": (8, "<f8"),
    "int8": (1, "|i1"),
    "uint8": (1, "|u1"),
    "int16": (2, "<i2"),
    "int32": (4, "<i4"),
    "int64": (8, "<i8"),
    "bool": (1, "|b1"),
}
_CODED = {"float32": 10, "float16": 11, "bfloat16": 11}


def decode(row: Mapping[str, Any]) -> Any:
    """The tensor of one row of the dataset ``tensors`` as a numpy array of the row's shape.

    ``row`` needs ``data``, ``dtype``, ``shape`` and, where they are not raw, ``encoding`` and
    ``data_bytes``; where it has ``data_crc32c``, that is compared with the elements. bfloat16, which
    numpy lacks, becomes float32 without loss.

    Raises Ring2Error RING2_E_CHECKSUM for a payload that is damaged, and RING2_E_REDACTED for one
    that was left out when the row was stored.
    """
    import numpy

    dtype = row["dtype"]
    data = verified_bytes(row)
    array = numpy.frombuffer(data, dtype=_dtype(dtype)[1])
    if dtype == "bfloat16":
        array = (array.astype(numpy.uint32) << 16).view(numpy.float32)
    shape = [int(size) for size in row["shape"]]
    try:
        return array.reshape(shape)
    except ValueError:
        raise _damaged(f"elements for the shape {shape}", f"{array.size}") from None


def verified_bytes(row: Mapping[str, Any]) -> bytes:
    """As ``decode_bytes``, compared with ``data_bytes`` and ``data_crc32c`` where the row has them."""
    data = decode_bytes(row)
    size, expected = row.get("data_bytes"), row.get("data_crc32c")
    if size is not None and len(data) != size:
        raise _mismatch(row, f"{size} bytes", f"{len(data)} bytes")
    if expected is not None and (actual := crc32c(data)) != expected:
        raise _mismatch(row, f"CRC-32C {expected}", f"CRC-32C {actual}")
    return data


def decode_bytes(row: Mapping[str, Any]) -> bytes:
    """The elements of one row as little-endian bytes; ``row`` as for ``decode``, without a shape."""
    encoding = row.get("encoding", RAW)
    if encoding == REDACTED:
        raise Ring2Error.of(
            "RING2_E_REDACTED",
            f"stored elements ({_place(row)})",
            f"the encoding {REDACTED}, which has none",
            "Its shape and statistics are there; to store payloads of later requests, take the hook"
            " out of capture.redact_hooks.",
        )
    data = bytes(row["data"])
    if encoding == RAW:
        return data
    if encoding not in (LOSSLESS, BOUNDED):
        known = ", ".join((RAW, LOSSLESS, BOUNDED))
        raise Ring2Error.of("RING2_E_STORE", f"one of the encodings {known}", repr(encoding))
    size = _dtype(row["dtype"])[0]
    head = _header(data)
    if head["element_bytes"] != size or head["elements"] * size != int(row["data_bytes"]):
        actual = f"{head['elements']} of {head['element_bytes']} bytes"
        raise _damaged(f"{row['data_bytes']} bytes of {row['dtype']}", actual)
    if head["kind"] != (1 if encoding == LOSSLESS else 2):
        raise _damaged(f"the kind of {encoding}", str(head["kind"]))
    return _join(data, head) if encoding == LOSSLESS else _from_codes(data, head, row["dtype"])


def _dtype(name: str) -> tuple[int, str]:
    if name in _DTYPES:
        return _DTYPES[name]
    raise Ring2Error.of("RING2_E_STORE", f"one of the element types {', '.join(_DTYPES)}", repr(name))


def _header(data: bytes) -> dict[str, int]:
    if len(data) < _HEADER_BYTES:
        raise _damaged("a header", f"{len(data)} bytes")
    magic, version, kind, element_bytes, planes, elements, row = _HEADER.unpack_from(data)
    block, code_bits, dtype, kept = _CODES.unpack_from(data, 16)
    if magic != b"R2CD" or version != 1:
        raise _damaged("the mark R2CD and version 1", f"{magic!r} and {version}")
    return {
        "kind": kind,
        "element_bytes": element_bytes,
        "planes": planes,
        "elements": elements,
        "row": row,
        "block": block,
        "code_bits": code_bits,
        "dtype": dtype,
        "kept": kept,
    }


def _join(data: bytes, head: dict[str, int]) -> bytes:
    import numpy

    count, size = head["elements"], head["element_bytes"]
    if head["planes"] != size:
        raise _damaged(f"{size} planes", str(head["planes"]))
    planes = numpy.frombuffer(b"".join(_planes(data, [count] * size)), dtype=numpy.uint8)
    return planes.reshape(size, count).T.tobytes()


def _from_codes(data: bytes, head: dict[str, int], dtype: str) -> bytes:
    import numpy

    count, row, block = head["elements"], head["row"], head["block"]
    width = _CODED.get(dtype, 0) - 8
    shaped = width > 0 and row > 0 and count % row == 0 and 0 < block <= 256
    if not shaped or head["planes"] != 4 or head["kept"] > count:
        raise _damaged("rows of blocks in 4 planes", str(head))
    per_row = -(-row // block)
    sizes = [2 * (count // row) * per_row, count, (count * width + 7) // 8]
    scales, high, low, kept = _planes(data, [*sizes, head["kept"] * head["element_bytes"]])
    codes = numpy.frombuffer(high, dtype=numpy.uint8).astype(numpy.int32) << width
    bits = numpy.unpackbits(numpy.frombuffer(low, dtype=numpy.uint8), bitorder="little")
    bits = bits[: count * width].reshape(count, width)
    for place in range(width):
        codes |= bits[:, place].astype(numpy.int32) << place
    levels = numpy.float32((1 << (7 + width)) - 1)
    scale = (numpy.frombuffer(scales, dtype="<u2").astype(numpy.uint32) << 16).view(numpy.float32)
    if not numpy.isfinite(scale).all():
        raise _damaged("finite scales", "others")
    # One step for each element: blocks end with their row.
    steps = numpy.repeat((scale / levels).reshape(-1, per_row), block, axis=1)[:, :row].reshape(-1)
    values = (codes - (1 << (7 + width))).astype(numpy.float32) * steps
    out = _rounded(values, dtype)
    apart = codes == 0
    if int(apart.sum()) != head["kept"]:
        raise _damaged(f"{head['kept']} elements kept as they are", str(int(apart.sum())))
    out[apart] = numpy.frombuffer(kept, dtype=out.dtype)
    return out.tobytes()


def _rounded(values: Any, dtype: str) -> Any:
    """The bits of float32 values in the element type, to the nearest even."""
    import numpy

    if dtype == "float32":
        return values.view(numpy.uint32)
    if dtype == "float16":
        with numpy.errstate(over="ignore"):
            return values.astype(numpy.float16).view(numpy.uint16)
    bits = values.view(numpy.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(numpy.uint16)


def _planes(data: bytes, sizes: list[int]) -> list[bytes]:
    at = _HEADER_BYTES + len(sizes) * _ENTRY.size
    if len(data) < at:
        raise _damaged("a table of planes", f"{len(data)} bytes")
    planes = []
    for index, size in enumerate(sizes):
        entry = _HEADER_BYTES + index * _ENTRY.size
        method, stored, decoded = _ENTRY.unpack_from(data, entry)
        if decoded != size or stored > len(data) - at:
            raise _damaged(f"a plane of {size} bytes", f"one of {decoded}, {stored} stored")
        plane = data[at : at + stored]
        planes.append(_plane(method, plane, size))
        at += stored
    if at != len(data):
        raise _damaged("the end", f"{len(data) - at} more bytes")
    return planes


def _plane(method: int, stored: bytes, size: int) -> bytes:
    if method not in (0, 1):
        raise _damaged("method 0 or 1 of a plane", str(method))
    plane = stored if method == 0 else _inflate(stored, size)
    if len(plane) != size:
        raise _damaged(f"{size} bytes of a plane", str(len(plane)))
    return plane


def _inflate(stored: bytes, size: int) -> bytes:
    inflate = _zstd()
    try:
        return inflate(stored, size)
    except Exception as error:  # each library has a class of its own
        raise _damaged(f"a zstd frame of {size} bytes", str(error)) from error


def _zstd() -> Callable[[bytes, int], bytes]:
    """Decompression of one frame of at most so many bytes, by whichever library is there."""
    try:
        from compression import zstd

        return lambda stored, size: zstd.ZstdDecompressor().decompress(stored, size + 1)
    except ImportError:
        pass
    try:
        import pyarrow

        codec = pyarrow.Codec("zstd")
        return lambda stored, size: codec.decompress(stored, size, asbytes=True)
    except ImportError:
        pass
    try:
        import zstandard
    except ImportError:
        raise Ring2Error.of(
            "RING2_E_STORE",
            "a library that reads zstd",
            "none",
            "Install pyarrow or zstandard, or use Python 3.14.",
        ) from None
    return lambda stored, size: zstandard.ZstdDecompressor().decompress(stored, size + 1)


def _place(row: Mapping[str, Any]) -> str:
    """Which row it is, as far as the row says."""
    hook = row.get("hook", "a row")
    return ", ".join([str(hook), *(f"{name} {row[name]}" for name in ("layer", "step") if name in row)])


def _mismatch(row: Mapping[str, Any], expected: str, actual: str) -> Ring2Error:
    action = "Restore the file from a copy; other rows are not affected."
    return Ring2Error.of("RING2_E_CHECKSUM", f"{expected} ({_place(row)})", actual, action)


def _damaged(expected: str, actual: str) -> Ring2Error:
    return Ring2Error.of("RING2_E_CHECKSUM", f"{expected} in an encoded payload", actual)
