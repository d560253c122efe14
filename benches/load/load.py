"""Measures mailworker against a private Postfix: accepted and delivered messages a second, CPU, memory.

Sender: Postfix's smtp-source. Next hop: Postfix's smtp-sink. Both servers sync to disk before they answer 250. They
take turns (A B A B), each alone on the machine while it is measured. Everything lies below one temporary directory
and is stopped and removed at the end.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import statistics
import sys
import tempfile

from measure import Peak, send, sync_latency
from servers import ROOT, Hook, Mailworker, Postfix, Sink, say


def load_of(sessions, options):
    """Fewer messages where each waits for the one before."""
    return max(sessions, options.messages // 8 if sessions == 1 else options.messages)


def turn(server, sink, options, results):
    """Every number of sessions against one server that has been warmed up."""
    try:
        send(server, sink, 10, 200, options)
        peak = Peak(server.pid)
        for sessions in options.sessions:
            result = send(server, sink, sessions, load_of(sessions, options), options)
            results.setdefault((server.name, sessions), []).append(result)
            say(
                f"  {server.name:18} {sessions:4} sessions: {result['accepted']:8.0f} accepted/s "
                f"{result['delivered']:8.0f} delivered/s {result['cpu_ms']:7.3f} CPU ms/message, "
                f"the sender's {result['source_cpu_ms']:.3f}"
            )
        results.setdefault((server.name, "peak"), []).append(peak.end())
    finally:
        server.stop()


def report(names, results, options):
    say("\nmedians\n")
    say("| server | sessions | accepted/s | delivered/s | CPU ms/message | peak MiB | sender CPU ms/message |")
    say("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    table = {}
    for name in names:
        peak = max(results[name, "peak"]) / 2**20
        for sessions in options.sessions:
            runs = results[name, sessions]
            median = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
            table[name, sessions] = median
            say(
                f"| {name} | {sessions} | {median['accepted']:.0f} | {median['delivered']:.0f} "
                f"| {median['cpu_ms']:.3f} | {peak:.0f} | {median['source_cpu_ms']:.3f} |"
            )
    if "postfix" in names and len(names) > 1:
        say("\nof Postfix's in the same round, medians (lowest to highest)\n")
        say("| server | sessions | accepted | delivered | CPU |")
        say("| --- | ---: | ---: | ---: | ---: |")
        for name in names[1:]:
            for sessions in options.sessions:
                pairs = list(zip(results[name, sessions], results["postfix", sessions], strict=True))
                cells = [of_postfix(pairs, key) for key in ("accepted", "delivered", "cpu_ms")]
                say(f"| {name} | {sessions} | " + " | ".join(cells) + " |")
    if options.json:
        flat = {f"{name} {sessions}": values for (name, sessions), values in table.items()}
        pathlib.Path(options.json).write_text(json.dumps(flat, indent=2) + "\n")


def of_postfix(pairs, key):
    ratios = [ours[key] / theirs[key] for ours, theirs in pairs if theirs[key]]
    if not ratios:
        return "–"
    return f"{statistics.median(ratios):.2f}× ({min(ratios):.2f} to {max(ratios):.2f})"


def arguments():
    parser = argparse.ArgumentParser(prog="benches/load/run", description=__doc__)
    parser.add_argument("--binary", default=ROOT / "target/release/mailworker", type=pathlib.Path)
    parser.add_argument("--only", action="append", choices=["postfix", "mailworker", "mailworker+effects"])
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 20, 100])
    parser.add_argument("--messages", type=int, default=4000, help="for each load; an eighth of them at 1 session")
    parser.add_argument("--size", type=int, default=4096, help="octets of one message")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--reuse", action="store_true", help="many messages over a connection, and not one")
    parser.add_argument("--patience", type=int, default=120, help="seconds that one load may take")
    parser.add_argument("--directory", default="/var/tmp", help="on the disk to be measured, not in memory")
    parser.add_argument("--json", help="also write the medians here")
    return parser.parse_args()


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    names = options.only or ["postfix", "mailworker", "mailworker+effects"]
    if any(name != "postfix" for name in names) and not options.binary.exists():
        raise SystemExit(f"{options.binary} isn't there: cargo build --release")
    with tempfile.TemporaryDirectory(prefix="mailworker-load-", dir=options.directory) as temporary:
        directory = pathlib.Path(temporary)
        # Postfix's daemons, who aren't root, must find their way to their queue.
        directory.chmod(0o755)
        say(
            f"{os.cpu_count()} processors, one fdatasync {sync_latency(directory):.2f} ms, "
            f"messages of {options.size} octets, "
            + ("many over a connection" if options.reuse else "a connection for each")
        )
        sink, hook, results = Sink(), Hook(), {}
        try:
            for round_number in range(1, options.rounds + 1):
                say(f"round {round_number}")
                for name in names:
                    place = directory / f"{name}-{round_number}"
                    if name == "postfix":
                        server = Postfix(place, sink)
                    else:
                        server = Mailworker(place, sink, options.binary, name != "mailworker", hook)
                    turn(server, sink, options, results)
                    shutil.rmtree(place)
        finally:
            sink.stop()
            hook.stop()
        if hook.count:
            say(f"webhooks received: {hook.count}")
        report(names, results, options)


if __name__ == "__main__":
    main()
