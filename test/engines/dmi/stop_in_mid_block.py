"""A client that sends half of a row's payload, says so, and then does nothing until it is killed.

Used as `stop_in_mid_block.py FOLDER PORT`, with the rows of rows.json; the last one is sent in half.
"""

import sys
import time

from feed import COLUMNS, INSERT, Raw, load, number, text


def main():
    rows = load(sys.argv[1])
    client = Raw("127.0.0.1", int(sys.argv[2]))
    client.query(INSERT)
    assert client.header() == COLUMNS
    packet = number(2) + text("") + client.block(client.columns(rows), len(rows))
    client.send(packet[: len(packet) - len(rows[-1][9]) // 2])
    print("half", flush=True)
    time.sleep(600)


if __name__ == "__main__":
    main()
