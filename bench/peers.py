"""Other ways to take the hidden states of all layers out of a Transformers model.

Each is a context manager that is given a model of its own and yields a function with the arguments of
the model's forward pass, which keeps what it took until the next call. The packages are those of
requirements-peers.txt; each is used as its documentation shows, for the same tensors as ours.
"""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

Forward = Callable[..., Any]


@contextlib.contextmanager
def output_hidden_states(model: Any, _folder: str) -> Iterator[Forward]:
    kept: list[Any] = []

    def forward(**inputs: Any) -> None:
        kept[:] = model(**inputs, output_hidden_states=True).hidden_states

    yield forward


@contextlib.contextmanager
def forward_hooks(model: Any, _folder: str) -> Iterator[Forward]:
    kept: list[Any] = []
    for block in model.model.layers:
        block.register_forward_pre_hook(lambda _module, inputs: kept.append(inputs[0].clone()))

    def forward(**inputs: Any) -> None:
        kept.clear()
        model(**inputs)

    yield forward


@contextlib.contextmanager
def nnsight(model: Any, _folder: str) -> Iterator[Forward]:
    from nnsight import NNsight

    wrapped = NNsight(model)
    kept: list[Any] = []

    def forward(**inputs: Any) -> None:
        with wrapped.trace(**inputs):
            saved = list().save()  # noqa: C408  nnsight gives lists a method
            for block in wrapped.model.layers:
                saved.append(block.input)
        kept[:] = saved

    yield forward


@contextlib.contextmanager
def transformer_lens(model: Any, folder: str) -> Iterator[Forward]:
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers(folder, device="cpu", hf_model=model)
    names = [f"blocks.{layer}.hook_in" for layer in range(len(model.model.layers))]
    kept: list[Any] = []

    def forward(input_ids: Any, **inputs: Any) -> None:
        _, cache = bridge.run_with_cache(input_ids, names_filter=names, **inputs)
        if len(cache) != len(names):
            raise SystemExit(f"expected {len(names)} hidden states, got {len(cache)}")
        kept[:] = [cache]

    yield forward


@contextlib.contextmanager
def llm_instrumentation(model: Any, _folder: str) -> Iterator[Forward]:
    from llm_instrumentation.core.config import InstrumentationConfig
    from llm_instrumentation.core.framework import InstrumentationFramework

    framework = InstrumentationFramework(InstrumentationConfig.fast_capture())
    # It hooks a model's outermost children only, so each block is given to it as a model.
    for block in model.model.layers:
        framework.instrument_model(block)
    with tempfile.TemporaryDirectory() as target:
        with framework.capture_activations(os.path.join(target, "activations.stream")):
            yield model


PEERS: dict[str, Callable[[Any, str], Any]] = {
    "output_hidden_states=True": output_hidden_states,
    "forward hooks that clone": forward_hooks,
    "nnsight 0.8.1": nnsight,
    "TransformerLens 4.3.0": transformer_lens,
    "llm-instrumentation 1.3.1 (STRAP-LLM)": llm_instrumentation,
}
