"""Sends rows as DMI does: its table, its columns, ten connections, rows of a request spread over them.

Used with clickhouse-driver, or with packets written here as clickhouse-cpp writes them (revision 54459,
no compression). The rows come from a folder: rows.json and one file of bytes for each row.
"""

import argparse
import json
import pathlib
import socket
import struct
import subprocess
import threading

COLUMNS = [
    ("model_id", "String"),
    ("request_id", "String"),
    ("act_name", "String"),
    ("layer_no", "Int32"),
    ("shard_rank", "Int32"),
    ("start_token_idx", "Int32"),
    ("end_token_idx", "Int32"),
    ("dtype", "String"),
    ("shape", "Array(Int64)"),
    ("bytes", "String"),
]
NAMES = ", ".join(name for name, _ in COLUMNS)
CREATE = (
    "CREATE TABLE IF NOT EXISTS default.offload ("
    + ", ".join(f"{name} {kind}" for name, kind in COLUMNS)
    + ") ENGINE = MergeTree() ORDER BY (model_id, request_id, act_name, layer_no, shard_rank,"
    + " start_token_idx, end_token_idx) SETTINGS index_granularity = 8192"
)
INSERT = f"INSERT INTO default.offload ( {NAMES} ) VALUES"
REVISION = 54459


def load(folder):
    folder = pathlib.Path(folder)
    rows = json.loads((folder / "rows.json").read_text())
    return [tuple(row[:9]) + ((folder / row[9]).read_bytes(),) for row in rows]


# -------------------------------------------------------------------- clickhouse-driver


class Driver:
    def __init__(self, host, port, compression):
        from clickhouse_driver import Client

        settings = {"strings_as_bytes": True}
        self.client = Client(
            host, port=port, compression=compression or False, settings=settings, connect_timeout=20
        )

    def execute(self, text):
        return self.client.execute(text)

    def insert(self, rows):
        encoded = [
            tuple(value.encode() if isinstance(value, str) else value for value in row) for row in rows
        ]
        return self.client.execute(INSERT, encoded)

    def close(self):
        self.client.disconnect()


# -------------------------------------------------------------------- as clickhouse-cpp


def number(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def text(value):
    raw = value if isinstance(value, bytes) else value.encode()
    return number(len(raw)) + raw


class Raw:
    """The packets of a client that speaks revision 54459 without compression."""

    def __init__(self, host, port, _compression=None):
        self.socket = socket.create_connection((host, port), timeout=60)
        # As clickhouse-cpp does: or the small packets wait for acknowledgements.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.send(
            number(0) + text("clickhouse-cpp") + number(2) + number(6) + number(REVISION)
            + text("default") + text("default") + text("")
        )
        assert self.take_number() == 0
        self.take_text(), self.take_number(), self.take_number()
        self.revision = min(REVISION, self.take_number())
        if self.revision >= 54058:
            self.take_text()
        if self.revision >= 54372:
            self.take_text()
        if self.revision >= 54401:
            self.take_number()
        if self.revision >= 54458:
            self.send(text(""))
        self.send(number(4))
        assert self.take_number() == 4, "no Pong"

    def send(self, data):
        self.socket.sendall(data)

    def take(self, count):
        while len(self.received) < count:
            more = self.socket.recv(65536)
            assert more, "the bridge has closed the connection"
            self.received += more
        out, self.received = self.received[:count], self.received[count:]
        return out

    def take_number(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def take_text(self):
        return self.take(self.take_number())

    def block(self, columns, count):
        out = b""
        if self.revision >= 51903:
            out += b"\x01\x00\x02\xff\xff\xff\xff\x00"
        out += number(len(columns)) + number(count)
        for name, kind, data in columns:
            out += text(name) + text(kind)
            if self.revision >= 54454:
                out += b"\x00"
            out += data
        return out

    def data(self, columns, count):
        self.send(number(2) + text("") + self.block(columns, count))

    def query(self, statement):
        out = number(1) + text("")
        out += b"\x01" + text("") + text("") + text("[::ffff:127.0.0.1]:0")
        if self.revision >= 54449:
            out += bytes(8)
        out += b"\x01" + text("") + text("host") + text("clickhouse-cpp")
        out += number(2) + number(6) + number(REVISION)
        if self.revision >= 54060:
            out += text("")
        if self.revision >= 54448:
            out += number(0)
        if self.revision >= 54401:
            out += number(0)
        if self.revision >= 54442:
            out += b"\x00"
        if self.revision >= 54453:
            out += number(0) * 3
        out += text("")
        if self.revision >= 54441:
            out += text("")
        out += number(2) + number(0) + text(statement)
        if self.revision >= 54459:
            out += text("")
        self.send(out)
        self.data([], 0)

    def until_end(self):
        kind = self.take_number()
        while kind in (3, 11):
            if kind == 3:
                for _ in range(3 + (2 if self.revision >= 54420 else 0)):
                    self.take_number()
            else:
                self.take_text(), self.take_text()
            kind = self.take_number()
        return kind

    def execute(self, statement):
        self.query(statement)
        kind = self.until_end()
        assert kind == 5, f"packet {kind} for {statement[:40]}"

    def header(self):
        assert self.until_end() == 1, "no block that says what an INSERT may send"
        self.take_text()
        if self.revision >= 51903:
            self.take(8)
        columns = self.take_number()
        assert self.take_number() == 0
        names = []
        for _ in range(columns):
            names.append((self.take_text().decode(), self.take_text().decode()))
            if self.revision >= 54454:
                self.take(1)
        return names

    def columns(self, rows):
        out = []
        for index, (name, kind) in enumerate(COLUMNS):
            values = [row[index] for row in rows]
            if kind == "String":
                data = b"".join(text(value) for value in values)
            elif kind == "Int32":
                data = struct.pack(f"<{len(values)}i", *values)
            else:
                ends, flat = [], []
                for value in values:
                    flat += value
                    ends.append(len(flat))
                data = struct.pack(f"<{len(ends)}Q", *ends) + struct.pack(f"<{len(flat)}q", *flat)
            out.append((name, kind, data))
        return out

    def insert(self, rows):
        self.query(INSERT)
        assert self.header() == COLUMNS
        self.data(self.columns(rows), len(rows))
        self.data([], 0)
        kind = self.until_end()
        assert kind == 5, f"packet {kind} at the end of an INSERT"

    def close(self):
        self.socket.close()


# -------------------------------------------------------------------- clickhouse-client


class Cli:
    """The command-line client; every INSERT is a process, and compresses unless told not to."""

    def __init__(self, _host, port, compression):
        self.words = ["clickhouse-client", "--port", str(port), "--compression", "1"]
        if compression == "zstd":
            self.words += ["--network_compression_method", "zstd"]

    def run(self, statement, data=b""):
        done = subprocess.run([*self.words, "--query", statement], input=data, capture_output=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def execute(self, statement):
        return self.run(statement)

    def insert(self, rows):
        out = b""
        for row in rows:
            for (_, kind), value in zip(COLUMNS, row):
                if kind == "String":
                    out += text(value)
                elif kind == "Int32":
                    out += struct.pack("<i", value)
                else:
                    out += number(len(value)) + struct.pack(f"<{len(value)}q", *value)
        self.run(f"INSERT INTO default.offload ({NAMES}) FORMAT RowBinary", out)

    def close(self):
        pass


CLIENTS = {"driver": Driver, "raw": Raw, "cli": Cli}


def spread(make, rows, connections, batch):
    """Every connection takes every so manieth row, in batches, all at once."""
    failures = []

    def one(index):
        try:
            client = make()
            mine = rows[index::connections]
            for at in range(0, len(mine), batch):
                client.insert(mine[at : at + batch])
            client.close()
        except Exception as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=one, args=(index,)) for index in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("folder")
    arguments.add_argument("port", type=int)
    arguments.add_argument("--client", choices=list(CLIENTS), default="driver")
    arguments.add_argument("--compression", default=None)
    arguments.add_argument("--connections", type=int, default=10)
    arguments.add_argument("--batch", type=int, default=7)
    arguments.add_argument("--read-back", action="store_true")
    given = arguments.parse_args()
    kind = CLIENTS[given.client]

    def make():
        return kind("127.0.0.1", given.port, given.compression)

    rows = load(given.folder)
    schema = make()
    schema.execute("CREATE DATABASE IF NOT EXISTS default")
    schema.execute(CREATE)
    schema.close()
    spread(make, rows, given.connections, given.batch)
    result = {"sent": len(rows)}
    if given.read_back:
        reader = Driver("127.0.0.1", given.port, given.compression)
        back = reader.execute(f"SELECT {NAMES} FROM default.offload")
        as_text = {(tuple(value.decode() for value in row[:3]) + row[3:7]): row[7:] for row in back}
        result["read"] = len(back)
        result["equal"] = sum(
            as_text.get(row[:7]) == (row[7].encode(), type(as_text[row[:7]][1])(row[8]), row[9])
            for row in rows
            if row[:7] in as_text
        )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
