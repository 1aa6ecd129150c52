"""Decodes the rows of a folder with the Python package: rows.json and N.encoded become N.decoded.

Then damages each of them in many ways: what comes must be an error with a code, or other elements of
the same size.
"""

import json
import pathlib
import random
import sys

root = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(root / "native" / "hookpoint" / "python"))

import ring2  # noqa: E402
from ring2.codec import decode_bytes  # noqa: E402


def damage(row: dict) -> None:
    chance = random.Random(7)
    size = len(decode_bytes(row))
    for turn in range(300):
        data = bytearray(row["data"])
        data[chance.randrange(72 if turn % 2 else len(data))] ^= 1 << turn % 8
        if turn % 3 == 0:
            del data[chance.randrange(len(data)) :]
        try:
            decoded = decode_bytes({**row, "data": bytes(data)})
        except ring2.Ring2Error as error:
            assert error.code == "RING2_E_CHECKSUM", error
        else:
            assert len(decoded) == size or row["encoding"] == "raw"


folder = pathlib.Path(sys.argv[1])
for index, row in enumerate(json.loads((folder / "rows.json").read_text())):
    row["data"] = (folder / f"{index}.encoded").read_bytes()
    (folder / f"{index}.decoded").write_bytes(decode_bytes(row))
    assert list(ring2.decode(row).shape) == row["shape"]
    damage(row)
