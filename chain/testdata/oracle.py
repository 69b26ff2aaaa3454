# Asks the installed duplicity how it understands file names.
# stdin: a JSON list of listings, each a list of names. stdout: a JSON list of
# what it makes of each, "died" where it gives up.
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
        self.names = [n.encode("utf-8", "surrogateescape") for n in names]

    def list(self):
        return self.names


def times(s):
    return "%d" % s.time if s.type == "full" else "%d-%d" % (s.start_time, s.end_time)


def sets(chain):
    return [chain.fullset] + chain.incset_list


def status(names):
    try:
        c = dup_collections.CollectionsStatus(Backend(names), archive, "collection-status").set_values()
    except Exception:
        return "died"
    return {
        "chains": [[times(s) for s in sets(ch)] for ch in c.all_backup_chains],
        "volumes": [[len(s) for s in sets(ch)] for ch in c.all_backup_chains],
        "orphaned": [times(s) for s in c.orphaned_backup_sets],
        "incomplete": [times(s) for s in c.incomplete_backup_sets],
    }


json.dump([status(names) for names in json.load(sys.stdin)], sys.stdout)
