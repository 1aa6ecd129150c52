"""A server that greets and creates tables as ClickHouse does, and lets every INSERT down.

Used as `fake_clickhouse.py HOW`; prints its port. HOW: `stalls` (says what an INSERT may send, and reads
no more), `dies` (closes in the middle of the rows), `refuses` (an exception), `raves` (no protocol).
"""

import socket
import struct
import sys
import threading
import time

from feed import COLUMNS, number, text

HELLO = (
    number(0) + text("ClickHouse") + number(22) + number(8) + number(54453)
    + text("UTC") + text("fake") + number(0)
)
PONG, END = number(4), number(5)
HEADER = (
    number(1) + text("") + b"\x01\x00\x02\xff\xff\xff\xff\x00" + number(len(COLUMNS)) + number(0)
    + b"".join(text(name) + text(kind) for name, kind in COLUMNS)
)
EXCEPTION = (
    number(2) + struct.pack("<i", 252)
    + text("DB::Exception") + text("Too many parts") + text("") + b"\x00"
)


def let_down(connection, how):
    if how == "refuses":
        connection.sendall(EXCEPTION)
    elif how == "raves":
        connection.sendall(b"\x77" * 64)
    else:
        connection.sendall(HEADER)
        if how == "dies":
            connection.recv(65536)
            connection.close()
            return
    time.sleep(600)


def serve(connection, how):
    try:
        answer_all(connection, how)
    except OSError:
        pass  # The bridge has closed it.


def answer_all(connection, how):
    # A client waits for each answer before it says more, so that what came is one request.
    for answer in (HELLO, PONG):
        if not connection.recv(65536):
            return
        connection.sendall(answer)
    while request := connection.recv(65536):
        if b"INSERT" in request:
            return let_down(connection, how)
        connection.sendall(END)


def main():
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    print(listener.getsockname()[1], flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection, sys.argv[1]), daemon=True).start()


if __name__ == "__main__":
    main()
