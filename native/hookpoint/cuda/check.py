"""Whether captures from a GPU are right, and what they cost: one JSON verdict on stdout.

    check.sh            on a GPU; without one it says "not run" and exits with 2
    check.sh --cpu      the same program over CPU tensors, so that nothing in it runs first on a GPU

A model with random weights is run eager, compiled, compiled for CUDA graphs and inside a CUDA graph of
one's own. What arrives in the segment is compared bit for bit with what the same call returned. Rings are
as large as what is sent before anybody drains, so a record that is lost is a failure.
"""

import argparse
import copy
import json
import os
import pathlib
import platform
import shutil
import statistics
import sys
import tempfile
import time
from typing import Any

import torch
import transformers
from segment_reader import TENSOR, SegmentReader

import ring2
from ring2 import _cuda

RESID_PRE, FINAL_LOGITS = 0, 19
ARRIVAL_SECONDS = 30
SHARED = "/dev/shm"
SHARED_BYTES = {"cpu": 512 << 20, "cuda": 1536 << 20}  # of it that must be free
CHECK_MB = 64  # of a ring, where what is sent is compared
SPARE_MB = 16  # beside what is sent while it is measured
MIB = 1 << 20
SIZES = {
    "cpu": {"small": (64, 2, 256), "wide": (256, 3, 512)},
    "cuda": {"small": (128, 2, 1000), "medium": (1024, 8, 32000), "large": (4096, 8, 32000)},
}
MODELS_MEASURED = 3  # plain, captured, hooked
GPU_SHARE = 0.8  # of the GPU's free memory that models and rings may take
TIMED_TOKENS = {"cpu": 8, "cuda": 256}
PAIRS = {"cpu": 3, "cuda": 30}
FORWARDS = {"cpu": 1, "cuda": 10}
ELEMENT_BYTES = {"cpu": 4, "cuda": 2}

checks: list[dict[str, Any]] = []
figures: dict[str, Any] = {}
left_out: list[str] = []


def say(text: str) -> None:
    print(f"check: {text}", file=sys.stderr, flush=True)


def make_model(device: str, size: tuple[int, int, int]) -> Any:
    hidden, layers, vocabulary = size
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=layers,
        num_attention_heads=max(hidden // 64, 2), num_key_value_heads=max(hidden // 128, 1),
        vocab_size=vocabulary, max_position_embeddings=1024,
    )
    model = transformers.LlamaForCausalLM(config)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    return model.to(device=device, dtype=dtype).eval()


def ids_of(model: Any, device: str, seed: int, batch: int = 1, tokens: int = 12) -> Any:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, model.config.vocab_size, (batch, tokens), generator=generator)
    return ids.to(device)


def raw(tensor: Any) -> bytes:
    return tensor.detach().contiguous().cpu().view(torch.uint8).numpy().tobytes()


class Capture:
    """A probe with a reader behind it, in a folder of its own."""

    def __init__(
        self, model: Any, folder: str, name: str, hooks: str = "resid_pre,final_logits",
        ring_mb: float = CHECK_MB,
    ) -> None:
        self.model = model
        self.probe = ring2.attach(
            model, hooks=hooks, segment=name, directory=folder, payload_mb=ring_mb,
            gpu_ring_mb=ring_mb,
        )
        self.reader = SegmentReader(self.probe.path)
        self.records: list[Any] = []

    def take(self, wanted: int) -> list[Any]:
        """The next `wanted` tensors; what has come within the time when they do not."""
        deadline = time.monotonic() + ARRIVAL_SECONDS
        while time.monotonic() < deadline:
            self.records += [record for record in self.reader.drain() if record.kind == TENSOR]
            if len(self.records) >= wanted:
                break
            time.sleep(0.001)
        taken, self.records = self.records[:wanted], self.records[wanted:]
        return taken

    def discard(self, wanted: int) -> str:
        """Lets the next `wanted` tensors go; what is wrong when they do not come."""
        deadline = time.monotonic() + ARRIVAL_SECONDS
        came = 0
        while came < wanted and time.monotonic() < deadline:
            drained = self.reader.drain(with_data=False)
            came += sum(record.kind == TENSOR for record in drained)
            time.sleep(0 if drained else 0.001)
        return "" if came == wanted else f"expected {wanted} tensors, got {came}"

    def counts(self) -> dict[str, int] | None:
        device = next(self.model.parameters()).device
        counts = _cuda.counts_of(self.probe._producer, device.index or 0)
        return None if counts is None else counts._asdict()

    def close(self) -> str:
        """Detaches; what was lost, or not as it should be."""
        counts = self.counts()
        self.probe.detach()
        lost = self.probe.losses()
        self.reader.close()
        pathlib.Path(self.probe.path).unlink(missing_ok=True)
        if lost:
            return f"expected nothing to be lost, got {lost}"
        if counts is not None and not counts["pinned"]:
            return "the segment could not be registered as pinned memory"
        if counts is not None and counts["broken"]:
            return "the GPU reported an error to the copies"
        return ""


def compare(records: list[Any], hidden: list[Any], logits: Any) -> str:
    """How one step's tensors differ from what the call returned; empty when they do not."""
    expected = {(RESID_PRE, layer): tensor for layer, tensor in enumerate(hidden)}
    expected[FINAL_LOGITS, -1] = logits
    found = {(record.hook, record.layer): record for record in records}
    if set(found) != set(expected):
        return f"expected {sorted(expected)}, got {sorted(found)}"
    if len({record.step for record in records}) != 1:
        return f"tensors of steps {sorted({record.step for record in records})} in one step"
    for key, tensor in expected.items():
        if found[key].dims != tuple(tensor.shape):
            return f"{key}: shape {found[key].dims}, expected {tuple(tensor.shape)}"
        if found[key].data != raw(tensor):
            return f"{key}: bytes differ"
    return ""


def note(name: str, problem: str, **more: Any) -> None:
    checks.append({"name": name, "passed": not problem, **({"problem": problem} if problem else {}), **more})
    say(f"{'ok  ' if not problem else 'FAIL'} {name}{': ' + problem if problem else ''}")


def guarded(name: str, function: Any, *arguments: Any) -> None:
    """One check that dies is one failed check."""
    try:
        function(name, *arguments)
    except Exception as error:  # the verdict must come out, whatever this was
        note(name, f"{type(error).__name__}: {error}")


def run_calls(capture: Capture, call: Any, batches: list[Any]) -> str:
    """Runs every batch before it reads, so that the host is ahead; compares each step."""
    layers = capture.model.config.num_hidden_layers
    returned = []
    with ring2.request("check"):
        for ids in batches:
            output = call(input_ids=ids, use_cache=False, output_hidden_states=True)
            kept = [tensor.clone() for tensor in output.hidden_states[:layers]]
            returned.append((kept, output.logits.clone()))
    for index, (hidden, logits) in enumerate(returned):
        problem = compare(capture.take(layers + 1), hidden, logits)
        if problem:
            return f"step {index}: {problem}"
    return ""


def check_calls(name: str, device: str, size: Any, folder: str, mode: str | None) -> None:
    model = make_model(device, size)
    batches = [ids_of(model, device, seed) for seed in range(5)]
    with torch.no_grad():
        plain = model(input_ids=batches[0], use_cache=False).logits.clone()
        capture = Capture(model, folder, name.replace(" ", "-"))
        call = model if mode is None else torch.compile(model, mode=mode)
        problem = run_calls(capture, call, batches)
        after = model(input_ids=batches[0], use_cache=False).logits
        if not problem and raw(plain) != raw(after):
            problem = "the model's logits are not what they were without capture"
        counts = capture.counts()
    closed = capture.close()
    problem = problem or closed
    if not problem and mode == "reduce-overhead" and counts is not None and not counts["graph_nodes"]:
        problem = "no capture became part of a CUDA graph"
    note(name, problem, counts=counts)


def check_own_graph(name: str, size: Any, folder: str) -> None:
    model = make_model("cuda", size)
    layers = model.config.num_hidden_layers
    static = ids_of(model, "cuda", 0)
    arguments = {"input_ids": static, "use_cache": False, "output_hidden_states": True}
    capture = Capture(model, folder, "own-graph")
    with torch.no_grad():
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                model(**arguments)
        torch.cuda.current_stream().wait_stream(side)
        capture.take(3 * (layers + 1))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = model(**arguments)
        returned = []
        with ring2.request("replayed"):
            for seed in range(20):
                static.copy_(ids_of(model, "cuda", seed))
                with capture.probe.replay(**arguments):
                    graph.replay()
                kept = [tensor.clone() for tensor in output.hidden_states[:layers]]
                returned.append((kept, output.logits.clone()))
    problem = ""
    for index, (hidden, logits) in enumerate(returned):
        problem = problem or compare(capture.take(layers + 1), hidden, logits)
        if problem:
            problem = f"replay {index}: {problem}"
            break
    counts = capture.counts()
    closed = capture.close()
    graph.replay()  # its captures are off, and must do no harm
    torch.cuda.synchronize()
    note(name, problem or closed, counts=counts)


def check_part_of_batch(name: str, device: str, size: Any, folder: str) -> None:
    """Three requests in a batch, of which the exporter wants the first and the last."""
    model = make_model(device, size)
    layers = model.config.num_hidden_layers
    capture = Capture(model, folder, "part")
    capture.reader.want_sampled_only()
    infos = [
        ring2.RequestInfo(f"row-{index}", f"00-{index + 1:032x}-{index + 1:016x}-{flags}")
        for index, flags in enumerate(("01", "00", "01"))
    ]
    ids = ids_of(model, device, 1, batch=len(infos))
    with torch.no_grad(), ring2.batch(infos):
        output = model(input_ids=ids, use_cache=False, output_hidden_states=True)
    hidden = [tensor[[0, 2]] for tensor in output.hidden_states[:layers]]
    problem = compare(capture.take(layers + 1), hidden, output.logits[[0, 2]])
    closed = capture.close()
    note(name, problem or closed)


def check_second_gpu(name: str, size: Any, folder: str) -> None:
    with torch.cuda.device(1):
        check_calls(name, "cuda", size, folder, None)


def check_full_ring(name: str, device: str, size: Any, folder: str) -> None:
    """A ring that nobody drains: the model goes on, and what is lost is counted."""
    model = make_model(device, size)
    ids = [ids_of(model, device, seed, tokens=200) for seed in range(40)]
    with torch.no_grad():
        plain = [raw(model(input_ids=one, use_cache=False).logits) for one in ids]
        probe = ring2.attach(
            model, hooks="resid_pre", segment="full", directory=folder, payload_mb=0.0625,
            gpu_ring_mb=0.0625,
        )
        with ring2.request("full"):
            captured = [raw(model(input_ids=one, use_cache=False).logits) for one in ids]
    probe.detach()
    pathlib.Path(probe.path).unlink(missing_ok=True)
    problem = "" if probe.losses() else "expected losses to be counted, got none"
    note(name, problem if plain == captured else "the model's logits are not as without capture")


def timed(run: Any, device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(FORWARDS[device]):
        run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(name: str, device: str, size: Any, folder: str) -> None:
    """Slowdown of hidden states of all layers, in interleaved pairs against no capture."""
    hidden, layers, _ = size
    plain = make_model(device, size)
    captured, hooked = copy.deepcopy(plain), copy.deepcopy(plain)
    ids = ids_of(plain, device, 0, tokens=TIMED_TOKENS[device])
    sent = FORWARDS[device] * layers * ids.numel() * hidden * ELEMENT_BYTES[device]
    ring_mb = SPARE_MB + 2 * sent / MIB
    capture = Capture(captured, folder, "measure", "resid_pre", ring_mb)
    for layer in hooked.model.layers:
        layer.register_forward_hook(
            lambda _module, _args, output: (output[0] if isinstance(output, tuple) else output).cpu()
        )

    def returned() -> None:
        output = plain(input_ids=ids, use_cache=False, output_hidden_states=True)
        for tensor in output.hidden_states[:layers]:
            tensor.cpu()

    def ours() -> None:
        with ring2.request("measure"):
            captured(input_ids=ids, use_cache=False)

    ways = {
        "ring2": ours,
        "forward_hooks_cpu": lambda: hooked(input_ids=ids, use_cache=False),
        "output_hidden_states_cpu": returned,
    }
    ratios: dict[str, list[float]] = {way: [] for way in ways}
    problem = ""
    with torch.no_grad():
        for pair in range(PAIRS[device] + 1):
            for way, run in ways.items():
                base = timed(lambda: plain(input_ids=ids, use_cache=False), device)
                ratio = timed(run, device) / base
                if run is ours and not problem:
                    problem = capture.discard(FORWARDS[device] * layers)
                if pair > 0:  # the first warms up
                    ratios[way].append(ratio)
    closed = capture.close()
    problem = problem or closed
    figures[name] = {
        way: {"median": round(statistics.median(values), 4), "min": round(min(values), 4),
              "max": round(max(values), 4), "pairs": len(values)}
        for way, values in ratios.items()
    } | {"bytes_per_forward": sent // FORWARDS[device], "nothing_lost": not problem}
    say(f"slowdown of {name}: {figures[name]}")
    note(f"nothing lost while {name} is measured", problem)


def fits(device: str, size: Any) -> bool:
    """Whether the GPU holds the models that are measured, and their ring."""
    if device != "cuda":
        return True
    hidden, layers, vocabulary = size
    weights = layers * (3 + 3 * 2) * hidden**2 + 2 * vocabulary * hidden
    sent = FORWARDS[device] * layers * TIMED_TOKENS[device] * hidden * ELEMENT_BYTES[device]
    need = MODELS_MEASURED * weights * ELEMENT_BYTES[device] + 2 * sent
    return need < GPU_SHARE * torch.cuda.mem_get_info()[0]


def versions(device: str) -> dict[str, Any]:
    found = {
        "python": platform.python_version(), "torch": torch.__version__,
        "transformers": transformers.__version__, "cuda_of_torch": torch.version.cuda,
    }
    if device == "cuda":
        found["gpu"] = torch.cuda.get_device_name(0)
        found["capability"] = ".".join(map(str, torch.cuda.get_device_capability(0)))
    return found


def finish(verdict: str, device: str, reason: str = "") -> int:
    print(json.dumps({
        "verdict": verdict, **({"reason": reason} if reason else {}), "ran_on_gpu": device == "cuda",
        "checks": checks, "figures": figures, "left_out": left_out, "versions": versions(device),
    }))
    return {"pass": 0, "fail": 1, "not run": 2}[verdict]


def run_all(device: str, folder: str) -> None:
    sizes = {label: size for label, size in SIZES[device].items() if fits(device, size)}
    left_out.extend(label for label in SIZES[device] if label not in sizes)
    if left_out:
        say(f"the GPU's memory is too small for: {', '.join(left_out)}")
    for label, size in sizes.items():
        guarded(f"eager {label}", check_calls, device, size, folder, None)
    small = SIZES[device]["small"]
    guarded("compiled", check_calls, device, small, folder, "default")
    guarded("compiled for CUDA graphs", check_calls, device, small, folder, "reduce-overhead")
    guarded("some requests of a batch", check_part_of_batch, device, small, folder)
    if device == "cuda":
        guarded("a CUDA graph of one's own", check_own_graph, small, folder)
        guarded("a CUDA graph of a wide model", check_own_graph, SIZES[device]["medium"], folder)
        if torch.cuda.device_count() > 1:
            guarded("eager on a second GPU", check_second_gpu, small, folder)
    guarded("a full ring", check_full_ring, device, small, folder)
    for label, size in sizes.items():
        guarded(label, measure, device, size, folder)


def why_not(device: str) -> str:
    """What keeps the check from running here; empty when nothing does."""
    if device == "cuda" and not torch.cuda.is_available():
        return "this PyTorch finds no GPU that it can use"
    free = shutil.disk_usage(SHARED).free
    if free < SHARED_BYTES[device]:
        return (f"expected {SHARED_BYTES[device] // MIB} MiB free in {SHARED}, got {free // MIB}; "
                "a container takes more with --shm-size=2g")
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpu", action="store_true", help="over CPU tensors, without a GPU")
    device = "cpu" if parser.parse_args().cpu else "cuda"
    reason = why_not(device)
    if reason:
        say(f"not run: {reason}")
        return finish("not run", "none", reason)
    with tempfile.TemporaryDirectory(dir=SHARED, prefix="ring2-check-") as folder:
        run_all(device, folder)
    return finish("pass" if all(check["passed"] for check in checks) else "fail", device)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.exit(main())
