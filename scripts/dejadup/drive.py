"""Presses Deja Dup's buttons and looks at what comes of it."""
import os
import subprocess
import time

import gi

gi.require_version("Atspi", "2.0")
from gi.repository import Atspi  # noqa: E402

DOCS = os.environ["HOME"] + "/docs/"
BACKUP = os.environ["BACKUP"]
PATIENCE = 60  # seconds, for whatever is waited for


def below(o, depth=0):
    """Yields an object of the screen and what is in it."""
    if o is None or depth > 40:
        return
    yield o
    for i in range(o.get_child_count()):
        yield from below(o.get_child_at_index(i), depth + 1)


def everything():
    desktop = Atspi.get_desktop(0)
    found = []
    for i in range(desktop.get_child_count()):
        try:
            found += below(desktop.get_child_at_index(i))
        except gi.repository.GLib.Error:  # it has just gone
            pass
    return found


def attributes(o):
    try:
        return o.get_name(), o.get_role_name()
    except gi.repository.GLib.Error:
        return "", ""


def find(name, role):
    """The last object of that name, which is that of the newest window."""
    return next((o for o in reversed(everything()) if attributes(o) == (name, role)), None)


def until(what, test):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        got = test()
        if got:
            return got
        time.sleep(0.2)
    shot("failed")
    seen = [attributes(o) for o in everything()]
    raise SystemExit(f"{what} did not happen; on the screen: {[s for s in seen if s[1] in ('frame', 'push button')]}")


def usable(o):
    return o and o.get_state_set().contains(Atspi.StateType.SENSITIVE)


def press(name, role="push button"):
    def ready():
        o = find(name, role)
        return o if usable(o) else None

    until(f"a {role} {name!r}", ready).do_action(0)
    time.sleep(0.5)


def window(title):
    until(f"the window {title!r}", lambda: find(title, "frame"))
    time.sleep(1)


def no_window():
    until("the end of all windows", lambda: not [o for o in everything() if attributes(o)[1] == "frame"])


def keys(*names):
    for n in names:
        subprocess.run(["xdotool", "key", n], check=True)
        time.sleep(0.2)


def types(text):
    subprocess.run(["xdotool", "type", "--delay", "30", text], check=True)
    time.sleep(0.3)


def shot(name):
    subprocess.run(["import", "-window", "root", f"{os.environ['SHOTS']}/{name}.png"], check=True)


running = None


def deja_dup(*args):
    """Begins Deja Dup once the one before has gone: a second one would hand over to it."""
    global running
    if running:
        running.wait(PATIENCE)
    running = subprocess.Popen(["deja-dup", *args])
    return running


def write(name, content):
    with open(DOCS + name, "wb") as f:
        f.write(content)


def stored(part):
    return [n for n in os.listdir(BACKUP) if part in n]


def password(text, remember=False):
    window("Encryption Password Needed")
    types(text)
    if remember:
        keys("Tab", "Tab", "space")
    press("_Forward Forward")


def first_backup():
    write("letter.txt", b"first\n")
    deja_dup("--backup")
    press("_Forward Forward")  # which folders
    time.sleep(1)
    press("_Forward Forward")  # to where
    window("Require Password?")
    types("geheim")
    keys("Tab", "Tab")
    types("geheim")
    shot("1-password")
    press("_Forward Forward")
    no_window()
    assert stored("full") and all(n.endswith(".gpg") for n in os.listdir(BACKUP)), os.listdir(BACKUP)


def second_backup():
    write("letter.txt", b"second\n")
    write("new.txt", b"new\n")
    deja_dup("--backup")
    password("falsch")
    time.sleep(3)  # it is asked again
    shot("2-wrong-password")
    assert not stored("inc.")
    password("geheim")
    no_window()
    assert stored("inc.") and stored("new-signatures"), os.listdir(BACKUP)


def browse():
    """Presses the tab, which a window that is still being made overlooks."""
    window("Backups")
    if files() == 0:
        click(575, 161)  # its action does not always do it
        time.sleep(3)
    return True


def click(x, y):
    subprocess.run(["xdotool", "mousemove", str(x), str(y), "click", "1"], check=True)


def files():
    """How many files the list shows."""
    return len([o for o in everything() if attributes(o)[1] == "table cell"])


def older_file():
    write("letter.txt", b"third\n")
    app = deja_dup()
    until("the list of the newest backup", lambda: browse() and files() == 2)
    shot("3-newest")
    date = until("the list of dates", lambda: find("Date", "combo box"))
    next(o for o in below(date) if attributes(o)[1] == "push button").do_action(0)
    time.sleep(1)
    keys("Down", "Return")
    until("the list of the oldest backup", lambda: files() == 1)
    time.sleep(1)
    click(250, 221)
    time.sleep(0.5)
    shot("4-oldest")
    press("_Restore Restore")
    window("Restore to Where?")
    press("_Restore Restore")
    password("falsch")
    time.sleep(3)
    password("geheim")
    window("Restore Finished")
    shot("5-restored")
    with open(DOCS + "letter.txt", "rb") as f:
        assert f.read() == b"first\n"
    app.terminate()
    app.wait()
    no_window()


def cancelled_backup():
    write("big", os.urandom(600 << 20))
    deja_dup("--backup")
    password("geheim", remember=True)
    until("a volume of the third backup", lambda: len(stored("vol")) > 2)
    shot("6-cancel")
    press("_Cancel Cancel")
    no_window()
    assert len(stored("manifest")) == 2, os.listdir(BACKUP)
    got = subprocess.run(["secret-tool", "lookup", "owner", "deja-dup", "type", "passphrase"], capture_output=True, text=True)
    assert got.stdout == "geheim", got


def third_backup():
    write("letter.txt", b"fourth\n")
    os.remove(DOCS + "big")
    deja_dup("--backup")
    until("the third backup", lambda: len(stored("manifest")) == 3)  # it asks for nothing
    no_window()


def stock_restore():
    env = dict(os.environ, PASSPHRASE="geheim")
    out = os.environ["TMPDIR"] + "/out"
    subprocess.run([os.environ["STOCK"], "restore", "--file-to-restore", DOCS[1:-1], "file://" + BACKUP, out],
                   env=env, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["diff", "-r", DOCS, out], check=True)


Atspi.init()
for step in (first_backup, second_backup, older_file, cancelled_backup, third_backup, stock_restore):
    step()
    print("dejadup:", step.__name__.replace("_", " "), flush=True)
