"""A build interrupted between any two of its steps leaves one whole image, and the next build leaves nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.unit.guest.image.images import content, image_files

from kata_runtime.guest.image.install import prepare

if TYPE_CHECKING:
    from pathlib import Path

# Each attempt is a child that sends itself the signal before its Nth call into C, where the system calls are, or, for
# one that Python handles, raises as the program's own handler does; the last one meets no signal.
_ATTEMPTS = """
import json, os, shutil, signal, sys
from pathlib import Path
from kata_runtime.guest.image.install import install
from tests.unit.guest.image.images import content, image_files, make_image

root, number = Path(sys.argv[1]), int(sys.argv[2])

class Interrupted(BaseException):
    pass

def interrupt(number, frame):
    raise Interrupted

def attempt(step):
    left = step
    def count(frame, event, argument):
        nonlocal left
        if event == "c_call" and frame.f_code.co_filename.endswith("install.py"):
            left -= 1
            if left == 0:
                sys.setprofile(None)
                os.kill(os.getpid(), number)
    signal.signal(signal.SIGTERM, interrupt)
    status = 0
    try:
        sys.setprofile(count)
        install(root / str(step) / "image", image_files(b"new kernel"))
    except Interrupted:
        status = 3
    finally:
        sys.setprofile(None)
        os._exit(status)

ends = {}
step = 0
while True:
    step += 1
    (root / str(step)).mkdir()
    make_image(root / str(step) / "image", b"old kernel")
    pid = os.fork()
    if pid == 0:
        attempt(step)
    ends[step] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if ends[step] == 0:
        break
print(json.dumps(ends))
"""
_FEWEST_STEPS = 60


@pytest.mark.parametrize(("number", "end"), [(9, -9), (15, 3)], ids=["SIGKILL", "SIGTERM"])
def test_one_whole_image_after_a_signal_at_any_step(tmp_path: Path, number: int, end: int) -> None:
    """Old or new, the image is whole after a signal at each step, and both are met; the next build cleans up."""
    argv = [sys.executable, "-c", _ATTEMPTS, str(tmp_path), str(number)]
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    ends = {int(step): status for step, status in json.loads(done.stdout).items()}
    assert len(ends) > _FEWEST_STEPS
    *interrupted, last = ends.items()
    assert (dict(interrupted), last) == (dict.fromkeys(range(1, len(ends)), end), (len(ends), 0))
    old, new = image_files(b"old kernel"), image_files(b"new kernel")
    found = [content(tmp_path / str(step) / "image") for step in ends]
    first_new = found.index(new)
    assert found == [old] * first_new + [new] * (len(ends) - first_new)
    for step in ends:
        prepare(tmp_path / str(step) / "image")
        assert list((tmp_path / str(step)).iterdir()) == [tmp_path / str(step) / "image"]
