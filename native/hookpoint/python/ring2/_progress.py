"""Progress bars by tqdm, which is the user's to install: on a terminal or in a notebook."""

import sys
from contextlib import contextmanager

from ._errors import Ring2Error

# Nothing is shown of what takes less.
DELAY_SECONDS = 0.5


@contextmanager
def progress_bar(label: str, wanted: bool | None):
    """Yields what is told (bytes that came, all bytes) as they come.

    wanted  True shows a bar, False none, None where somebody looks and tqdm is installed
    """
    kind = _kind(wanted)
    if kind is None:
        yield None
        return
    with kind(
        desc=label,
        unit="B",
        unit_scale=True,
        leave=False,
        delay=0 if wanted else DELAY_SECONDS,
        file=sys.stderr,
    ) as bar:

        def show(received: int, total: int) -> None:
            bar.total = total
            bar.update(received - bar.n)

        yield show


def _kind(wanted: bool | None):
    """The class of tqdm to use; None for no bar."""
    if wanted is False or (wanted is None and not (_in_notebook() or sys.stderr.isatty())):
        return None
    try:
        from tqdm.auto import tqdm
    except ImportError:
        if wanted:
            raise Ring2Error.of(
                "RING2_E_ARGUMENT", "tqdm for progress=True", "no such package",
                "Install it with `pip install tqdm`, or leave progress out.",
            ) from None
        return None
    return tqdm


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and "IPKernelApp" in getattr(shell, "config", {})
