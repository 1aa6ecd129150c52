"""From a loaded model in a worker to a running capture: segment, MODEL record, hooks.

``start`` returns None when nothing is captured, and says why in one line; it never raises.
"""

import atexit
import logging
import os
import re
from typing import Any

import ring2
from ring2 import _models, _native
from ring2._errors import Ring2Error
from ring2._producer import Producer
from ring2._ranks import Place, Ranks, World
from ring2._selection import select

from . import _settings
from ._capture import Capture
from ._patterns import COMPUTED, pattern_layers
from ._sites import find_sites
from ._taps import Taps

logger = logging.getLogger("vllm.ring2")


def start(worker: Any) -> Capture | None:
    """Starts to capture a worker's model. None, with one log line, when that cannot be."""
    try:
        return _start(worker)
    except Ring2Error as error:
        logger.warning("ring2: nothing is captured; vLLM goes on without it: %s", error)
    except Exception:  # noqa: BLE001  the engine must start, whatever this was
        logger.exception("ring2: nothing is captured; vLLM goes on without it")
    return None


def place_of(config: Any) -> Place:
    """This worker's ranks, and how many there are along each axis."""
    from vllm.distributed import get_pp_group, get_tp_group

    parallel = config.parallel_config
    tp, pp = get_tp_group(), get_pp_group()
    experts = parallel.enable_expert_parallel
    return Place(
        Ranks(tp.rank_in_group, pp.rank_in_group, parallel.data_parallel_rank,
              tp.rank_in_group if experts else 0),
        World(tp.world_size, pp.world_size, parallel.data_parallel_size,
              tp.world_size if experts else 1),
    )


def _refuse_what_is_not_known(config: Any) -> None:
    if config.speculative_config is not None:
        raise Ring2Error(
            "RING2_E_MODEL",
            "expected no speculative decoding, whose drafted tokens may be taken back; start vLLM "
            "without it to capture.",
        )
    if getattr(config, "use_v2_model_runner", False):
        raise Ring2Error(
            "RING2_E_MODEL",
            "expected vLLM's model runner V1, got V2; set VLLM_USE_V2_MODEL_RUNNER=0 to capture.",
        )


def _available(sites: Any, patterns: Any) -> dict[str, set[int]]:
    available: dict[str, set[int]] = {"token_ids": {-1}, "final_logits": {-1}}
    for site in sites:
        available.setdefault(site.hook, set()).add(site.layer)
    if patterns:
        available |= {name: set(patterns) for name in COMPUTED}
    return available


def _info(config: Any, model: Any, layers: int, place: Place) -> dict[str, object]:
    import vllm

    served = config.model_config.served_model_name
    name = served[0] if isinstance(served, list) else served or config.model_config.model
    info = _models.describe(model, layers, config.model_config.hf_text_config)
    return {
        **info,
        "name": os.path.basename(os.path.normpath(name)) if os.path.isdir(name) else name,
        "revision": config.model_config.revision or "",
        "engine": "vllm",
        "engine_version": vllm.__version__,
        **place.body(),
    }


def _segment(settings: _settings.Settings, name: str, place: Place) -> str:
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "model"
    chosen = settings.segment or f"{plain[:40]}-{os.getpid()}"
    if place.world == World():
        return chosen
    ranks = place.ranks
    return f"{chosen}-dp{ranks.dp}pp{ranks.pp}tp{ranks.tp}"


def say_what_is_traced(config: Any, slot: int, wanted: set[tuple[str, int]]) -> None:
    """Makes the taps part of the key of vLLM's compile cache, before anything is compiled."""
    additional = config.additional_config
    traced = [ring2.__version__, slot, sorted(wanted)]
    own = {**(additional.get("ring2") or {}), _settings.TRACED: traced}
    config.additional_config = {**additional, "ring2": own}


def _start(worker: Any) -> Capture | None:
    config, runner = worker.vllm_config, worker.model_runner
    model = runner.get_model()
    additional = config.additional_config
    settings = _settings.read(additional)
    _refuse_what_is_not_known(config)
    if not isinstance(additional, dict):
        # The key of vLLM's compile cache comes from it, and must tell of the taps.
        raise Ring2Error(
            "RING2_E_MODEL",
            f"expected vLLM's additional_config to be an object, got {type(additional).__name__}",
        )
    place = place_of(config)
    sites = find_sites(model)
    patterns = pattern_layers(config) if settings.pattern_queries else {}
    layers = config.model_config.hf_text_config.num_hidden_layers
    if not sites:
        logger.warning(
            "ring2: the modules of %s are not known: of it only token_ids, final_logits%s are "
            "captured", type(model).__name__, " and what is computed of attention" if patterns else "",
        )
    available = _available(sites, patterns)
    chosen, skipped = select(
        settings.hooks, settings.layers, place.whole(available, layers), layers,
        type(model).__name__,
    )
    chosen = place.own(chosen, available)
    if skipped:
        logger.info("ring2: not captured from %s: %s", type(model).__name__, ", ".join(skipped))
    _native.register_operator()
    info = _info(config, model, layers, place)
    info["hooks"] = {name: list(numbers) for name, numbers in chosen.items()}
    computed = [name for name in COMPUTED if name in chosen]
    if computed:
        info["computed"] = computed
    segment = _segment(settings, str(info["name"]), place)
    producer = Producer(
        segment, settings.payload_mb, settings.when_full, 1000, settings.directory or None
    )
    try:
        producer.set_ranks(place.ranks)
        producer.send(_native.KIND_MODEL, info)
        capture = Capture(producer, runner, chosen, settings.pattern_queries)
        taps = Taps(producer, capture.trouble)
        wanted = {(hook, layer) for hook, numbers in chosen.items() for layer in numbers}
        compiled = int(config.compilation_config.mode or 0) != 0
        say_what_is_traced(config, producer.slot, wanted)
        taps.install([site for site in sites if (site.hook, site.layer) in wanted], compiled)
        capture.follow = taps.follow
        capture.install(patterns)
    except BaseException:
        producer.close()
        raise
    atexit.register(capture.close)
    logger.info("ring2: capturing %s of %s into %s", ", ".join(chosen), info["name"], producer.path)
    return capture
