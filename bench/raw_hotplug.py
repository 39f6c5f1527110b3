"""Prints how many seconds a raw hot-plug takes: ROOT ID as arguments; runs in the namespace of the TAP."""

from __future__ import annotations

import sys

from bench.network import raw_hotplug_of

if __name__ == "__main__":
    print(raw_hotplug_of(sys.argv[1], sys.argv[2]))
