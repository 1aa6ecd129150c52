"""Reads tensors from npy, safetensors, Arrow and JSON with NumPy, and compares their bits."""

import json
import math
import struct
import sys

import numpy
import pyarrow

SAFETENSORS = {
    "float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64", "int8": "I8",
    "uint8": "U8", "int16": "I16", "int32": "I32", "int64": "I64", "bool": "BOOL",
}


def check_npy(path, case, raw):
    array = numpy.load(path, allow_pickle=False)
    expected = "uint16" if case["dtype"] == "bfloat16" else case["dtype"]
    return [
        str(array.dtype) == expected,
        list(array.shape) == case["shape"],
        array.tobytes() == raw,
    ]


def check_safetensors(path, case, raw):
    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        body = file.read()
    tensor = header["resid_pre.0"]
    return [
        size % 8 == 0,
        header["__metadata__"] == {"hook": "resid_pre", "layer": "0"},
        tensor["dtype"] == SAFETENSORS[case["dtype"]],
        tensor["shape"] == case["shape"],
        tensor["data_offsets"] == [0, len(raw)],
        body == raw,
    ]


def check_arrow(path, case, raw):
    table = pyarrow.ipc.open_stream(path).read_all()
    column = table["resid_pre.0"].combine_chunks()
    if len(case["shape"]) == 1:
        array = column.to_numpy(zero_copy_only=True)
    elif 0 in case["shape"]:
        # PyArrow has no NumPy view of a column without entries.
        array = numpy.zeros((len(column), *column.type.shape), column.type.value_type.to_pandas_dtype())
    else:
        array = column.to_numpy_ndarray()
    stored = {"bfloat16": "uint16", "bool": "uint8"}.get(case["dtype"], case["dtype"])
    table.validate(full=True)
    return [
        str(array.dtype) == stored,
        list(array.shape) == case["shape"],
        array.tobytes() == raw,
        table.schema.metadata == {b"hook": b"resid_pre", b"layer": b"0"},
    ]


def to_values(case, raw):
    if case["dtype"] == "bfloat16":
        bits = numpy.frombuffer(raw, dtype="<u2").astype("<u4") << 16
        return bits.view("<f4").astype("float64").reshape(case["shape"])
    return numpy.frombuffer(raw, dtype=case["dtype"]).reshape(case["shape"])


def from_json(value):
    if isinstance(value, list):
        return [from_json(one) for one in value]
    if isinstance(value, str):
        return int(value) if value.lstrip("-").isdigit() else float(value)
    return value


def same(left, right):
    if isinstance(left, list):
        return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right))
    if isinstance(left, float) and math.isnan(left):
        return isinstance(right, float) and math.isnan(right)
    return left == right


def check_json(path, case, raw):
    with open(path, encoding="utf-8") as file:
        # A float without a fraction is written as an integer, shortened as JavaScript does.
        integer = float if "float" in case["dtype"] else int
        document = json.load(file, parse_int=integer)
    return [same(to_values(case, raw).tolist(), from_json(document["data"]))]


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        cases = json.load(file)
    wrong = []
    for case in cases:
        raw = bytes.fromhex(case["hex"])
        results = {
            "npy": check_npy(case["base"] + ".npy", case, raw),
            "safetensors": check_safetensors(case["base"] + ".safetensors", case, raw),
            "arrow": check_arrow(case["base"] + ".arrow", case, raw),
            "json": check_json(case["base"] + ".json", case, raw),
        }
        wrong += [[case["base"], name, ok] for name, ok in results.items() if not all(ok)]
    print(json.dumps({"checked": len(cases), "wrong": wrong}))


main()
