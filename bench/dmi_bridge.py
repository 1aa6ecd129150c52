"""How fast the DMI bridge takes rows over one connection, against a program that only reads its socket.

Both get the same bytes, made before the clock starts, in the same two pieces with an answer to each: INSERTs
of rows of 256 KiB, uncompressed as DMI sends them. The bridge writes the rows into its ring, which is
emptied meanwhile; the reader reads into one buffer. In pairs, the order alternates; no row may be lost. A
ratio is the bridge's time over the reader's. The last line of standard output is one JSON document
{"results": [{name, unit, ours, peers, ratios}]}.

    python bench/dmi_bridge.py [--pairs 7]
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "test", "engines", "dmi"))
from feed import COLUMNS, INSERT, Raw  # noqa: E402
from ring_drain import Drain  # noqa: E402

ROW_TOKENS, ROW_WIDTH = 64, 1024
ROWS, INSERTS = 64, 8
WARM_UP = 3  # rounds: every page of the ring has been written to then

# Told how many bytes a piece has, it reads them and answers.
READER = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
buffer = bytearray(1 << 20)
connection, _ = listener.accept()
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
while True:
    left = int.from_bytes(connection.recv(8, socket.MSG_WAITALL), "little")
    if left == 0:
        break
    while left > 0:
        left -= connection.recv_into(buffer, min(left, len(buffer)))
    connection.sendall(b"!")
"""


def recorded(client: Raw, act: Callable[[], None]) -> bytes:
    """What the client would send."""
    sent: list[bytes] = []
    client.send = sent.append
    act()
    del client.send
    return b"".join(sent)


def packets(client: Raw, payload: bytes, round_number: int) -> list[bytes]:
    """The rows of each INSERT and its end; each row is another layer of a step that was not there before."""
    out = []
    for insert in range(INSERTS):
        start = (round_number * INSERTS + insert) * ROW_TOKENS
        place = (0, start, start + ROW_TOKENS, "torch.float", [ROW_TOKENS, ROW_WIDTH], payload)
        rows = [("bench", "request", "blocks.hook_resid_pre", layer, *place) for layer in range(ROWS)]

        def both(rows: list[tuple[object, ...]] = rows) -> None:
            client.data(client.columns(rows), len(rows))
            client.data([], 0)

        out.append(recorded(client, both))
    return out


def through_bridge(client: Raw, query: bytes, blocks: list[bytes]) -> float:
    began = time.perf_counter()
    for block in blocks:
        client.send(query)
        assert client.header() == COLUMNS
        client.send(block)
        assert client.until_end() == 5
    return time.perf_counter() - began


def through_reader(plain: socket.socket, query: bytes, blocks: list[bytes]) -> float:
    began = time.perf_counter()
    for block in blocks:
        for piece in (query, block):
            plain.sendall(len(piece).to_bytes(8, "little"))
            plain.sendall(piece)
            assert plain.recv(1) == b"!"
    return time.perf_counter() - began


def emptied(drain: Drain, stop: threading.Event) -> None:
    while not stop.is_set():
        if drain() == 0:
            stop.wait(0.001)


def measure(pairs: int, directory: str) -> tuple[list[float], list[float]]:
    program = os.environ.get("RING2_DMI_BRIDGE") or os.path.join(ROOT, "build/native/ring2-dmi-bridge")
    words = ["--listen", "127.0.0.1:0", "--directory", directory, "--payload-mb", "256"]
    bridge = subprocess.Popen([program, *words], stdout=subprocess.PIPE, text=True)
    reader = subprocess.Popen([sys.executable, "-c", READER], stdout=subprocess.PIPE, text=True)
    port = int(json.loads(bridge.stdout.readline())["listening"].split(":")[1])
    drain = Drain(os.path.join(directory, "ring2.dmi"))
    stop = threading.Event()
    thread = threading.Thread(target=emptied, args=(drain, stop))
    thread.start()
    ours, plain = [], []
    try:
        client = Raw("127.0.0.1", port)
        other = socket.create_connection(("127.0.0.1", int(reader.stdout.readline())))
        other.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        query = recorded(client, lambda: client.query(INSERT))
        payload = os.urandom(ROW_TOKENS * ROW_WIDTH * 4)
        for pair in range(-WARM_UP, pairs):
            blocks = packets(client, payload, pair + WARM_UP)
            if pair % 2 == 0:
                took, read = through_bridge(client, query, blocks), through_reader(other, query, blocks)
            else:
                read, took = through_reader(other, query, blocks), through_bridge(client, query, blocks)
            if pair >= 0:
                ours.append(took)
                plain.append(read)
        other.sendall(bytes(8))
        client.close()
    finally:
        bridge.terminate()
        counts = json.loads(bridge.stdout.readline())
        bridge.wait()
        reader.terminate()
        stop.set()
        thread.join()
        drain.close()
    rows = (pairs + WARM_UP) * INSERTS * ROWS
    if counts["rows_written"] != rows:
        raise SystemExit(f"expected {rows} rows in the ring, got {counts}")
    return ours, plain


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--pairs", type=int, default=7)
    pairs = arguments.parse_args().pairs
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        ours, plain = measure(pairs, directory)
    gibibytes = INSERTS * ROWS * ROW_TOKENS * ROW_WIDTH * 4 / 2**30
    ratios = sorted(one / other for one, other in zip(ours, plain, strict=True))
    result = {
        "name": "DMI's rows of 256 KiB over one connection, against reading the socket alone",
        "unit": "GiB/s",
        "ours": gibibytes / statistics.median(ours),
        "peers": {"plain socket reader": gibibytes / statistics.median(plain)},
        "ratios": [{
            "vs": "plain socket reader", "median": statistics.median(ratios),
            "min": ratios[0], "max": ratios[-1], "pairs": len(ratios),
        }],
    }
    print(json.dumps({"results": [result]}))


if __name__ == "__main__":
    main()
