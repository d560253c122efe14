"""What is measured of a server: its processor time, its memory, how many messages it takes and hands on a second."""

import os
import pathlib
import re
import statistics
import subprocess
import threading
import time

from servers import RECIPIENT, wait_for

TICKS = os.sysconf("SC_CLK_TCK")


def family(pid):
    """A process and its children (Postfix's daemons are all its master's)."""
    found = [pid]
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = stat_fields(int(entry.name))
            if fields and int(fields[1]) == pid:
                found.append(int(entry.name))
    return found


def stat_fields(pid):
    """/proc/PID/stat from the state on."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()


def cpu_seconds(pid):
    """User and system time of a process and its children, those that have ended included."""
    ticks = 0
    for member in family(pid):
        fields = stat_fields(member)
        if fields:
            own, waited_for = fields[11:13], fields[13:15]
            ticks += sum(map(int, own + waited_for))
    return ticks / TICKS


def memory(pid):
    """Bytes in memory, what is shared counted once (PSS)."""
    total = 0
    for member in family(pid):
        try:
            text = pathlib.Path(f"/proc/{member}/smaps_rollup").read_text()
        except OSError:
            continue
        match = re.search(r"^Pss:\s+(\d+) kB", text, re.M)
        total += int(match.group(1)) * 1024 if match else 0
    return total


class Peak:
    """The most memory seen, looked at four times a second where nothing else is said."""

    def __init__(self, pid, every=0.25):
        self.pid, self.every, self.most, self.over = pid, every, 0, threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()

    def watch(self):
        while not self.over.wait(self.every):
            self.most = max(self.most, memory(self.pid))

    def end(self):
        self.over.set()
        self.thread.join()
        return self.most


def send(server, sink, sessions, count, options):
    """One load; what it came to."""
    target, cpu, before = sink.count + count, cpu_seconds(server.pid), os.times()
    command = ["smtp-source", "-s", str(sessions), "-m", str(count), "-l", str(options.size)]
    command += ["-d"] if options.reuse else []
    command += ["-f", "ann@example.org", "-t", RECIPIENT, f"127.0.0.1:{server.port}"]
    begun = time.monotonic()
    try:
        sent = subprocess.run(command, capture_output=True, text=True, timeout=options.patience)
    except subprocess.TimeoutExpired:
        raise SystemExit(f"{server.name}: {count} messages were not accepted within {options.patience} s") from None
    accepted = time.monotonic() - begun
    if sent.returncode != 0:
        raise SystemExit(f"smtp-source: {sent.stderr}")
    wait_for(f"{server.name}: {count} messages at the sink", lambda: sink.count >= target, options.patience)
    delivered = sink.last - begun
    # What is settled after the last delivery belongs to it, too.
    time.sleep(0.5)
    source = os.times().children_user + os.times().children_system - before.children_user - before.children_system
    return {
        "accepted": count / accepted,
        "delivered": count / delivered,
        "cpu_ms": 1000 * (cpu_seconds(server.pid) - cpu) / count,
        "source_cpu_ms": 1000 * source / count,
    }


def sync_latency(directory):
    """The median of a hundred fdatasyncs of 4 KiB, in milliseconds."""
    path, times = directory / "probe", []
    with path.open("wb", buffering=0) as probe:
        for _ in range(100):
            begun = time.monotonic()
            probe.write(b"x" * 4096)
            os.fdatasync(probe.fileno())
            times.append(time.monotonic() - begun)
    path.unlink()
    return 1000 * statistics.median(times)
