"""What the scripts share: mailworker on ports of its own choosing in a directory of its own, next hops that keep what
they are sent, and conditions that are waited for within bounds."""

import contextlib
import json
import os
import pathlib
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP

DEADLINE = 60
FORWARD = 'fn email(message, env, ctx) { message.forward("team@example.net"); }\n'


def skip(reason):
    print(reason)
    sys.exit(77)


def run(*command, check=True, timeout=DEADLINE, **options):
    """Runs a command to its end; its output, both streams together."""
    done = subprocess.run(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout, **options
    )
    output = done.stdout.decode(errors="replace")
    if check and done.returncode != 0:
        raise AssertionError(f"{command} ended with {done.returncode}:\n{output}")
    return output


def wait(what, condition, seconds=DEADLINE):
    """Asks until the condition holds; what it answered."""
    end = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.05)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class NotListening(AssertionError):
    """It ended before it had started, or hangs."""


class Mailworker:
    """A running server. `sections` is TOML after the tables that every script needs; `within` stands before the command."""

    def __init__(self, relay, rules=FORWARD, sections="", listeners=("starttls",), env=None, directory=None, data="data", within=()):
        self.directory = pathlib.Path(directory or tempfile.mkdtemp(prefix="mailworker-interop-"))
        self.env = env or {}
        self.within = [*within]
        listening = "".join(f'[[listener]]\naddress = "127.0.0.1:0"\ntls = "{mode}"\n' for mode in listeners)
        (self.directory / "rules").mkdir(exist_ok=True)
        (self.directory / "rules" / "main.rhai").write_text(rules)
        (self.directory / "mailworker.toml").write_text(
            f'hostname = "mx.example.com"\ndata_dir = "{data}"\n{listening}'
            f'[http]\naddress = "127.0.0.1:0"\n'
            f'[[domain]]\nname = "example.com"\npostmaster = "admin@example.net"\n'
            f'[relay]\nsmarthost = "smtp://127.0.0.1:{relay}"\nretry = ["500 ms"]\n'
            f'[egress]\nallow = ["127.0.0.0/8"]\n{sections}'
        )

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, kind, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError("it doesn't stop on SIGTERM") from None
        if kind is not None:
            print("---- the server's log", *self.log, sep="\n")
        elif code != 0:
            raise AssertionError(f"it ended with {code}:\n" + "\n".join(self.log))
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self):
        command = [*self.within, os.environ["MAILWORKER"], "serve", "--json", "--config", self.directory / "mailworker.toml"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **self.env}, cwd=self.directory
        )
        self.log, self.ports, self.http = [], [], None
        told = queue.Queue()
        threading.Thread(target=self._listen, args=(told,), daemon=True).start()
        threading.Thread(target=self._collect, daemon=True).start()
        try:
            listens = told.get(timeout=DEADLINE)
        except queue.Empty:
            listens = False
        if not listens:
            self.process.kill()
            self.process.wait(30)
            raise NotListening("it doesn't listen:\n" + "\n".join(self.log))
        self.smtp = self.ports[0]

    def _listen(self, told):
        for line in self.process.stdout:
            event = json.loads(line)
            if event["event"] == "listening":
                port = int(event["address"].rsplit(":", 1)[1])
                if event["protocol"] == "http":
                    self.http = port
                else:
                    self.ports.append(port)
            elif event["event"] == "started":
                told.put(True)
        told.put(False)

    def _collect(self):
        for line in self.process.stderr:
            self.log.append(line.decode(errors="replace").rstrip())

    def cli(self, *arguments):
        return run(os.environ["MAILWORKER"], *arguments, "--config", self.directory / "mailworker.toml")

    def settled(self, seconds=DEADLINE):
        wait("an empty queue", lambda: not self.cli("queue", "list", "--json").strip(), seconds)


class Kept:
    """What a next hop has been sent."""

    def __init__(self):
        self.mails = []

    async def handle_DATA(self, server, session, envelope):
        self.mails.append(envelope)
        return "250 2.0.0 kept"

    def wait(self, count=1, seconds=DEADLINE):
        wait(f"{count} messages, {len(self.mails)} came", lambda: len(self.mails) >= count, seconds)
        return self.mails


class _Controller(Controller):
    def factory(self):
        return SMTP(self.handler, enable_SMTPUTF8=True, decode_data=False, data_size_limit=100 << 20)


@contextlib.contextmanager
def next_hop(kept=None):
    """An aiosmtpd: its port and what it has kept."""
    kept = kept or Kept()
    controller = _Controller(kept, hostname="127.0.0.1", port=free_port())
    controller.start()
    try:
        yield controller.port, kept
    finally:
        controller.stop()


def certificate(directory, name="mx.example.com"):
    """A self-signed certificate and its key, as `[tls]` names them."""
    run(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}",
        "-keyout", directory / "key.pem", "-out", directory / "cert.pem",
    )
    return '[tls]\ncertificate = "cert.pem"\nkey = "key.pem"\n'


def ends_with(mail, original):
    """The message arrived octet for octet, our header fields before it."""
    assert mail.content.endswith(original), f"not the octets that were sent:\n{mail.content!r}\n{original!r}"
    head = mail.content[: len(mail.content) - len(original)]
    assert b"Received: from" in head and head.endswith(b"\r\n"), head
    return head
