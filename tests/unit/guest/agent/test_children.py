"""Reaping in one place, in a process of its own: every child of the calling process is reaped."""

from __future__ import annotations

import json
import subprocess
import sys

_SCRIPT = """
import json, os, sys
from kata_runtime.guest.agent.children import Children
from kata_runtime.guest.agent.loop import Loop

class Done(BaseException):
    pass

loop = Loop()
children = Children(loop)
seen = {}

def end(name, last):
    def ended(status):
        seen[name] = status
        if set(seen) >= last:
            raise Done
    return ended

def run(*argv):
    return os.posix_spawnp(argv[0], argv, os.environ)

def serve():
    try:
        loop.run()
    except Done:
        pass

# A child, and one that a signal ends.
children.expect(run("sh", "-c", "exit 7"), end("child", {"child", "killed"}))
children.expect(run("sh", "-c", "kill -9 $$"), end("killed", {"child", "killed"}))
serve()

# An orphan that ends before it is adopted, and one that ends afterwards.
children.begin_adoption()
read_end, write_end = os.pipe()
os.set_inheritable(write_end, True)
script = f"(sleep 0.1; exit 3) & echo $! >&{write_end}; (sleep 0.6; exit 4) & echo $! >&{write_end}"
children.expect(run("sh", "-c", script), end("parent", {"parent"}))
serve()
early, late = os.read(read_end, 100).split()
children.adopt(int(late), end("late", {"late"}))
serve()
children.adopt(int(early), end("early", {"none"}))
children.end_adoption()
print(json.dumps(seen))
"""


def test_children_and_orphans() -> None:
    """Children and orphans are reaped with their exact statuses, also an orphan that ended before it was adopted."""
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"child": 7, "killed": -9, "parent": 0, "late": 4, "early": 3}
