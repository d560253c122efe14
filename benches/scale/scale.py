"""Measures whether what the store holds changes what a message costs.

A server whose store is empty and one whose store holds many logged messages and queued deliveries take turns (A B A B), under
the same load as in benches/load: accepted and delivered messages a second, processor time, memory; and how long a start takes,
how long the newest messages and the queue take to be listed.
"""

import argparse
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "load"))
from measure import Peak, send
from servers import ROOT, Hook, Mailworker, Sink, say

COLUMNS = ["accepted", "delivered", "cpu_ms", "peak_mib", "start_ms", "messages_ms", "queue_ms"]


def fill(store, options):
    """The store as a server would have it after some days."""
    command = ["cargo", "bench", "--quiet", "--bench", "fill", "--", str(store), str(options.logged), str(options.queued)]
    begun = time.monotonic()
    subprocess.run(command, check=True, cwd=ROOT)
    octets = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    say(f"filled in {time.monotonic() - begun:.0f} s: {octets / 2**30:.1f} GiB")


def timed(binary, config, *arguments):
    begun = time.monotonic()
    done = subprocess.run([binary, *arguments, "--config", config], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"mailworker {' '.join(arguments)}: {done.stderr}")
    return 1000 * (time.monotonic() - begun)


def turn(place, store, sink, hook, options):
    """One load, and what it came to."""
    begun = time.monotonic()
    server = Mailworker(place, sink, options.binary, options.effects, hook, store=store)
    start = 1000 * (time.monotonic() - begun)
    try:
        send(server, sink, 10, 500, options)
        peak = Peak(server.pid)
        result = send(server, sink, options.sessions, options.messages, options)
        result |= {"peak_mib": peak.end() / 2**20, "start_ms": start}
        config = place / "mailworker.toml"
        result["messages_ms"] = timed(options.binary, config, "messages", "list")
        result["queue_ms"] = timed(options.binary, config, "queue", "list", "--limit", "50")
    finally:
        server.stop()
        shutil.rmtree(place)
    return result


def main():
    parser = argparse.ArgumentParser(prog="benches/scale/run", description=__doc__)
    parser.add_argument("--binary", default=ROOT / "target/release/mailworker", type=pathlib.Path)
    parser.add_argument("--logged", type=int, default=1_000_000, help="messages in the log")
    parser.add_argument("--queued", type=int, default=100_000, help="deliveries that wait")
    parser.add_argument("--filled", type=pathlib.Path, help="a store that is filled already, or is to be and stay there")
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--messages", type=int, default=8000, help="of one load")
    parser.add_argument("--size", type=int, default=4096, help="octets of one")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--effects", action="store_true", help="with a key and a webhook for each message")
    parser.add_argument("--patience", type=int, default=120, help="seconds that one load may take")
    parser.add_argument("--directory", default="/var/tmp", help="on the disk to be measured, with some GiB")
    options = parser.parse_args()
    options.reuse = False
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="mailworker-scale-", dir=options.directory) as temporary:
        directory = pathlib.Path(temporary)
        full = options.filled or directory / "full"
        if not full.exists():
            fill(full, options)
        sink, hook, results = Sink(), Hook(), {"empty": [], "full": []}
        try:
            for number in range(options.rounds):
                empty = directory / f"empty-{number}"
                for name, store in [("empty", empty), ("full", full)]:
                    result = turn(directory / "server", store, sink, hook, options)
                    results[name].append(result)
                    say(f"  {name:5} " + "  ".join(f"{column} {result[column]:.2f}" for column in COLUMNS))
                shutil.rmtree(empty)
        finally:
            sink.stop()
            hook.stop()
        say("\nmedians\n\n| store | " + " | ".join(COLUMNS) + " |")
        say("| --- |" + " ---: |" * len(COLUMNS))
        for name, runs in results.items():
            medians = [statistics.median(run[column] for run in runs) for column in COLUMNS]
            say(f"| {name} | " + " | ".join(f"{median:.2f}" for median in medians) + " |")
        pairs = list(zip(results["empty"], results["full"], strict=True))
        ratios = [statistics.median(b[column] / a[column] for a, b in pairs) for column in COLUMNS]
        say("| full / empty, median of the pairs | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |")


if __name__ == "__main__":
    main()
