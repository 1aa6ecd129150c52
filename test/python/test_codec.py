"""Single rows of a store, as readers of Parquet give them."""

import numpy
import pytest

import ring2
from ring2 import Ring2Error
from ring2._crc32c import crc32c

VALUES = numpy.arange(6, dtype=numpy.float32).reshape(2, 3)


def row(values=VALUES, **change):
    data = values.tobytes()
    made = {
        "data": data, "hook": "resid_pre", "layer": 3, "step": 7, "dtype": str(values.dtype),
        "shape": list(values.shape), "encoding": "raw", "data_bytes": len(data),
        "data_crc32c": crc32c(data),
    }
    return {**made, **change}


def error_of(one):
    with pytest.raises(Ring2Error) as caught:
        ring2.decode(one)
    return caught.value


def test_a_row_becomes_an_array_of_its_shape():
    assert numpy.array_equal(ring2.decode(row()), VALUES)
    empty = VALUES[:0]
    assert ring2.decode(row(empty)).shape == (0, 3)


def test_a_changed_element_is_an_error_that_says_where():
    changed = bytearray(VALUES.tobytes())
    changed[5] ^= 1
    error = error_of(row(data=bytes(changed)))
    assert error.code == "RING2_E_CHECKSUM"
    assert error.expected == f"CRC-32C {crc32c(VALUES.tobytes())} (resid_pre, layer 3, step 7)"
    assert error.actual == f"CRC-32C {crc32c(bytes(changed))}"
    assert error.action


def test_a_payload_of_another_size_is_an_error():
    error = error_of(row(data=VALUES.tobytes()[:-4]))
    assert (error.code, error.actual) == ("RING2_E_CHECKSUM", "20 bytes")


def test_columns_that_were_not_read_are_not_compared():
    one = row()
    for name in ("hook", "layer", "step", "encoding", "data_bytes", "data_crc32c"):
        del one[name]
    assert numpy.array_equal(ring2.decode(one), VALUES)


def test_the_checksum_alone_is_enough_to_find_damage():
    one = row(data_crc32c=0)
    for name in ("hook", "layer", "step", "data_bytes"):
        del one[name]
    error = error_of(one)
    assert (error.code, error.expected) == ("RING2_E_CHECKSUM", "CRC-32C 0 (a row)")


def test_a_payload_that_was_left_out_is_an_error_of_its_own():
    error = error_of(row(data=b"", encoding="redacted", data_crc32c=0))
    assert error.code == "RING2_E_REDACTED"
    assert error.expected == "stored elements (resid_pre, layer 3, step 7)"
    assert error.actual == "the encoding redacted, which has none"
    assert "capture.redact_hooks" in error.action
    # What of it that stayed is in the row; an empty tensor is another thing.
    assert ring2.decode(row(VALUES[:0])).size == 0
