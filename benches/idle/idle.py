"""Measures how long one message waits for its 250 on a server that has nothing else to do, beside a sync of its disk.

In turn, each with a pause before it, so that nothing of the one before is under way: a message over a connection that
stays open, to each server, timed from its last octets (body and dot in one write) to the answer; and 4 KiB appended to a
file on the same file system and synced, timed as a whole. What counts is the ratio of the medians.
"""

import argparse
import os
import pathlib
import signal
import socket
import statistics
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "load"))
from servers import RECIPIENT, ROOT, Hook, Mailworker, Postfix, Sink, say, wait_for


class Client:
    """One connection that stays open."""

    def __init__(self, server, size):
        self.peer = socket.create_connection(("127.0.0.1", server.port), 30)
        self.peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.lines = self.peer.makefile("rb")
        self.text = b"From: ann@example.org\r\nTo: support@example.com\r\nSubject: idle\r\n\r\n"
        self.text += (b"x" * 76 + b"\r\n") * (max(0, size - len(self.text)) // 78) + b".\r\n"
        self.answer("220")
        self.ask(b"EHLO idle.example.org\r\n", "250")

    def answer(self, wanted):
        while (line := self.lines.readline())[3:4] == b"-":
            pass
        if not line.startswith(wanted.encode()):
            raise SystemExit(f"in place of {wanted}: {line!r}")

    def ask(self, octets, wanted):
        self.peer.sendall(octets)
        self.answer(wanted)

    def dot_to_250(self):
        self.ask(b"MAIL FROM:<ann@example.org>\r\n", "250")
        self.ask(f"RCPT TO:<{RECIPIENT}>\r\n".encode(), "250")
        self.ask(b"DATA\r\n", "354")
        begun = time.perf_counter()
        self.ask(self.text, "250")
        return time.perf_counter() - begun


class Disk:
    """The file system alone."""

    name = "one sync"

    def __init__(self, path, size):
        self.file, self.octets = path.open("ab", buffering=0), b"x" * size

    def once(self):
        begun = time.perf_counter()
        self.file.write(self.octets)
        os.fdatasync(self.file.fileno())
        return time.perf_counter() - begun


class Served:
    def __init__(self, server, sink, size):
        self.name, self.sink, self.client = server.name, sink, Client(server, size)

    def once(self):
        before = self.sink.count
        took = self.client.dot_to_250()
        # Its delivery is no part of the next one's time.
        wait_for("the sink", lambda: self.sink.count > before, 30)
        return took


def main():
    parser = argparse.ArgumentParser(prog="benches/idle/run", description=__doc__)
    parser.add_argument("--binary", default=ROOT / "target/release/mailworker", type=pathlib.Path)
    parser.add_argument("--only", action="append", choices=["postfix", "mailworker", "mailworker+effects"])
    parser.add_argument("--messages", type=int, default=200, help="to each server")
    parser.add_argument("--size", type=int, default=4096, help="octets of one message")
    parser.add_argument("--pause", type=float, default=0.03, help="seconds before each")
    parser.add_argument("--directory", default="/var/tmp", help="on the disk to be measured, not in memory")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    names = options.only or ["postfix", "mailworker", "mailworker+effects"]
    with tempfile.TemporaryDirectory(prefix="mailworker-idle-", dir=options.directory) as temporary:
        directory = pathlib.Path(temporary)
        directory.chmod(0o755)
        sink, hook, running = Sink(), Hook(), []
        try:
            for name in names:
                place = directory / name
                if name == "postfix":
                    running.append(Postfix(place, sink))
                else:
                    running.append(Mailworker(place, sink, options.binary, name != "mailworker", hook))
            disk = Disk(directory / "probe", options.size)
            turns = [disk, *(Served(server, sink, options.size) for server in running)]
            took = {turn.name: [] for turn in turns}
            for n in range(-20, options.messages):
                for turn in turns:
                    time.sleep(options.pause)
                    one = turn.once()
                    if n >= 0:
                        took[turn.name].append(1000 * one)
        finally:
            for server in running:
                server.stop()
            sink.stop()
            hook.stop()
    sync = statistics.median(took[disk.name])
    say("| | p50 ms | p90 ms | of one sync |\n| --- | ---: | ---: | ---: |")
    for name, times in took.items():
        times.sort()
        p50, p90 = statistics.median(times), times[int(len(times) * 0.9)]
        say(f"| {name} | {p50:.3f} | {p90:.3f} | {p50 / sync:.2f} |")


if __name__ == "__main__":
    main()
