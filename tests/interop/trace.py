"""A process under strace: what it did to files and what it said on the network, in the order in which it happened, and
the states in which a power cut could leave its files.

Only what was synced is sure to be there. Of everything else any part may be: whole writes, pages or sectors of them, the
length without the octets, in any order; names that were given, moved or taken away, until their directory was synced.
Assumed of the disk is what SQLite assumes too: a sector is written whole or not at all, and what lies beside it stays;
and of the file system that a file which is renamed has its old name, its new one, or both. What a sync has failed on is
never sure, whatever is synced after it, until it is written again."""

import collections
import os
import pathlib
import re
import subprocess

CALLS = (
    "openat,open,creat,lseek,write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync,sync_file_range,ftruncate,truncate,"
    "fallocate,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,link,linkat,symlink,symlinkat,sendto,sendmsg,"
    "copy_file_range,sendfile,splice,io_uring_setup"
)
# Files are numbered: a name may be another file's later on. Directories go by their path, and so do names.
Write = collections.namedtuple("Write", "file offset data")
Truncate = collections.namedtuple("Truncate", "file size")
Extend = collections.namedtuple("Extend", "file size")
Name = collections.namedtuple("Name", "path file")  # `file`: None for a directory
Unname = collections.namedtuple("Unname", "path behind")  # `behind`: the operation without which it can't have happened
Sync = collections.namedtuple("Sync", "of since")
Unsynced = collections.namedtuple("Unsynced", "of")
Said = collections.namedtuple("Said", "data")

_CALL = re.compile(r"^(\d+)\s+(\w+)\((.*)$", re.S)
_RESUMED = re.compile(r"^(\d+)\s+<\.\.\. (\w+) resumed>(.*)$", re.S)
_FD = re.compile(r"^(-?\d+)<(.*?)>(?:\(deleted\))?(?=[,)]|$)")
_WRITES = ("write", "pwrite64", "writev", "pwritev", "pwritev2", "sendto", "sendmsg")


def command(output):
    """What stands before a command line so that its calls are written to `output`; the process stays our child."""
    return ["strace", "-D", "-f", "-yy", "-xx", "-s", "100000000", "-o", str(output), "-e", f"trace={CALLS}", "--"]


def octets(text):
    return bytes.fromhex(text.replace("\\x", ""))


def strings(text):
    """The strings of a call and what stands after the last of them. They hold no quotes: all in them is hexadecimal."""
    found, end = [], 0
    while (begin := text.find('"', end)) >= 0:
        end = text.index('"', begin + 1) + 1
        assert not text.startswith("...", end), "strace has cut a string short"
        found.append(octets(text[begin + 1:end - 1]))
    return found, text[end:]


def plain(text):
    return re.sub(r"(?:\\x[0-9a-f]{2})+", lambda match: octets(match[0]).decode(errors="replace"), text)


class Trace:
    """The operations on the files below `root`, in order, and what was there before them: `base`, a path ─► its octets,
    or None for a directory."""

    def __init__(self, root, base=None):
        self.root, self.ops, self.base = str(root), [], base or {}
        # When an operation was over: a sync answers for those that were over when it began.
        self.over = {}
        self.named = {path: number for number, path in enumerate(self.base) if self.base[path] is not None}
        self.paths = {number: path for path, number in self.named.items()}
        self.directories = {path for path in self.base if self.base[path] is None}
        self.position = {}

    def read(self, output):
        """Adds what one process did."""
        pending, self.position = {}, {}
        with open(output) as lines:
            for line in lines:
                line, since = line.rstrip("\n"), len(self.ops)
                if match := _RESUMED.match(line):
                    name, arguments, at, early = pending.pop(match[1], ("", "", 0, None))
                    if early is not None:
                        self._ended(early, match[3])
                    elif name:
                        self._call(name, arguments + match[3], at)
                elif match := _CALL.match(line):
                    name, arguments = match[2], match[3]
                    if arguments.endswith("<unfinished ...>"):
                        arguments = arguments[: -len("<unfinished ...>")].rstrip()
                        # What a write or a reply does may be seen from its beginning on; what a sync does, from its end.
                        early = since if name in _WRITES and self._call(name, arguments, since) else None
                        pending[match[1]] = (name, arguments, since, early)
                        continue
                    self._call(name, arguments, since)
                self.over.update((index, len(self.ops)) for index in range(since, len(self.ops)))
        return self

    def _ended(self, early, rest):
        """A write of which the beginning was seen before its end."""
        outcome = re.search(r"\)\s+= (-?\d+)", rest)
        # None where the process was killed meanwhile: then any part of it may have been done.
        if outcome:
            self.ops[early] = self.ops[early]._replace(data=self.ops[early].data[:max(int(outcome[1]), 0)])
            self.over[early] = len(self.ops)

    def without(self, lost):
        """The same as if no sync had been made of what `lost` says it of."""
        other = Trace(self.root, self.base)
        other.ops = [Sync(None, 0) if isinstance(op, Sync) and lost(self.path(op.of)) else op for op in self.ops]
        other.over, other.paths = self.over, self.paths
        return other

    def path(self, of):
        """Of a file's number, the name that it was given first."""
        return self.paths.get(of, of) or ""

    def _inside(self, path):
        """The index of the log lives in memory; locks and sockets are nothing that lasts."""
        return (path == self.root or path.startswith(self.root + "/")) and not path.endswith(("-shm", "/lock", ".sock"))

    def _call(self, name, arguments, since):
        """Adds one call; whether it was one of ours."""
        found, rest = strings(arguments)
        outcome = re.search(r"\)\s+= (-?\d+)", rest[-400:])
        if outcome and int(outcome[1]) < 0:
            return self._failed(name, arguments)
        if name in ("openat", "open", "creat"):
            return self._open(arguments, rest)
        if name in ("mkdir", "mkdirat", "unlink", "unlinkat", "rmdir", "rename", "renameat", "renameat2"):
            return self._names(name, arguments, found)
        if name in ("link", "linkat", "symlink", "symlinkat", "truncate", "copy_file_range", "sendfile", "splice"):
            assert self.root not in plain(arguments), f"{name} below the store isn't modelled"
            return False
        assert name != "io_uring_setup", "what is written by io_uring isn't seen here"
        descriptor = _FD.match(arguments)
        if not descriptor:
            return False
        fd, path = descriptor[1], plain(descriptor[2])
        if name in ("sendto", "sendmsg", "write", "writev") and path.startswith("TCP"):
            self.ops.append(Said(b"".join(found)))
            return True
        if name == "fsync" and (path in self.directories or path in (self.root, os.path.dirname(self.root))):
            self.ops.append(Sync(path, since))
            return True
        if not self._inside(path) or path not in self.named:
            return False
        self._change(name, fd, self.named[path], b"".join(found), (rest, outcome), since)
        return True

    def _change(self, name, fd, file, data, call, since):
        rest, outcome = call
        numbers = [int(number) for number in re.findall(r", (\d+)(?=[,)]|$)", rest.split(") = ")[0])]
        if name in ("write", "writev"):
            # Where the call itself tells that it wrote less.
            data = data[:int(outcome[1])] if outcome else data
            offset = self.position.get(fd, 0)
            self.position[fd] = offset + len(data)
            self.ops.append(Write(file, offset, data))
        elif name in ("pwrite64", "pwritev", "pwritev2"):
            data = data[:int(outcome[1])] if outcome else data
            self.ops.append(Write(file, numbers[1 if name != "pwritev2" else -2], data))
        elif name in ("fsync", "fdatasync"):
            self.ops.append(Sync(file, since))
        elif name == "ftruncate":
            self.ops.append(Truncate(file, numbers[0]))
        elif name == "fallocate":
            assert len(numbers) >= 2, rest
            if "KEEP_SIZE" not in rest:
                self.ops.append(Extend(file, numbers[-1] + numbers[-2]))
        elif name == "lseek":
            self.position[fd] = int(outcome[1])

    def _failed(self, name, arguments):
        """A sync that failed drops what was not yet synced from memory, or rather: still reads it from there."""
        descriptor = _FD.match(arguments)
        path = plain(descriptor[2]) if descriptor else ""
        if name in ("fsync", "fdatasync") and (self._inside(path) or path == os.path.dirname(self.root)):
            self.ops.append(Unsynced(self.named.get(path, path)))
            return True
        return False

    def _paths(self, arguments, found):
        """The paths that a call names, each beside the directory that it begins from."""
        folders = [plain(folder) for folder in re.findall(r"(?:AT_FDCWD|(?<![\w\"])\d+)<(.*?)>", arguments)]
        names = [name.decode(errors="replace") for name in found]
        bases = folders if len(folders) == len(names) else [self.root] * len(names)
        return [os.path.normpath(os.path.join(base, name)) for base, name in zip(bases, names)]

    def _names(self, name, arguments, found):
        paths = self._paths(arguments, found)
        if not any(self._inside(path) for path in paths):
            return False
        if name.startswith("mkdir"):
            self.directories.add(paths[0])
            self.ops.append(Name(paths[0], None))
        elif name.startswith("rename"):
            old, new = paths
            assert self._inside(old) and self._inside(new), f"moved across the border: {paths}"
            file = self.named.pop(old)
            self.named[new] = file
            self.ops += [Name(new, file), Unname(old, len(self.ops))]
        elif paths[0] in self.named or paths[0] in self.directories:
            # A name that is gone still finds the file for who has it open.
            self.ops.append(Unname(paths[0], None))
        return True

    def _open(self, arguments, rest):
        path = self._paths(arguments, strings(arguments)[0])[0]
        opened = re.search(r"= (\d+)<", rest)
        if not opened or not self._inside(path):
            return False
        self.position[opened[1]] = 0
        if "O_DIRECTORY" in rest or path == self.root or path in self.directories:
            return True
        fresh = path not in self.named or isinstance(self._last_of(path), Unname)
        if "O_CREAT" in rest and fresh:
            number = max(self.paths, default=-1) + 1
            self.named[path], self.paths[number] = number, path
            self.ops.append(Name(path, number))
        if "O_TRUNC" in rest:
            self.ops.append(Truncate(self.named[path], 0))
        return True

    def _last_of(self, path):
        return next((op for op in reversed(self.ops) if isinstance(op, (Name, Unname)) and op.path == path), None)


class PowerCut:
    """The files as a power cut after the first `count` operations could leave them."""

    def __init__(self, trace, count):
        self.root, self.base = trace.root, trace.base
        ops = trace.ops[:count]
        synced = collections.defaultdict(int)
        dropped = set()
        for index, op in enumerate(ops):
            if isinstance(op, Sync):
                synced[op.of] = max(synced[op.of], op.since)
            elif isinstance(op, Unsynced):
                dropped.update((op.of, at) for at in range(synced[op.of], index))
        self.sure, self.loose = [], []
        for index, op in enumerate(ops):
            if isinstance(op, (Write, Truncate, Extend)):
                of = op.file
            elif isinstance(op, (Name, Unname)):
                of = os.path.dirname(op.path)
            else:
                continue
            sure = trace.over.get(index, count + 1) <= synced[of] and (of, index) not in dropped
            (self.sure if sure else self.loose).append((index, op))
        self.said = [op.data for op in ops if isinstance(op, Said)]

    def files(self, chosen):
        """What is sure, and of the rest what `chosen` picks of the operations that are not (a list of index and operation
        ─► the same, or parts of them): a path ─► its octets, or None for a directory."""
        picked = chosen(self.loose)
        there = {index for index, _ in self.sure} | {index for index, _ in picked}
        numbers = {path: number for number, path in enumerate(self.base)}
        content = {numbers[path]: bytearray(octets) for path, octets in self.base.items() if octets is not None}
        names = {path: None if octets is None else numbers[path] for path, octets in self.base.items()}
        for _, op in sorted(self.sure + picked, key=lambda pair: pair[0]):
            if isinstance(op, Name):
                names[op.path] = op.file
            elif isinstance(op, Unname):
                if op.behind is None or op.behind in there:
                    names.pop(op.path, None)
            else:
                _apply(content.setdefault(op.file, bytearray()), op)
        found = {}
        for path, file in sorted(names.items()):
            if path == self.root or os.path.dirname(path) in found:
                found[path] = None if file is None else bytes(content.get(file, b""))
        return found

    def write(self, target, chosen):
        """Makes the state below `target`."""
        write(self.files(chosen), self.root, target)


def _apply(content, op):
    if isinstance(op, Write):
        content.extend(bytes(max(0, op.offset - len(content))))
        content[op.offset:op.offset + len(op.data)] = op.data
    elif isinstance(op, Truncate):
        del content[op.size:]
        content.extend(bytes(op.size - len(content)))
    else:
        content.extend(bytes(max(0, op.size - len(content))))


def write(files, root, target):
    for path, octets in sorted(files.items()):
        place = pathlib.Path(str(target) + path[len(root):])
        if octets is None:
            place.mkdir(mode=0o700, parents=True)
        else:
            place.write_bytes(octets)
            place.chmod(0o600)


def snapshot(root):
    """The files below a directory as they are, to be the base of a trace."""
    root = pathlib.Path(root)
    found = {str(root): None}
    for path in sorted(root.rglob("*")):
        if path.is_dir():
            found[str(path)] = None
        elif path.is_file() and not path.name.endswith("-shm") and path.name != "lock":
            found[str(path)] = path.read_bytes()
    return found


# What there may be of what is not sure.


def everything(loose):
    return loose


def nothing(_):
    return []


def only_one(random):
    """One operation reached the disk before all others."""
    return lambda loose: [random.choice(loose)] if loose else []


def all_but_one(random):
    """One operation was left behind by all others."""
    return lambda loose: [pair for pair in loose if pair is not spared] if (spared := _one(random, loose)) else []


def _one(random, loose):
    return random.choice(loose) if loose else None


def torn(random, share, sector):
    """Each sector with this probability, and each length and name; `sector` 0: each write whole."""

    def parts(op):
        if not isinstance(op, Write):
            return [op] if random.random() < share else []
        end = op.offset + len(op.data)
        edges = [op.offset, *range((op.offset // sector + 1) * sector, end, sector)] if sector else [op.offset]
        pieces = [
            Write(op.file, begin, op.data[begin - op.offset:after - op.offset])
            for begin, after in zip(edges, [*edges[1:], end])
            if random.random() < share
        ]
        # The length may be there without the octets.
        return [*([Extend(op.file, end)] if random.random() < share / 4 else []), *pieces]

    return lambda loose: [(index, part) for index, op in loose for part in parts(op)]


def available():
    """Whether processes may be traced here."""
    return subprocess.run(["strace", "-D", "-o", "/dev/null", "true"], check=False, capture_output=True).returncode == 0
