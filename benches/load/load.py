"""Measures mailworker against a private Postfix: accepted and delivered messages a second, CPU, memory.

Sender: Postfix's smtp-source. Next hop: Postfix's smtp-sink. Both servers sync to disk before they answer 250. They
take turns (A B A B), each alone on the machine while it is measured. Everything lies below one temporary directory
and is stopped and removed at the end.
"""

import argparse
import json
import os
import pathlib
import pwd
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
RECIPIENT = "support@example.com"
FORWARDED = "team@example.net"


def say(text):
    print(text, flush=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(what, ready, seconds):
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        result = ready()
        if result:
            return result
        time.sleep(0.02)
    raise SystemExit(f"{what}: not within {seconds} s")


def greets(port):
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as peer:
            return peer.recv(4).startswith(b"220")
    except OSError:
        return False


def stop(process, seconds=30):
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


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
    """The most memory seen, looked at four times a second."""

    def __init__(self, pid):
        self.pid, self.most, self.over = pid, 0, threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()

    def watch(self):
        while not self.over.wait(0.25):
            self.most = max(self.most, memory(self.pid))

    def end(self):
        self.over.set()
        self.thread.join()
        return self.most


class Sink:
    """smtp-sink, and how many messages it has taken."""

    def __init__(self):
        self.port = free_port()
        user = ["-u", "nobody"] if os.getuid() == 0 else []
        command = ["smtp-sink", *user, "-c", f"127.0.0.1:{self.port}", "4096"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.count, self.last = 0, time.monotonic()
        threading.Thread(target=self.read, daemon=True).start()
        wait_for("smtp-sink", lambda: greets(self.port), 10)

    def read(self):
        """Lines parted by CR: sess=…  quit=…  mesg=… ."""
        seen = b""
        while chunk := os.read(self.process.stdout.fileno(), 65536):
            now = time.monotonic()
            seen = (seen + chunk)[-65536:]
            counts = re.findall(rb"mesg=(\d+)\s", seen)
            if counts and int(counts[-1]) > self.count:
                self.count, self.last = int(counts[-1]), now

    def stop(self):
        stop(self.process)


class Hook(threading.Thread):
    """An HTTP server that answers 204 to every webhook and counts them."""

    def __init__(self):
        super().__init__(daemon=True)
        self.count = 0
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = self.listener.getsockname()[1]
        self.start()

    def run(self):
        import asyncio

        hook = self

        class Answer(asyncio.Protocol):
            def connection_made(self, transport):
                self.transport, self.octets = transport, b""

            def data_received(self, octets):
                self.octets += octets
                while (end := self.octets.find(b"\r\n\r\n")) >= 0:
                    length = re.search(rb"content-length: *(\d+)", self.octets[:end], re.I)
                    whole = end + 4 + (int(length.group(1)) if length else 0)
                    if len(self.octets) < whole:
                        return
                    self.octets = self.octets[whole:]
                    hook.count += 1
                    self.transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")

        async def serve():
            server = await asyncio.get_running_loop().create_server(Answer, sock=self.listener)
            await server.serve_forever()

        asyncio.run(serve())


class Postfix:
    """A private Postfix that relays everything for example.com to the sink."""

    name = "postfix"

    def __init__(self, directory, sink, more=""):
        self.port = free_port()
        self.config, queue, data = directory / "etc", directory / "queue", directory / "data"
        for made in (self.config, queue, data):
            made.mkdir(parents=True)
        owner = pwd.getpwnam("postfix")
        os.chown(data, owner.pw_uid, owner.pw_gid)
        self.log = directory / "postfix.log"
        daemons = subprocess.run(["postconf", "-dh", "daemon_directory"], capture_output=True, text=True, check=True)
        (self.config / "main.cf").write_text(
            f"""compatibility_level = 3.6
queue_directory = {queue}
data_directory = {data}
daemon_directory = {daemons.stdout.strip()}
command_directory = /usr/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = {self.log}
maillog_file_prefixes = {directory}
myhostname = bench.example.com
mydestination =
local_recipient_maps =
alias_maps =
alias_database =
relay_domains = example.com
relayhost = [127.0.0.1]:{sink.port}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
smtp_dns_support_level = disabled
# Tuned for speed, as its documents say for much mail: it never holds back a sender, and delivers widely.
in_flow_delay = 0
default_process_limit = 300
default_destination_concurrency_limit = 100
initial_destination_concurrency = 50
{more}
"""
        )
        (self.config / "master.cf").write_text(
            f"""127.0.0.1:{self.port} inet n - n - - smtpd
pickup    unix n - n 60 1 pickup
cleanup   unix n - n - 0 cleanup
qmgr      unix n - n 300 1 qmgr
rewrite   unix - - n - - trivial-rewrite
bounce    unix - - n - 0 bounce
defer     unix - - n - 0 bounce
trace     unix - - n - 0 bounce
verify    unix - - n - 1 verify
flush     unix n - n 1000? 0 flush
proxymap  unix - - n - - proxymap
smtp      unix - - n - - smtp
relay     unix - - n - - smtp
error     unix - - n - - error
retry     unix - - n - - error
discard   unix - - n - - discard
anvil     unix - - n - 1 anvil
scache    unix - - n - 1 scache
postlog   unix-dgram n - n - 1 postlogd
"""
        )
        self.command("start")
        self.pid = int((queue / "pid" / "master.pid").read_text())
        wait_for("postfix", lambda: greets(self.port), 15)

    def command(self, verb):
        done = subprocess.run(["postfix", "-c", str(self.config), verb], capture_output=True, text=True)
        if done.returncode != 0:
            log = self.log.read_text()[-2000:] if self.log.exists() else ""
            raise SystemExit(f"postfix {verb} failed:\n{done.stdout}{done.stderr}{log}")

    def stop(self):
        self.command("stop")


class Mailworker:
    """Our release binary, relaying to the sink."""

    def __init__(self, directory, sink, binary, effects, hook, more="", tls="off", connections=1000):
        self.name = "mailworker+effects" if effects else "mailworker"
        directory.mkdir(parents=True)
        shutil.copytree(ROOT / "rules", directory / "rules", ignore=shutil.ignore_patterns("tests"))
        if not effects:
            (directory / "rules" / "main.rhai").write_text(
                "fn email(message, env, ctx) {\n"
                "    let destination = switch message.to.local {\n"
                '        "support" | "help"  => env.SUPPORT_EMAIL,\n'
                '        "sales" | "contact" => env.SALES_EMAIL,\n'
                "        _                   => env.DEFAULT_EMAIL,\n"
                "    };\n"
                "    message.forward(destination);\n"
                "}\n"
            )
        (directory / "webhook.key").write_text("whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")
        (directory / "webhook.key").chmod(0o600)
        config = directory / "mailworker.toml"
        config.write_text(
            f"""hostname = "bench.example.com"
main = "rules/main.rhai"
data_dir = "data"

[[listener]]
address = "127.0.0.1:0"
tls = "{tls}"

[http]
address = ""

[[domain]]
name = "example.com"
postmaster = "admin@example.net"

[vars]
SUPPORT_EMAIL = "{FORWARDED}"
SALES_EMAIL = "{FORWARDED}"
DEFAULT_EMAIL = "{FORWARDED}"
WEBHOOK_URL = "http://127.0.0.1:{hook.port}/hook"

[[kv_namespaces]]
binding = "EMAILS"

[webhook_defaults]
secret = {{ file = "webhook.key" }}
concurrency = 50

[relay]
smarthost = "smtp://127.0.0.1:{sink.port}"
concurrency = 50

[egress]
allow = ["127.0.0.0/8"]

[limits]
connections = {connections}
connections_per_ip = 1000
{more}
"""
        )
        self.log = (directory / "mailworker.log").open("wb")
        command = [str(binary), "serve", "--config", str(config)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.pid = self.process.pid
        for line in self.process.stdout:
            if match := re.match(r"listening smtp 127\.0\.0\.1:(\d+)", line):
                self.port = int(match.group(1))
                break
        else:
            raise SystemExit(f"mailworker did not start:\n{pathlib.Path(self.log.name).read_text()[-2000:]}")
        threading.Thread(target=self.process.stdout.read, daemon=True).start()
        wait_for("mailworker", lambda: greets(self.port), 15)

    def stop(self):
        stop(self.process)
        self.log.close()


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
                f"{result['delivered']:8.0f} delivered/s {result['cpu_ms']:7.3f} CPU ms/message"
            )
        results.setdefault((server.name, "peak"), []).append(peak.end())
    finally:
        server.stop()


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


def report(names, results, options):
    say("\nmedians\n")
    say("| server | sessions | accepted/s | delivered/s | CPU ms/message | peak MiB |")
    say("| --- | ---: | ---: | ---: | ---: | ---: |")
    table = {}
    for name in names:
        peak = max(results[name, "peak"]) / 2**20
        for sessions in options.sessions:
            runs = results[name, sessions]
            median = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
            table[name, sessions] = median
            say(
                f"| {name} | {sessions} | {median['accepted']:.0f} | {median['delivered']:.0f} "
                f"| {median['cpu_ms']:.3f} | {peak:.0f} |"
            )
    if "postfix" in names and len(names) > 1:
        say("\nof Postfix's\n")
        say("| server | sessions | accepted | delivered | CPU |")
        say("| --- | ---: | ---: | ---: | ---: |")
        for name in names[1:]:
            for sessions in options.sessions:
                ours, theirs = table[name, sessions], table["postfix", sessions]
                ratio = {key: ours[key] / theirs[key] if theirs[key] else float("nan") for key in ours}
                say(
                    f"| {name} | {sessions} | {ratio['accepted']:.2f}× | {ratio['delivered']:.2f}× "
                    f"| {ratio['cpu_ms']:.2f}× |"
                )
    if options.json:
        flat = {f"{name} {sessions}": values for (name, sessions), values in table.items()}
        pathlib.Path(options.json).write_text(json.dumps(flat, indent=2) + "\n")


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
        if hook.count:
            say(f"webhooks received: {hook.count}")
        report(names, results, options)


if __name__ == "__main__":
    main()
