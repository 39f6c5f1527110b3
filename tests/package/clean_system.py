"""A minimal Debian system in a directory, made of this host's apt sources, to install the package into."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from tests.system.image.private_apt import CODENAMES, apt_configuration

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_SECONDS = 900
# /dev, /proc and /sys are those of this host, in a mount namespace that ends with the command.
_ENTER = """
mount --rbind /dev "$1/dev" && mount -t proc proc "$1/proc" && mount -t sysfs sysfs "$1/sys" || exit
root=$1; shift; exec chroot "$root" "$@"
"""
Completed = subprocess.CompletedProcess[str]


class CleanSystem:
    """What a user has who has just installed Debian."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def attempt(self, *argv: str) -> Completed:
        """Run a command in it."""
        entered = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _ENTER, "sh", str(self.root), *argv]
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C.UTF-8",
            "DEBIAN_FRONTEND": "noninteractive",
        }
        return subprocess.run(
            entered, capture_output=True, text=True, timeout=_SECONDS, env=environment, input="", check=False
        )

    def run(self, *argv: str) -> Completed:
        """Run a command in it that must succeed."""
        done = self.attempt(*argv)
        assert done.returncode == 0, (argv, done.stdout, done.stderr)
        return done

    def files(self) -> set[str]:
        """Every path that is not apt's, dpkg's or the kernel's own business."""
        ignored = ["/proc", "/sys", "/dev", "/tmp", "/var/lib/apt", "/var/lib/dpkg", "/var/log"]
        ignored += ["/var/cache/apt", "/var/cache/debconf", "/var/cache/ldconfig", "/run/lock"]
        pruned = [word for path in ignored for word in ("-path", path, "-prune", "-o")]
        return set(self.run("find", "/", "-xdev", *pruned, "-print").stdout.splitlines())


def bootstrap(directory: Path, apt: Path, release: str) -> CleanSystem:
    """Make the minimal system of ``release`` in ``directory``; ``apt`` keeps the lists."""
    configuration = apt_configuration(apt, release)
    settings = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
    acquire = apt / "acquire.conf"
    acquire.write_text("".join(f"{line}\n" for line in settings.splitlines() if line.startswith("Acquire::")))
    sources = [str(path) for path in sorted((configuration.parent / "sources").iterdir())]
    argv: Sequence[str] = [
        "mmdebstrap", "--quiet", "--variant=minbase", "--format=directory", "--skip=cleanup/apt/lists",
        f"--aptopt={acquire}", CODENAMES[release], str(directory), *sources,
    ]  # fmt: skip
    subprocess.run(argv, env={**os.environ, "LC_ALL": "C.UTF-8"}, check=True, timeout=_SECONDS)
    return CleanSystem(directory)
