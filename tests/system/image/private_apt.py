"""A private apt directory for another Debian release, from the sources and keyrings that this host's apt has."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

CODENAMES = {"12": "bookworm", "13": "trixie"}
_APT = Path("/etc/apt")


def this_release() -> str:
    """The number of this host's release, for example ``12``."""
    return platform.freedesktop_os_release()["VERSION_ID"]


def other_release() -> str:
    """The number of the supported release that this host does not have."""
    (other,) = CODENAMES.keys() - {this_release()}
    return other


def apt_configuration(directory: Path, release: str) -> Path:
    """Make ``directory`` apt's for ``release``, with fresh lists; the file for apt's variable APT_CONFIG.

    What is fetched once stays in ``directory``. Everything else (proxies, logins) is the host's own.
    """
    sources = directory / "sources"
    for made in (sources, directory / "state/lists/partial", directory / "cache/archives/partial"):
        made.mkdir(parents=True, exist_ok=True)
    before, after = CODENAMES[this_release()], CODENAMES[release]
    for path in (_APT / "sources.list", *sorted((_APT / "sources.list.d").glob("*"))):
        text = path.read_text() if path.suffix in {".list", ".sources"} and path.is_file() else ""
        if re.search(rf"\b{before}\b", text):
            (sources / path.name).write_text(re.sub(rf"\b{before}\b", after, text))
    settings = {
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": str(sources),
        # The host's may pin packages of its own release.
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State": f"{directory}/state",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": f"{directory}/cache",
    }
    configuration = directory / "apt.conf"
    configuration.write_text("".join(f'{name} "{value}";\n' for name, value in settings.items()))
    environment = {**os.environ, "APT_CONFIG": str(configuration)}
    subprocess.run(["apt-get", "--quiet=2", "update"], env=environment, check=True)
    return configuration
