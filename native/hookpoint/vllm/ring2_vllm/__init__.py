"""``ring2_vllm``: capture of an unmodified vLLM, as a ``vllm.general_plugins`` entry point.

vLLM calls ``register`` in each of its processes. Only what is loaded there decides what happens: the
front end hands request ids and trace context on, a worker opens a segment once its model is loaded.
"""

from ._plugin import register

__version__ = "0.1.0"

__all__ = ["__version__", "register"]
