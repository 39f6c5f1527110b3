"""All benchmarks, or those named on the command line (network, carried, ipvs); results go to docs/benchmarks."""

from __future__ import annotations

import sys

from bench import carried, ipvs, network
from bench.harness import bench_sandbox

_PARTS = {"network": network.measure, "carried": carried.measure, "ipvs": ipvs.measure}


def main() -> int:
    """Return the exit status."""
    wanted = sys.argv[1:] or list(_PARTS)
    with bench_sandbox() as sandbox:
        for name in wanted:
            _PARTS[name](sandbox)
    return 0


if __name__ == "__main__":
    sys.exit(main())
