"""The servers that are compared, each private and below a directory of its own, and the next hops they hand mail to."""

import os
import pathlib
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
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
        """Looks every 5 ms, since a look for each message would take the servers a tenth of the processors."""
        seen = b""
        while chunk := os.read(self.process.stdout.fileno(), 1 << 20):
            now = time.monotonic()
            # Lines parted by CR: sess=…  quit=…  mesg=… .
            seen = (seen + chunk)[-200:]
            counts = re.findall(rb"mesg=(\d+)\s", seen)
            if counts and int(counts[-1]) > self.count:
                self.count, self.last = int(counts[-1]), now
            time.sleep(0.005)

    def stop(self):
        stop(self.process)


class Hook:
    """An HTTP server that answers 204 to every webhook and counts them (hook.rs); built and started when it is needed."""

    def __init__(self):
        self.count, self.process = 0, None
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = self.listener.getsockname()[1]

    def start(self):
        if self.process:
            return
        with tempfile.TemporaryDirectory(prefix="mailworker-hook-") as directory:
            program = pathlib.Path(directory) / "hook"
            source = ROOT / "benches/load/hook.rs"
            subprocess.run(["rustc", "--edition", "2024", "-O", "-o", program, source], check=True)
            self.process = subprocess.Popen([program], stdin=self.listener, stdout=subprocess.PIPE)
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.count = int(line)

    def stop(self):
        if self.process:
            stop(self.process)


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


def decides_alone():
    """The example's worker without its key and its webhook: the look for spam, the switch, the forward."""
    text = (ROOT / "rules" / "main.rhai").read_text()
    kept, _, effects = text.partition("    // What came in")
    forward = "    message.forward(destination);"
    assert effects.count(forward) == 1, "the example was changed"
    return kept + effects[effects.index(forward):]


class Mailworker:
    """Our release binary, relaying to the sink; by the example's worker; without `effects` by what it decides alone, or by `worker`."""

    def __init__(self, directory, sink, binary, effects, hook, more="", tls="off", connections=1000, store="data", worker=None):
        self.name = "mailworker+effects" if effects else "mailworker"
        if effects:
            hook.start()
        directory.mkdir(parents=True)
        shutil.copytree(ROOT / "rules", directory / "rules", ignore=shutil.ignore_patterns("tests", "patterns"))
        if not effects:
            (directory / "rules" / "main.rhai").write_text(worker or decides_alone())
        (directory / "webhook.key").write_text("whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")
        (directory / "webhook.key").chmod(0o600)
        config = directory / "mailworker.toml"
        config.write_text(
            f"""hostname = "bench.example.com"
main = "rules/main.rhai"
data_dir = "{store}"

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
        unit = (ROOT / "deploy/mailworker.service").read_text()
        environment = dict(re.findall(r"^Environment=(\w+)=(.*)$", unit, re.M)) | os.environ
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment)
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
