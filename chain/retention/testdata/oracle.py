# Asks the installed duplicity which chains its removal commands choose.
# stdin: a JSON list of {"names": [...], "time": seconds, "n": number}.
import json, sys, tempfile

from duplicity import config, dup_collections, dup_time, file_naming, log, path

log.setup()
log.setverbosity(0)
dup_time.setcurtime(2000000000)
file_naming.prepare_regex()
archive = path.Path(tempfile.mkdtemp())
config.archive_dir_path = archive


class Backend(object):
    def __init__(self, names):
        self.names = [n.encode() for n in names]

    def list(self):
        return self.names


def ask(q):
    c = dup_collections.CollectionsStatus(Backend(q["names"]), archive, "remove-older-than").set_values()
    nth = c.get_nth_last_full_backup_time(q["n"])
    old = lambda t: [ch.end_time for ch in c.get_chains_older_than(t)] if t else []
    return {
        "active": c.matched_chain_pair[1].end_time if c.matched_chain_pair else 0,
        "chains": old(q["time"]),
        "needed": [s.get_time() for s in c.get_older_than_required(q["time"])],
        "nth": nth or 0,
        "all_but_n": old(nth),
    }


json.dump([ask(q) for q in json.load(sys.stdin)], sys.stdout)
