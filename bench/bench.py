"""All benchmarks, or those named on the command line (boot, start, ...); results go to docs/benchmarks.

Only when it is named, ``restore`` prints a part of ``ipvs`` in a minute, for work on that alone.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack

from bench import boot, carried, containers, data_path, ipvs, library_imports, network, ports, start
from bench.harness import bench_sandbox, bounded

_ALONE = {
    "boot": boot.measure,
    "containers": containers.measure,
    "data-path": data_path.measure,
    "imports": library_imports.measure,
    "ports": ports.measure,
}
_ON_A_SANDBOX = {"start": start.measure, "network": network.measure, "carried": carried.measure, "ipvs": ipvs.measure}
_NAMED = {"restore": ipvs.show_restore}


def main() -> int:
    """Return the exit status."""
    wanted = sys.argv[1:] or [*_ALONE, *_ON_A_SANDBOX]
    for name in wanted:
        if name in _ALONE:
            with bounded(name):
                _ALONE[name]()
    with ExitStack() as stack:
        sandbox = None
        for name in wanted:
            if name not in _ALONE:
                sandbox = sandbox or stack.enter_context(bench_sandbox())
                with bounded(name):
                    (_ON_A_SANDBOX | _NAMED)[name](sandbox)
    return 0


if __name__ == "__main__":
    sys.exit(main())
