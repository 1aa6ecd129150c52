"""A model of four layers with trained weights, and real engines that serve it, each in its process."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cut_model import cut_model

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "test" / "python"))

PROCESS_SECONDS = 900


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = Path(os.environ["RING2_MODEL_DIR"])
    return cut_model(source, tmp_path_factory.mktemp("models") / "cut")


@pytest.fixture(scope="session")
def reference_model(model_folder: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    return AutoModelForCausalLM.from_pretrained(
        model_folder, attn_implementation="eager", dtype=torch.float32
    ).eval()


class Run(NamedTuple):
    """What one engine gave."""

    result: dict[str, Any]
    records: Any  # ring_reader.Records; None without a segment
    log: str


class Family(NamedTuple):
    """What the engine of one family gave: by rank the records, and the ranks that their slices name."""

    answers: list[list[int]]  # tokens of prompt and answer
    records: list[Any]
    ranks: list[set[tuple[int, ...]]]


class Engines:
    """Starts engines and reads what they captured."""

    def __init__(self, folder: Path, work: Path) -> None:
        self._folder = folder
        self._work = work

    def run(self, *runs: tuple[str, dict[str, str]]) -> list[Run]:
        """One engine after the other serves the load of engine_run.py: each its mode, and RING2_VLLM…
        variables."""
        results, log = self._start("engine_run.py", [self._folder, json.dumps(runs)], {})
        return [
            Run(result, _drain(settings["RING2_VLLM_DIRECTORY"], settings["RING2_VLLM_SEGMENT"]), log)
            for result, (_, settings) in zip(results, runs, strict=True)
        ]

    def run_families(
        self, folder: Path, families: Sequence[str], queries: int
    ) -> dict[str, Family]:
        """Serves each ``family`` or ``family:ranks`` whose model is in ``folder``."""
        settings = {
            "RING2_VLLM_DIRECTORY": str(self._work), "RING2_VLLM_HOOKS": "full",
            "RING2_VLLM_PATTERN_QUERIES": str(queries), "RING2_VLLM_PAYLOAD_MB": "64",
        }
        answers, _ = self._start("family_run.py", [folder, "tiny", *families], settings)
        found = {}
        for family in families:
            name, _, ranks = family.partition(":")
            ends = [f"-dp0pp0tp{rank}" for rank in range(int(ranks))] if ranks else [""]
            drained = [_drain_ranked(self._work / f"ring2.tiny-{name}{end}") for end in ends]
            records, places = ([one[part] for one in drained] for part in (0, 1))
            found[family] = Family(answers[family], records, places)
        return found

    def _start(
        self, script: str, words: Sequence[object], settings: dict[str, str]
    ) -> tuple[Any, str]:
        """What a script printed as its result, and its log."""
        environment = {
            **os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_CACHE_ROOT": str(Path.home() / ".cache" / "ring2" / "vllm"), "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": "1", **settings,
        }
        command = [sys.executable, str(Path(__file__).with_name(script)), *map(str, words)]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=PROCESS_SECONDS,
            check=False,
        )
        log = done.stdout + done.stderr
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        assert done.returncode == 0 and lines, log[-4000:]
        return json.loads(lines[0].removeprefix("RESULT ")), log


def _drain(folder: str | Path, segment: str) -> Any:
    """The records of a segment; None when there is none."""
    path = Path(folder) / f"ring2.{segment}"
    return _drain_ranked(path)[0] if path.exists() else None


def _drain_ranked(path: Path) -> tuple[Any, set[tuple[int, ...]]]:
    """The records of a segment, and the ranks of its tensors."""
    from ring_reader import Reader, Slice, Tensor

    ranks = set()

    class RankedReader(Reader):
        def _tensor(self, item: Slice) -> Tensor:
            ranks.add(tuple(item.ranks))
            return super()._tensor(item)

    reader = RankedReader(str(path))
    records = reader.drain()
    reader.close()
    return records, ranks


@pytest.fixture(scope="session")
def engines(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Engines:
    return Engines(model_folder, tmp_path_factory.mktemp("engines"))
