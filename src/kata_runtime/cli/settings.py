"""What the global options of a call, its environment and the defaults add up to."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.cli.argument_parser import Call

DEFAULT_ROOT = "/run/kata-runtime"


def root_of(call: Call) -> str:
    """The directory of the sandboxes' state: absolute and without links, since names and users are derived from it."""
    return os.path.realpath(call.settings.get("--root", DEFAULT_ROOT))


def config_path_of(call: Call) -> str | None:
    """The configuration file that was asked for; None leaves the choice to the default."""
    return call.settings.get("--kata-config") or os.environ.get("KATA_CONF_FILE") or None
