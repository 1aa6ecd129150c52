"""Facts that Python repeats are those of native/."""

import json
import os
import re

from ring2 import _native
from ring2._errors import NATIVE_CODES

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def _read(path: str) -> str:
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def test_error_codes_are_those_of_the_table():
    errors = json.loads(_read("native/errors.json"))["errors"]
    native = {entry["id"]: entry["name"] for entry in errors if entry["origin"] == "native"}
    assert native == NATIVE_CODES


def test_every_error_code_raised_is_in_the_table():
    errors = json.loads(_read("native/errors.json"))["errors"]
    known = {entry["name"] for entry in errors}
    folder = os.path.join(ROOT, "native/hookpoint/python/ring2")
    for name in os.listdir(folder):
        if name.endswith(".py"):
            text = _read(os.path.join("native/hookpoint/python/ring2", name))
            assert set(re.findall(r"RING2_E_[A-Z_]+", text)) <= known


def test_constants_are_those_of_the_layout():
    layout = _read("native/include/ring2_layout.h")
    numbers = {
        name: int(value)
        for name, value in re.findall(r"RING2_([A-Z0-9_]+)(?: = | )(\d+)", layout)
    }
    assert numbers["KIND_MODEL"] == _native.KIND_MODEL
    assert numbers["KIND_REQUEST"] == _native.KIND_REQUEST
    assert numbers["KIND_REQUEST_END"] == _native.KIND_REQUEST_END
    assert numbers["STEP_BATCHED"] == _native.LAYOUT_BATCHED
    assert numbers["STEP_PACKED"] == _native.LAYOUT_PACKED
    assert numbers["PHASE_PREFILL"] == _native.PHASE_PREFILL
    assert numbers["PHASE_DECODE"] == _native.PHASE_DECODE
    assert numbers["STEP_ROWS_MAX"] == _native.STEP_ROWS_MAX
    assert numbers["BODY_BYTES_MAX"] == _native.BODY_BYTES_MAX
    assert numbers["LAYERS_MAX"] == _native.LAYERS_MAX
    assert numbers["LOSS_REASONS_MAX"] == _native.LOSS_REASONS_MAX
