"""Writes STRAP-LLM captures as its documentation says, by struct and the codecs of PyArrow alone.

    write_stream.py FOLDER CODEC     FOLDER/capture.stream and FOLDER/NAME.bin, the values of each module
"""

import pathlib
import struct
import sys

import numpy
import pyarrow

folder, codec = pathlib.Path(sys.argv[1]), sys.argv[2]
generator = numpy.random.default_rng(4)


def payload(values: numpy.ndarray) -> bytes:
    raw = values.astype(numpy.float16).tobytes()
    return raw if codec == "none" else pyarrow.Codec(codec).compress(raw, asbytes=True)


modules = {"": 24, "model": 24, "model.layers.0.mlp": 12, "lm_head": 40}
values: dict[str, list[numpy.ndarray]] = {name: [] for name in modules}
with open(folder / "capture.stream", "wb") as out:
    # A prompt of five tokens, then three steps of one token each.
    for tokens in (5, 1, 1, 1):
        for name, width in modules.items():
            part = generator.normal(size=(tokens, width)).astype(numpy.float16)
            values[name].append(part)
            data = payload(part)
            out.write(struct.pack("!HI", len(name.encode()), len(data)) + name.encode() + data)
for name, parts in values.items():
    (folder / f"{name or 'root'}.bin").write_bytes(numpy.concatenate(parts).tobytes())
