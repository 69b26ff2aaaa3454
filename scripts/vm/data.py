#!/usr/bin/python3
"""data.py DIR    makes DIR/1, DIR/2 and DIR/3: three states of a tree"""

import os
import random
import shutil
import sys


def write(path, data, mode=0o644):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.write(data)
    os.chmod(path, mode)


def noise(dice, n):
    return dice.randbytes(n)


def text(dice, n):
    words = [b"alpha", b"beta", b"gamma", b"delta", b"\n"]
    out = bytearray()
    while len(out) < n:
        out += dice.choice(words) + b" "
    return bytes(out[:n])


def first(d, dice):
    for i in range(90):
        write(f"{d}/small/{i % 17}/{i % 5}/file{i}", text(dice, dice.randrange(4000)), dice.choice([0o644, 0o600, 0o755]))
    for i in range(700):
        write(f"{d}/many/name-{i:05}", b"%d\n" % i)
    write(f"{d}/big/noise", noise(dice, 3 << 20))
    write(f"{d}/big/text", text(dice, 1 << 20))
    write(f"{d}/empty", b"")
    write(f"{d}/names/ümläut \t\\ \udcff\n".encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape"), b"odd")
    write(f"{d}/names/" + "l" * 255, b"long")
    deep = d + "/deep" + "/x" * 60
    write(deep + "/bottom", b"here")
    with open(f"{d}/big/holes", "wb") as f:
        f.seek(1 << 20)
        f.write(b"end")
    os.symlink("big/noise", f"{d}/link")
    os.symlink("/nowhere", f"{d}/dangling")
    os.link(f"{d}/big/text", f"{d}/second name")
    os.mkfifo(f"{d}/fifo")
    os.chown(f"{d}/small/3", 1000, 1000)
    os.chown(f"{d}/link", 1000, 1000, follow_symlinks=False)
    os.chmod(f"{d}/small/4", 0o700)
    os.setxattr(f"{d}/empty", "user.note", b"an attribute")


def second(d, dice):
    with open(f"{d}/big/noise", "r+b") as f:
        for _ in range(4):
            f.seek(dice.randrange(2 << 20))
            f.write(noise(dice, 100_000))
    write(f"{d}/big/new", noise(dice, 1 << 20))
    for i in range(0, 90, 7):
        os.unlink(f"{d}/small/{i % 17}/{i % 5}/file{i}")
    for i in range(1, 90, 9):
        path = f"{d}/small/{i % 17}/{i % 5}/file{i}"
        if os.path.exists(path):
            write(path, text(dice, dice.randrange(9000)))
    for i in range(60):
        write(f"{d}/more/name-{i:05}", b"more %d\n" % i)
    os.unlink(f"{d}/link")
    write(f"{d}/link/is now/a directory", b"")
    os.chmod(f"{d}/empty", 0o400)


def third(d, dice):
    shutil.rmtree(f"{d}/many")
    with open(f"{d}/big/text", "ab") as f:
        f.write(text(dice, 1 << 20))
    write(f"{d}/big/third", noise(dice, 1 << 20))
    shutil.rmtree(f"{d}/link")
    os.symlink("big/third", f"{d}/link")


def main(top):
    dice = random.Random(1)
    now = 1_750_000_000
    for k, change in enumerate((first, second, third), 1):
        d = f"{top}/{k}"
        if k > 1:
            os.system(f"cp -a '{top}/{k - 1}' '{d}'")
        else:
            os.makedirs(d)
        change(d, dice)
        for at, dirs, files in os.walk(d, topdown=False):
            for name in files + dirs:
                path = os.path.join(at, name)
                if os.lstat(path).st_mtime > now + k * 86400:
                    when = (now + k * 86400) * 10**9 + dice.randrange(10**9)
                    os.utime(path, ns=(when, when), follow_symlinks=False)


main(sys.argv[1])
