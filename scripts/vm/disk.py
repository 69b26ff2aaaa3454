#!/usr/bin/python3
"""A disk with a volatile write cache, and what is left of it when power goes.

    disk.py serve IMAGE LOG SOCKET   serves IMAGE over NBD and notes in LOG
                                     every write and flush, in their order
    disk.py count LOG                prints how many of each there are
    disk.py lose BASE LOG CUT SEED OUT
                                     makes OUT of BASE, the image before LOG
                                     began: power goes after CUT entries
                                     (-1: all). What was flushed is there, and
                                     of the rest each 4 KiB or not, by chance
                                     (SEED 0: nothing)

A write may reach such a disk in part and in any order until it is flushed, or
was made with FUA: so do disks, and the host's page cache below a killed qemu
would not.
"""

import os
import random
import socket
import struct
import sys

READ, WRITE, DISC, FLUSH, TRIM, ZEROES = 0, 1, 2, 3, 4, 6
FUA = 1
ENTRY = struct.Struct(">BBQI")  # kind, FUA, offset, length; then the data of a write
PIECE = 4096


def serve(image, log, path):
    if os.path.exists(path):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1)
    size = os.path.getsize(image)
    with open(image, "r+b", buffering=0) as disk, open(log, "ab", buffering=0) as notes:
        while True:
            peer, _ = listener.accept()
            try:
                if greet(peer, size):
                    answer(peer, disk, notes)
            except (ConnectionError, EOFError):
                pass  # qemu was killed


def receive(peer, n):
    data = bytearray()
    while len(data) < n:
        part = peer.recv(n - len(data))
        if not part:
            raise EOFError
        data += part
    return bytes(data)


def greet(peer, size):
    """Negotiates; False if the client only looked."""
    flags = 1 | 4 | 8 | 32 | 64  # flush, FUA, trim, write zeroes
    peer.sendall(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3))
    receive(peer, 4)
    while True:
        _, option, n = struct.unpack(">8sII", receive(peer, 16))
        receive(peer, n)
        if option == 1:  # NBD_OPT_EXPORT_NAME
            peer.sendall(struct.pack(">QH", size, flags))
            return True

        def reply(kind, data=b""):
            peer.sendall(struct.pack(">QIII", 0x3E889045565A9, option, kind, len(data)) + data)

        if option in (6, 7):  # NBD_OPT_INFO, NBD_OPT_GO
            reply(3, struct.pack(">HQH", 0, size, flags))
            reply(1)
            if option == 7:
                return True
        elif option == 2:  # NBD_OPT_ABORT
            reply(1)
            return False
        else:
            reply(0x80000001)


def answer(peer, disk, notes):
    while True:
        magic, flags, kind, cookie, off, n = struct.unpack(">IHHQQI", receive(peer, 28))
        if magic != 0x25609513:
            raise EOFError
        data = b""
        if kind == DISC:
            return
        if kind == READ:
            data = os.pread(disk.fileno(), n, off)
        else:
            body = receive(peer, n) if kind == WRITE else b""
            notes.write(ENTRY.pack(kind, flags & FUA, off, n) + body)
            apply(disk, kind, off, n, body)
        peer.sendall(struct.pack(">IIQ", 0x67446698, 0, cookie) + data)


def apply(disk, kind, off, n, body):
    if kind in (TRIM, ZEROES):
        body = bytes(n)
    if kind != FLUSH:
        os.pwrite(disk.fileno(), body, off)


def entries(log):
    with open(log, "rb") as f:
        while True:
            head = f.read(ENTRY.size)
            if len(head) < ENTRY.size:
                return
            kind, fua, off, n = ENTRY.unpack(head)
            body = f.read(n) if kind == WRITE else b""
            if kind == WRITE and len(body) < n:
                return
            yield kind, fua, off, n, body


def count(log):
    kinds = [kind for kind, *_ in entries(log)]
    print(len(kinds), "entries,", kinds.count(FLUSH), "flushes")


def lose(base, log, cut, seed, out):
    dice = random.Random(seed)
    all_entries = list(entries(log))[: None if cut < 0 else cut]
    flushed = max((i for i, e in enumerate(all_entries) if e[0] == FLUSH), default=-1)
    if os.system(f"cp --sparse=always '{base}' '{out}'") != 0:
        sys.exit("disk.py: cannot copy " + base)
    lost = kept = 0
    with open(out, "r+b", buffering=0) as disk:
        for i, (kind, fua, off, n, body) in enumerate(all_entries):
            if i <= flushed or fua:
                apply(disk, kind, off, n, body)
                continue
            if kind == TRIM:
                continue
            chance = dice.choice((0, 0.5, 1)) if seed else 0
            for at in range(0, n, PIECE):
                if dice.random() >= chance:
                    lost += 1
                    continue
                kept += 1
                part = min(PIECE, n - at)
                apply(disk, kind, off + at, part, body[at : at + part])
    print(f"{len(all_entries)} entries, {flushed + 1} of them flushed; of the others {lost} blocks lost, {kept} kept")


def main(argv):
    match argv:
        case ["serve", image, log, path]:
            serve(image, log, path)
        case ["count", log]:
            count(log)
        case ["lose", base, log, cut, seed, out]:
            lose(base, log, int(cut), int(seed), out)
        case _:
            sys.exit(__doc__)


main(sys.argv[1:])
