"""Replaces crun in crun's tests: removes crun's own options from a command line, and runs the runtime.

A program of its own, without the project's packages, since it is started for each command. Its first arguments are the
runtime, its root and its configuration; the rest is what the test gave.

Many of the tests' containers have no network namespace: they would have the host's network, which no VM can have. Those
get a new one, so that whatever else they test is tested.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Any

_VALUES = ("--cgroup-manager", "--root", "--config")


def translated(words: list[str]) -> tuple[list[str], dict[str, str]]:
    """A command line for the runtime, and the options of crun that it does not have."""
    kept: list[str] = []
    taken: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        if word in _VALUES:
            taken[word] = next(rest, "")
        else:
            kept.append(word)
            if kept[0] == "exec":
                kept.extend(rest)
    return kept, taken


def with_network(config: dict[str, Any]) -> dict[str, Any]:
    """A config.json with a network namespace, where it has none, and does not set what is the host's without one."""
    namespaces = config["linux"]["namespaces"]
    is_about_it = any(name.startswith("net.") for name in config["linux"].get("sysctl", ()))
    if not is_about_it and not any(namespace["type"] == "network" for namespace in namespaces):
        namespaces.append({"type": "network"})
    return config


def matching(words: list[str], names: list[str]) -> list[list[str]]:
    """A command line with ``--regex EXPRESSION`` as one for each of ``names`` that matches."""
    at = words.index("--regex")
    expression = re.compile(words[at + 1])
    return [[*words[:at], *words[at + 2 :], name] for name in names if expression.search(name)]


def _for_each(program: str, options: list[str], words: list[str]) -> int:
    listed = subprocess.run([program, *options, "list", "--quiet"], capture_output=True, text=True, check=True)
    commands = matching(words, listed.stdout.split())
    return max(
        (subprocess.run([program, *options, *command], check=False).returncode for command in commands), default=0
    )


def main() -> None:
    """Execute the runtime."""
    program, root, settings, *words = sys.argv[1:]
    kept, taken = translated(words)
    options = ["--root", root, "--kata-config", settings]
    if taken.get("--cgroup-manager") == "systemd":
        options.append("--systemd-cgroup")
    if "--regex" in kept:
        sys.exit(_for_each(program, options, kept))
    if "--config" in taken:
        # crun takes a config.json from elsewhere; the specification has it in the bundle.
        with open(taken["--config"]) as file:
            config = with_network(json.load(file))
        with open("config.json", "w") as file:
            json.dump(config, file)
        kept[1:1] = ["--bundle", "."]
    os.execv(program, [program, *options, *kept])


if __name__ == "__main__":
    main()
