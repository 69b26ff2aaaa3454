"""Runs duplicity again and again: it is loaded once, and forks for each run.

Reads a run a line, as JSON: dir, env, args (Latin-1 for bytes), and files for
standard output and error. Writes the exit status of each on a line.
"""
import importlib, json, os, pkgutil, runpy, sys, time

program = sys.argv[1]
sys.argv = [program]
import duplicity.dup_main
import duplicity.backends

for module in pkgutil.iter_modules(duplicity.backends.__path__):
    if module.name.endswith("backend"):
        try:
            importlib.import_module("duplicity.backends." + module.name)
        except Exception:
            pass  # a library of that store is missing: it says so itself

as_bytes = lambda text: text.encode("latin-1")


def child(run):
    os.setsid()
    os.chdir(as_bytes(run["dir"]))
    for fd, name, flags in (
        (0, b"/dev/null", os.O_RDONLY),
        (1, as_bytes(run["out"]), os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        (2, as_bytes(run["err"]), os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    ):
        new = os.open(name, flags, 0o600)
        os.dup2(new, fd)
        os.close(new)
    sys.stdin = os.fdopen(0)
    os.environb.clear()
    for pair in run["env"]:
        key, _, value = as_bytes(pair).partition(b"=")
        os.environb[key] = value
    time.tzset()
    sys.argv = [program] + [os.fsdecode(as_bytes(a)) for a in run["args"]]
    code = 0
    try:
        runpy.run_path(program, run_name="__main__")
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else (0 if e.code is None else 1)
    except BaseException:
        code = 99
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        child(json.loads(line))
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
