"""The one exception of this package, with the stable codes of docs/errors.md."""

# Codes of the native library by id; test/python compares them with native/errors.json.
NATIVE_CODES = {
    1: "RING2_E_ARGUMENT",
    2: "RING2_E_SYSTEM",
    3: "RING2_E_NAME_TAKEN",
    4: "RING2_E_NOT_A_SEGMENT",
    5: "RING2_E_VERSION",
    6: "RING2_E_BUSY",
    7: "RING2_E_CLOSED",
    8: "RING2_E_NOT_DRAINED",
    9: "RING2_E_MEMORY",
    10: "RING2_E_HOOK",
    11: "RING2_E_INTERNAL",
}


class Ring2Error(Exception):
    """What went wrong: ``code`` is stable, the text says expected, actual and what to do.

    ``expected``, ``actual`` and ``action`` are the parts of the text, where it was made of them;
    empty otherwise.
    """

    expected = ""
    actual = ""
    action = ""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message

    @classmethod
    def of(cls, code: str, expected: str, actual: str, action: str = "") -> "Ring2Error":
        """An error from its parts."""
        error = cls(code, f"expected {expected}, got {actual}." + (f" {action}" if action else ""))
        error.expected, error.actual, error.action = expected, actual, action
        return error

    def __reduce__(self):
        return (Ring2Error, (self.code, self.message), self.__dict__)
