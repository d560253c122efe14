"""Measures the most memory that a server takes: at rest, under 100 sessions, and with ten messages of 25 MiB at once.

The ten are sent side by side; each holds back its last octets until all are there, so that the server has all of them
whole at one moment. Then they are accepted and delivered; only once the sink has all is the measurement over. What is put
off (4xx) is counted and sent again. Memory is that of all the server's processes, shared pages counted once (PSS), looked
at fifty times a second.
"""

import argparse
import contextlib
import pathlib
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "load"))
from measure import Peak, memory, send
from servers import RECIPIENT, ROOT, Hook, Mailworker, Postfix, Sink, say, wait_for

OFTEN = 0.02
SERVERS = ["postfix", "mailworker", "mailworker+effects"]


class Large(threading.Thread):
    """One message, sent until it is accepted."""

    def __init__(self, port, text, together, patience):
        super().__init__(daemon=True)
        self.port, self.text, self.together, self.patience = port, text, together, patience
        self.put_off, self.error = 0, None
        self.start()

    def run(self):
        try:
            while not self.once():
                # The others don't wait for whoever comes later.
                self.together.abort()
                self.put_off += 1
                time.sleep(0.2)
        except (OSError, ValueError) as error:
            self.together.abort()
            self.error = error

    def once(self):
        with socket.create_connection(("127.0.0.1", self.port), self.patience) as peer:
            lines = peer.makefile("rb")

            def answer(octets=b""):
                peer.sendall(octets)
                while (line := lines.readline())[3:4] == b"-":
                    pass
                if not line or line.startswith(b"5"):
                    raise ValueError(f"in answer to {octets[-20:]!r}: {line!r}")
                return line[:1] in b"23"

            if not answer() or not answer(b"EHLO large.example.org\r\n"):
                return False
            if not answer(b"MAIL FROM:<ann@example.org>\r\n") or not answer(f"RCPT TO:<{RECIPIENT}>\r\n".encode()):
                return False
            if not answer(b"DATA\r\n"):
                return False
            peer.sendall(self.text)
            with contextlib.suppress(threading.BrokenBarrierError):
                self.together.wait(self.patience)
            taken = answer(b"\r\n.\r\n")
            answer(b"QUIT\r\n")
            return taken


def ten_large(server, sink, options):
    """Peak in octets, how often one was put off, and seconds until the last 250 and until all were delivered."""
    line = b"y" * 998 + b"\r\n"
    rest = line * ((options.large - 4096) // len(line))
    texts = [b"From: ann@example.org\r\nSubject: large %d\r\n\r\n" % n + rest for n in range(options.count)]
    target, together = sink.count + options.count, threading.Barrier(options.count)
    peak, begun = Peak(server.pid, OFTEN), time.monotonic()
    senders = [Large(server.port, text, together, options.patience) for text in texts]
    for sender in senders:
        sender.join(options.patience)
        if sender.is_alive() or sender.error:
            raise SystemExit(f"{server.name}: {sender.error or 'a message was not accepted in time'}")
    accepted = time.monotonic() - begun
    wait_for(f"{server.name}: all of it at the sink", lambda: sink.count >= target, options.patience)
    return peak.end(), sum(sender.put_off for sender in senders), accepted, time.monotonic() - begun


def measured(server, sink, options):
    try:
        send(server, sink, 10, 50, options)
        rest = memory(server.pid)
        peak = Peak(server.pid, OFTEN)
        send(server, sink, 100, options.messages, options)
        sessions = peak.end()
        large, put_off, accepted, delivered = ten_large(server, sink, options)
        time.sleep(5)
        after = memory(server.pid)
    finally:
        server.stop()
    mib = [octets / 2**20 for octets in (rest, sessions, large, after)]
    return (*mib, put_off, accepted, delivered)


def main():
    parser = argparse.ArgumentParser(prog="benches/memory/run", description=__doc__)
    parser.add_argument("--binary", default=ROOT / "target/release/mailworker", type=pathlib.Path)
    parser.add_argument("--only", action="append", choices=SERVERS)
    parser.add_argument("--messages", type=int, default=3000, help="by 100 sessions")
    parser.add_argument("--size", type=int, default=4096, help="octets of those")
    parser.add_argument("--count", type=int, default=10, help="large ones at once")
    parser.add_argument("--large", type=int, default=25 << 20, help="octets of a large one")
    parser.add_argument("--patience", type=int, default=120, help="seconds that each part may take")
    parser.add_argument("--directory", default="/var/tmp", help="on the disk to be measured, not in memory")
    options = parser.parse_args()
    options.reuse = False
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="mailworker-memory-", dir=options.directory) as temporary:
        directory = pathlib.Path(temporary)
        directory.chmod(0o755)
        sink, hook = Sink(), Hook()
        say("| server | at rest MiB | 100 sessions MiB | large at once MiB | 5 s after MiB | put off | accepted s | delivered s |")
        say("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
        try:
            for name in options.only or SERVERS:
                place = directory / name
                if name == "postfix":
                    server = Postfix(place, sink, "message_size_limit = 30000000\n")
                else:
                    server = Mailworker(place, sink, options.binary, name != "mailworker", hook)
                *mib, put_off, accepted, delivered = measured(server, sink, options)
                say(f"| {name} | {' | '.join(f'{one:.0f}' for one in mib)} | {put_off} | {accepted:.1f} | {delivered:.1f} |")
                shutil.rmtree(place)
        finally:
            sink.stop()


if __name__ == "__main__":
    main()
