"""Attacks mailworker and a private Postfix, one after the other, and measures what an honest client has of it.

Each attack is bounded in time and comes from many addresses of 127.0.0.0/8. All the while an honest client, from an
address of its own, hands over a message of 4 KiB over a connection of its own, ten times a second; what counts is how
long one whole transaction takes, from connecting to the answer to QUIT, and whether it got its 250.
"""

import argparse
import asyncio
import contextlib
import multiprocessing
import pathlib
import resource
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "load"))
from measure import Peak
from servers import ROOT, Hook, Mailworker, Postfix, Sink, decides_alone, say

HONEST = "127.200.0.1"
MESSAGE = b"From: ann@example.org\r\nTo: support@example.com\r\nSubject: honest\r\n\r\n" + (b"x" * 76 + b"\r\n") * 52
LARGE = b"Subject: large\r\n\r\n" + (b"y" * 998 + b"\r\n") * ((25 * 1024 * 1024 - 4096) // 1000)


# What an admin should not have written: without end for some recipients, and sorting a million numbers for others.
ABUSIVE = decides_alone().replace(
    "(message, env, ctx) {\n",
    """(message, env, ctx) {
    if message.to.local == "loop" { loop { } }
    if message.to.local == "sort" {
        let numbers = [];
        for n in 0..1000000 { numbers.push(n * 7919 % 1000003); }
        numbers.sort();
    }
""",
)


def address(n):
    """Attackers' addresses: as many as it takes to stay below any limit for one of them."""
    n //= 10
    return f"127.{100 + n // 62500}.{n // 250 % 250}.{n % 250 + 1}"


async def connect(port, n, tls=None):
    return await asyncio.open_connection("127.0.0.1", port, local_addr=(address(n), 0), ssl=tls)


async def greeted(port, n, name):
    """Past EHLO."""
    reader, writer = await connect(port, n)
    await reader.readline()
    writer.write(b"EHLO %s\r\n" % name)
    while (await reader.readline())[3:4] == b"-":
        pass
    return reader, writer


async def said(reader, writer, *lines):
    """One after the other; what the last is answered."""
    for line in lines:
        writer.write(line)
        answer = await reader.readline()
    return answer


async def idle(port, n, ends):
    """Connects, reads the greeting and says nothing."""
    reader, writer = await connect(port, n)
    await reader.readline()
    await asyncio.sleep(max(0, ends - time.monotonic()))
    writer.close()


async def drip(port, n, ends):
    """A message, one octet a second."""
    reader, writer = await connect(port, n)
    await reader.readline()
    for line in (b"EHLO drip.example\r\n", b"MAIL FROM:<d@example.org>\r\n", b"RCPT TO:<support@example.com>\r\n", b"DATA\r\n"):
        writer.write(line)
        while (answer := await reader.readline())[3:4] == b"-":
            pass
        if not answer:
            return
    while time.monotonic() < ends and not writer.is_closing():
        writer.write(b"x")
        await asyncio.sleep(1)
    writer.close()


async def recipients(port, n, ends):
    """RCPT without end, as fast as it goes, over and over again."""
    reader, writer = await connect(port, n)
    writer.write(b"EHLO flood.example\r\nMAIL FROM:<f@example.org>\r\n")
    guesses = b"".join(b"RCPT TO:<guess%d@elsewhere.example>\r\n" % guess for guess in range(50))
    while time.monotonic() < ends:
        writer.write(guesses)
        if not await reader.read(65536):
            break
    writer.close()


async def handshakes(port, n, ends):
    """STARTTLS, a handshake, and away."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await connect(port, n)
    await reader.readline()
    for line in (b"EHLO tls.example\r\n", b"STARTTLS\r\n"):
        writer.write(line)
        while (answer := await reader.readline())[3:4] == b"-":
            pass
        if not answer.startswith((b"250", b"220")):
            return
    await writer.start_tls(context)
    writer.close()


async def large(port, n, ends):
    """Messages of 25 MiB, one after the other."""
    reader, writer = await greeted(port, n, b"large.example")
    begins = (b"MAIL FROM:<l@example.org>\r\n", b"RCPT TO:<support@example.com>\r\n", b"DATA\r\n")
    while time.monotonic() < ends:
        answer = await said(reader, writer, *begins)
        if not answer.startswith(b"354"):
            await asyncio.sleep(0.2)
            break
        for start in range(0, len(LARGE), 1 << 18):
            writer.write(LARGE[start : start + (1 << 18)])
            await writer.drain()
            if time.monotonic() > ends:
                break
        else:
            writer.write(b".\r\n")
            await reader.readline()
    writer.close()


async def worker(port, n, ends):
    """Mail for whom the worker loops or sorts, one after the other."""
    reader, writer = await greeted(port, n, b"abuse.example")
    recipient = b"RCPT TO:<%s@example.com>\r\n" % (b"loop", b"sort")[n % 2]
    while time.monotonic() < ends:
        answer = await said(reader, writer, b"MAIL FROM:<w@example.org>\r\n", recipient, b"DATA\r\n", MESSAGE + b".\r\n")
        if not answer.startswith(b"451"):
            raise SystemExit(f"the abusive worker's mail was answered by {answer!r}")
    writer.close()


# What it is, how many at once, and whether one that ends is followed by another.
ATTACKS = {
    "none": (None, 0, False),
    "5,000 idle connections": (idle, 5000, False),
    "500 that send an octet a second": (drip, 500, False),
    "100 that guess recipients without end": (recipients, 100, True),
    "50 that shake hands without end": (handshakes, 50, True),
    "10 that send 25 MiB without end": (large, 10, True),
    "10 whose worker loops or sorts a million": (worker, 10, True),
}
# Of these a server without a worker knows nothing.
WORKERS_ONLY = {"10 whose worker loops or sorts a million"}


async def keep_up(attack, port, n, ends, again):
    while time.monotonic() < ends:
        with contextlib.suppress(OSError, ssl.SSLError, EOFError, asyncio.IncompleteReadError):
            await asyncio.wait_for(attack(port, n, ends), max(0.1, ends - time.monotonic()))
        if not again:
            return
        await asyncio.sleep(0)


def besiege(name, port, ends, ready):
    """A process of its own: all the attackers of one kind."""
    raise_files()
    attack, count, again = ATTACKS[name]

    async def all_of_them():
        tasks = [asyncio.create_task(asyncio.sleep(max(0, ends - time.monotonic())))]
        asyncio.get_running_loop().call_later(1, ready.set)
        for n in range(count):
            tasks.append(asyncio.create_task(keep_up(attack, port, n, ends, again)))
            if n % 100 == 99:
                await asyncio.sleep(0.02)
        await asyncio.gather(*tasks, return_exceptions=True)

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(all_of_them())


def transaction(port, patience):
    """One honest message; how long it took, or None where it wasn't taken."""
    begun = time.monotonic()
    try:
        with socket.create_connection(("127.0.0.1", port), patience, source_address=(HONEST, 0)) as peer:
            lines = peer.makefile("rb")

            def ask(octets):
                if octets:
                    peer.sendall(octets)
                while (answer := lines.readline())[3:4] == b"-":
                    pass
                return answer[:3]

            dialogue = [None, b"EHLO honest.example\r\n", b"MAIL FROM:<ann@example.org>\r\n"]
            dialogue += [b"RCPT TO:<support@example.com>\r\n", b"DATA\r\n", MESSAGE + b".\r\n", b"QUIT\r\n"]
            answers = [ask(octets) for octets in dialogue]
    except OSError:
        return None
    return time.monotonic() - begun if answers[5] == b"250" else None


def raise_files():
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def suffer(server, name, options):
    """One attack on one server; what the honest client had of it."""
    ready = multiprocessing.Event()
    ends = time.monotonic() + options.seconds + 2
    attackers = multiprocessing.Process(target=besiege, args=(name, server.port, ends, ready), daemon=True)
    attackers.start()
    ready.wait(10)
    peak, took, refused = Peak(server.pid), [], 0
    while time.monotonic() < ends - 1:
        begun = time.monotonic()
        one = transaction(server.port, options.patience)
        if one is None:
            refused += 1
        else:
            took.append(1000 * one)
        time.sleep(max(0, 0.1 - (time.monotonic() - begun)))
    attackers.join(options.seconds + 30)
    if attackers.is_alive():
        attackers.kill()
    elif attackers.exitcode:
        raise SystemExit(f"the attack «{name}» failed")
    memory = peak.end() / 2**20
    took.sort()
    at = lambda part: took[min(len(took) - 1, int(len(took) * part))] if took else float("nan")
    return {"taken": len(took), "refused": refused, "p50": at(0.5), "p99": at(0.99), "most": at(1), "MiB": memory}


def certificate(directory):
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    made += ["-subj", "/CN=bench.example.com", "-addext", "subjectAltName=DNS:bench.example.com"]
    made += ["-keyout", directory / "key.pem", "-out", directory / "cert.pem"]
    subprocess.run(made, check=True, capture_output=True)
    (directory / "key.pem").chmod(0o600)


def servers(names, directory, sink, hook, options):
    """Each in turn, begun when it is asked for."""
    cert, key = directory / "cert.pem", directory / "key.pem"
    for name in names:
        place = directory / name
        if name == "postfix":
            more = f"smtpd_tls_cert_file = {cert}\nsmtpd_tls_key_file = {key}\nsmtpd_tls_security_level = may\n"
            more += "message_size_limit = 30000000\nsmtpd_client_connection_rate_limit = 0\n"
            yield Postfix(place, sink, more)
        else:
            more = f'[tls]\ncertificate = "{cert}"\nkey = "{key}"\n'
            yield Mailworker(place, sink, options.binary, False, hook, more, "starttls", options.connections, worker=ABUSIVE)


def main():
    parser = argparse.ArgumentParser(prog="benches/siege/run", description=__doc__)
    parser.add_argument("--binary", default=ROOT / "target/release/mailworker", type=pathlib.Path)
    parser.add_argument("--only", action="append", choices=["postfix", "mailworker"])
    parser.add_argument("--attack", action="append", help="those whose names hold this")
    parser.add_argument("--seconds", type=int, default=15, help="how long each attack lasts")
    parser.add_argument("--patience", type=int, default=20, help="seconds the honest client waits for an answer")
    parser.add_argument("--connections", type=int, default=10000, help="[limits] connections of mailworker")
    parser.add_argument("--directory", default="/var/tmp", help="on the disk to be measured, not in memory")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    raise_files()
    chosen = [name for name in ATTACKS if not options.attack or any(part in name for part in options.attack)]
    rows = []
    with tempfile.TemporaryDirectory(prefix="mailworker-siege-", dir=options.directory) as temporary:
        directory = pathlib.Path(temporary)
        directory.chmod(0o755)
        certificate(directory)
        sink, hook = Sink(), Hook()
        try:
            for server in servers(options.only or ["postfix", "mailworker"], directory, sink, hook, options):
                try:
                    for name in chosen:
                        if name in WORKERS_ONLY and server.name == "postfix":
                            continue
                        result = suffer(server, name, options)
                        rows.append((server.name, name, result))
                        say(f"  {server.name:12} {name:40} " + "  ".join(f"{k} {v:.0f}" for k, v in result.items()))
                finally:
                    server.stop()
        finally:
            sink.stop()
    say("\n| server | attack | taken | not taken | p50 ms | p99 ms | longest ms | peak MiB |")
    say("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for server, name, r in rows:
        say(
            f"| {server} | {name} | {r['taken']} | {r['refused']} | {r['p50']:.1f} | {r['p99']:.1f} | {r['most']:.1f} "
            f"| {r['MiB']:.0f} |"
        )


if __name__ == "__main__":
    main()
