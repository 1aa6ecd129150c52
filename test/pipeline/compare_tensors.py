"""Compares fetched tensors with what the model itself held.

    python compare_tensors.py LIST

LIST is a JSON file of [{file, format, reference, array, tolerance}]. Prints, for each, the shape, the
largest difference and whether it is within the tolerance; a tolerance of 0 asks for equal bits.
"""

import json
import sys

import numpy
from safetensors.numpy import load_file


def read(path: str, form: str) -> numpy.ndarray:
    if form == "npy":
        return numpy.load(path)
    if form == "safetensors":
        tensors = load_file(path)
        assert len(tensors) == 1, list(tensors)
        return next(iter(tensors.values()))
    with open(path, encoding="utf-8") as file:
        document = json.load(file)
    return numpy.array(document["data"], dtype=document["dtype"]).reshape(document["shape"])


def compare(one: dict) -> dict:
    got = read(one["file"], one["format"])
    want = numpy.load(one["reference"])[one["array"]]
    result = {"array": one["array"], "format": one["format"], "shape": list(got.shape),
              "dtype": str(got.dtype), "difference": None, "equal": False}
    if got.shape == want.shape and got.dtype == want.dtype:
        difference = numpy.abs(got.astype(numpy.float64) - want.astype(numpy.float64)).max()
        result["difference"] = float(difference)
        exact = one["tolerance"] == 0
        result["equal"] = got.tobytes() == want.tobytes() if exact else bool(
            difference <= one["tolerance"]
        )
    else:
        result["expected"] = [list(want.shape), str(want.dtype)]
    return result


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        print(json.dumps([compare(one) for one in json.load(file)]))


if __name__ == "__main__":
    main()
