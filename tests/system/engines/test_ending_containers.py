"""Containers that end while a command acts on them."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

from tests.system.engines.conftest import SECONDS, Bundle, quiet, record_of

from kata_runtime.oci.guest_command import FreePort

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.system.conftest import Runtime

# Whether a process of the guest waits for the other end of a FIFO (fs/pipe.c).
_IN_FIFO = "grep -qs wait_for_partner /proc/[0-9]*/wchan"


def test_end_during_start(bundle: Bundle, engine_runtime: Runtime, unique: Callable[[str], str]) -> None:
    """When the container is killed while crun waits for its process, start ends within seconds."""
    name, cli = unique("b"), engine_runtime.cli
    bundle.write("/bin/sleep", "1000")
    try:
        assert quiet(engine_runtime.argv("create", "--bundle", str(bundle.directory), name)) == (0, "")
        record = record_of(engine_runtime.root, name)
        # Its messages are bounded as QEMU's are, by the reader of the same pipe.
        outputs = {os.readlink(f"/proc/{record[program]}/fd/2") for program in ("pid", "virtiofsd")}
        assert (len(outputs), outputs.pop()[:6]) == (1, "pipe:[")
        guest = FreePort(str(engine_runtime.root / name), name)
        # A FIFO that the process does not read, as if it were killed after crun has looked whether it runs.
        fifo = f"/run/crun/{name}/exec.fifo"
        assert guest.run(["sh", "-c", f"rm {fifo} && mkfifo {fifo}"]).exit_status == 0
        argv = engine_runtime.argv("start", name)
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as starting:
            assert guest.run(["sh", "-c", f"until {_IN_FIFO}; do :; done"]).exit_status == 0
            assert cli("kill", name, "KILL").returncode == 0
            killed = time.monotonic()
            _, stderr = starting.communicate(timeout=SECONDS)
        assert stderr == f"kata-runtime: container {name} ended before its program was started\n"
        # The deadline of a crun that hangs is 30 s.
        assert (starting.returncode, time.monotonic() - killed < 20) == (1, True)
    finally:
        deleted = cli("delete", "--force", name)
    assert (deleted.returncode, deleted.stdout, deleted.stderr) == (0, "", "")
