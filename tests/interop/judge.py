"""Whether a state of a store's files keeps what was promised: the program opens it, proves it sound, and what its rows say
is held against what was answered and sent."""
import collections
import hashlib
import json
import os
import pathlib
import shutil
import sqlite3
import subprocess
import tempfile
import threading

import trace

PROGRAM = os.environ["MAILWORKER"]
CONFIG = """hostname = "mx.example.com"
data_dir = {data}
[[listener]]
address = "127.0.0.1:0"
[[domain]]
name = "example.com"
postmaster = "admin@example.net"
[relay]
smarthost = "smtp://127.0.0.1:{port}"
retry = ["1 h"]
[webhook_defaults]
retry = ["200 ms"]
[egress]
allow = ["127.0.0.0/8"]
[[kv_namespaces]]
binding = "SEEN"
"""
CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

# Messages ─► whether their octets are there; those that a delivery waits or is dead for; the keys of "SEEN".
Rows = collections.namedtuple("Rows", "octets wanted keys")
# What must be there: messages, messages with their octets, keys.
Promise = collections.namedtuple("Promise", "messages octets keys")


def home_of(directory, data, port=9, sections=""):
    """A configuration and a worker for the store at `data`."""
    directory.mkdir(exist_ok=True)
    (directory / "rules").mkdir(exist_ok=True)
    (directory / "rules" / "main.rhai").write_text('fn email(message, env, ctx) { message.forward("team@example.net"); }\n')
    (directory / "mailworker.toml").write_text(CONFIG.format(data=json.dumps(str(data)), port=port) + sections)
    return directory / "mailworker.toml"


def program(*arguments):
    return subprocess.run([PROGRAM, *arguments], capture_output=True, check=False, timeout=60)


def opens(config, within=()):
    """What a start does to a store, and a commit, and a clean end. An empty directory becomes a store."""
    done = subprocess.run(
        [*within, PROGRAM, "kv", "put", "SEEN", "opened", "yes", "--config", str(config)], capture_output=True, check=False,
        timeout=120,
    )
    assert done.returncode == 0, f"it doesn't open: {done.stderr.decode(errors='replace')}"


def findings(config):
    done = program("store", "check", "--json", "--config", str(config))
    assert done.returncode in (0, 1) and done.stdout, done.stderr.decode(errors="replace")
    return json.loads(done.stdout)["findings"]


def rows(data):
    with sqlite3.connect(f"file:{data}/mailworker.db?mode=ro", uri=True) as database:
        octets = {ulid(id): bool(there) for id, there in database.execute("SELECT id, segment IS NOT NULL FROM messages")}
        wanted = {ulid(id) for id, in database.execute("SELECT DISTINCT message FROM deliveries")}
        keys = {key for key, in database.execute("SELECT key FROM kv WHERE namespace = 'SEEN'")}
    database.close()
    return Rows(octets, wanted, keys)


def ulid(octets):
    number = int.from_bytes(octets, "big")
    return "".join(CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))


class Judge:
    """States alike are judged once."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.known, self.lock, self.opened = {}, threading.Lock(), 0

    def look(self, files, root, strict=False):
        """What its rows say once it has been opened; `strict`: as it is, by a check and a reader."""
        key = (strict, *digest(files, root))
        with self.lock:
            known = self.known.get(key)
        if known is None:
            try:
                known = self._look(files, root, strict)
            except AssertionError as error:
                known = error
            with self.lock:
                self.known[key] = known
                self.opened += 1
        if isinstance(known, AssertionError):
            raise AssertionError(str(known))
        return known

    def _look(self, files, root, strict):
        with tempfile.TemporaryDirectory(dir=self.directory) as home:
            data = pathlib.Path(home) / "data"
            trace.write(files, root, data)
            config = home_of(pathlib.Path(home), data)
            if strict:
                # A segment that was begun and of which nothing is promised yet is no loss: the next start deals with it.
                found = [one for one in findings(config) if "is named by no message" not in one["problem"]]
            else:
                data.mkdir(mode=0o700, exist_ok=True)
                opens(config)
                found = findings(config)
            assert not found, found
            return rows(data)

    def hold(self, files, root, promise, strict=False):
        """That a state keeps a promise."""
        found = self.look(files, root, strict)
        missing = promise.messages - found.octets.keys()
        assert not missing, f"lost: {sorted(missing)}"
        bare = {id for id in promise.octets | found.wanted if not found.octets.get(id)}
        assert not bare, f"octets that are needed are gone: {sorted(bare)}"
        keys = promise.keys - found.keys
        assert not keys, f"keys are lost: {sorted(keys)}"
        return found


def digest(files, root):
    mixed = hashlib.sha256()
    for path, octets in sorted(files.items()):
        mixed.update(f"{path[len(root):]} {-1 if octets is None else len(octets)}\n".encode() + (octets or b""))
    return (mixed.digest(),)


def clear(directory):
    shutil.rmtree(directory, ignore_errors=True)
