"""A process under strace: what it did to files and what it said on the network, in the order in which it happened, and
the states in which a power cut could leave its files.

Only what was synced is sure to be there. Of everything else any part may be: whole writes or sectors of them, in any
order; new files and deletions, until their directory was synced. What a sync has failed on is never sure, whatever
is synced after it, until it is written again."""

import collections
import os
import pathlib
import re
import subprocess

SECTOR = 512
CALLS = (
    "openat,open,creat,close,lseek,write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync,sync_file_range,ftruncate,"
    "fallocate,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,link,linkat,sendto,sendmsg,"
    "copy_file_range,sendfile,dup,dup2,dup3"
)

Write = collections.namedtuple("Write", "path offset data")
Truncate = collections.namedtuple("Truncate", "path size")
Create = collections.namedtuple("Create", "path is_dir")
Remove = collections.namedtuple("Remove", "path")
Sync = collections.namedtuple("Sync", "path since")
Unsynced = collections.namedtuple("Unsynced", "path")
Said = collections.namedtuple("Said", "data")

_CALL = re.compile(r"^(\d+)\s+(\w+)\((.*)$", re.S)
_RESUMED = re.compile(r"^(\d+)\s+<\.\.\. (\w+) resumed>(.*)$", re.S)
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
_FD = re.compile(r"^(-?\d+)<(.*?)>(?=[,)]|$)")


def command(output):
    """What stands before a command line so that its calls are written to `output`; the process stays our child."""
    return ["strace", "-D", "-f", "-yy", "-xx", "-s", "100000000", "-o", str(output), "-e", f"trace={CALLS}", "--"]


def octets(text):
    return bytes.fromhex(text.replace("\\x", ""))


def strings(text):
    found = []
    for match in _STRING.finditer(text):
        assert not match[2], "strace has cut a string short"
        found.append(octets(match[1]))
    return found


def plain(text):
    return re.sub(r"(?:\\x[0-9a-f]{2})+", lambda match: octets(match[0]).decode(errors="replace"), text)


class Trace:
    """The operations below `root`, in order."""

    def __init__(self, root):
        self.root = str(root)
        self.ops = []
        self.known = set()
        self.open = {}

    def read(self, output):
        """Adds what one process did."""
        pending, self.open = {}, {}
        for line in pathlib.Path(output).read_text().splitlines():
            if match := _RESUMED.match(line):
                begun = pending.pop(match[1], None)
                if begun:
                    name, arguments, at = begun
                    self._call(name, arguments + match[3], at)
                continue
            match = _CALL.match(line)
            if not match:
                continue
            if line.endswith("<unfinished ...>"):
                arguments = match[3][: -len("<unfinished ...>")].rstrip()
                # What a write or a reply does may be seen from its beginning on; what a sync does, from its end.
                early = match[2] in ("write", "pwrite64", "writev", "pwritev", "pwritev2", "sendto", "sendmsg")
                if early and self._call(match[2], arguments, len(self.ops), result=None):
                    continue
                pending[match[1]] = (match[2], arguments, len(self.ops))
                continue
            self._call(match[2], match[3], len(self.ops))
        return self

    def _inside(self, path):
        return path == self.root or path.startswith(self.root + "/")

    def _call(self, name, arguments, since, result=0):
        """Adds one call; whether it was one of ours."""
        outcome = re.search(r"\)\s+= (-?\d+)(?:<.*>)?(?: .*)?$", arguments)
        if outcome and int(outcome[1]) < 0:
            return self._failed(name, arguments)
        if name in ("openat", "open", "creat"):
            return self._open(arguments)
        if name in ("mkdir", "mkdirat"):
            return self._made(self._path(arguments), True)
        if name in ("unlink", "unlinkat", "rmdir"):
            path = self._path(arguments)
            if not self._inside(path) or not self._kept(path):
                return False
            self.known.discard(path)
            self.ops.append(Remove(path))
            return True
        if name in ("rename", "renameat", "renameat2", "link", "linkat", "fallocate", "copy_file_range", "sendfile"):
            assert self.root not in plain(arguments), f"{name} below the store isn't modelled"
            return False
        descriptor = _FD.match(arguments)
        if not descriptor:
            return False
        fd, path = descriptor[1], plain(descriptor[2])
        if name in ("sendto", "sendmsg", "write", "writev") and path.startswith("TCP"):
            self.ops.append(Said(b"".join(strings(arguments))))
            return True
        if not self._inside(path) or not self._kept(path):
            return False
        rest = arguments[descriptor.end():]
        if name in ("write", "writev"):
            data = b"".join(strings(rest))
            offset = self.open.get(fd, 0)
            self.open[fd] = offset + len(data)
            self.ops.append(Write(path, offset, data))
        elif name in ("pwrite64", "pwritev", "pwritev2"):
            data = b"".join(strings(rest))
            number = re.findall(r", (\d+)(?=[,)]|$)", _STRING.sub("", rest.split(") = ")[0]))
            self.ops.append(Write(path, int(number[1] if name == "pwrite64" else number[-1]), data))
        elif name in ("fsync", "fdatasync"):
            self.ops.append(Sync(path, since))
        elif name == "ftruncate":
            self.ops.append(Truncate(path, int(re.search(r", (\d+)", rest)[1])))
        elif name == "lseek":
            self.open[fd] = int(outcome[1])
        else:
            return False
        return True

    def _failed(self, name, arguments):
        """A sync that failed drops what was not yet synced from memory, or rather: still reads it from there."""
        descriptor = _FD.match(arguments)
        path = plain(descriptor[2]) if descriptor else ""
        if name in ("fsync", "fdatasync") and self._inside(path) and self._kept(path):
            self.ops.append(Unsynced(path))
            return True
        return False

    @staticmethod
    def _kept(path):
        """The index of the log lives in memory; locks and sockets are nothing that lasts."""
        return not path.endswith(("-shm", "/lock", ".sock"))

    def _path(self, arguments):
        folder = re.search(r"AT_FDCWD<(.*?)>|^\d+<(.*?)>", arguments)
        name = strings(arguments)[0].decode(errors="replace")
        base = plain(folder[1] or folder[2]) if folder else self.root
        return os.path.normpath(os.path.join(base, name))

    def _open(self, arguments):
        path = self._path(arguments)
        opened = re.search(r"= (\d+)<", arguments)
        if not opened or not self._inside(path) or not self._kept(path):
            return False
        self.open[opened[1]] = 0
        if "O_CREAT" in arguments:
            self._made(path, False)
        if "O_TRUNC" in arguments:
            self.ops.append(Truncate(path, 0))
        return True

    def _made(self, path, is_dir):
        if not self._inside(path) or path in self.known or not self._kept(path):
            return False
        self.known.add(path)
        self.ops.append(Create(path, is_dir))
        return True


class PowerCut:
    """The files as a power cut after the first `count` operations could leave them."""

    def __init__(self, trace, count):
        self.root = trace.root
        ops = trace.ops[:count]
        synced = collections.defaultdict(int)
        dropped = set()
        for index, op in enumerate(ops):
            if isinstance(op, Sync):
                synced[op.path] = max(synced[op.path], op.since)
            elif isinstance(op, Unsynced):
                dropped.update((op.path, at) for at in range(synced[op.path], index))
        self.sure, self.loose = [], []
        for index, op in enumerate(ops):
            if isinstance(op, (Write, Truncate)):
                sure = index < synced[op.path] and (op.path, index) not in dropped
                (self.sure if sure else self.loose).append((index, op))
            elif isinstance(op, (Create, Remove)):
                parent = os.path.dirname(op.path)
                (self.sure if index < synced[parent] or op.path == self.root else self.loose).append((index, op))
        self.said = [op.data for op in ops if isinstance(op, Said)]

    def write(self, target, chosen):
        """Makes the state below `target`: what is sure, and of the rest what `chosen` picks (an operation ─► those parts of
        it that are there)."""
        picked = [(index, part) for index, op in self.loose for part in chosen(op)]
        files, exist = {}, set()
        for _, op in sorted(self.sure + picked, key=lambda pair: pair[0]):
            if isinstance(op, Create):
                exist.add(op.path)
                if op.is_dir:
                    files[op.path] = None
                else:
                    files.setdefault(op.path, bytearray())
            elif isinstance(op, Remove):
                exist.discard(op.path)
                files.pop(op.path, None)
            else:
                content = files.setdefault(op.path, bytearray())
                if isinstance(op, Truncate):
                    del content[op.size:]
                    content.extend(bytes(op.size - len(content)))
                else:
                    content.extend(bytes(max(0, op.offset - len(content))))
                    content[op.offset:op.offset + len(op.data)] = op.data
        for path in sorted(exist):
            place = pathlib.Path(target + path[len(self.root):])
            if files.get(path) is None:
                place.mkdir(mode=0o700, parents=True, exist_ok=True)
            elif place.parent.is_dir():
                place.write_bytes(files[path])
                place.chmod(0o600)


def everything(op):
    return [op]


def nothing(_):
    return []


def torn(random, share):
    """A picker: of each operation that isn't sure, each sector is there with this probability."""

    def pick(op):
        if not isinstance(op, Write):
            return [op] if random.random() < share else []
        starts = range(0, len(op.data), SECTOR)
        return [
            Write(op.path, op.offset + start, op.data[start:start + SECTOR]) for start in starts if random.random() < share
        ]

    return pick


def available():
    """Whether processes may be traced here."""
    return subprocess.run(["strace", "-D", "-o", "/dev/null", "true"], check=False, capture_output=True).returncode == 0
