"""Settings that follow from a call's global options, the environment and the defaults."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.cli.argument_parser import Call

DEFAULT_ROOT = "/run/kata-runtime"


def root_of(call: Call) -> str:
    """The root directory of sandboxes: absolute and without links, since names and users are derived from it."""
    return os.path.realpath(call.settings.get("--root", DEFAULT_ROOT))


def config_path_of(call: Call) -> str | None:
    """The configuration file of the options or environment; None for the default."""
    return call.settings.get("--kata-config") or os.environ.get("KATA_CONF_FILE") or None


def ovsdb_of(call: Call) -> str:
    """The address of Open vSwitch's database: of --ovsdb, or else of the configuration.

    The path of a socket is made absolute: the command that deletes a port may have another working directory.

    :raise HostError, InputError: the configuration cannot be read, or is invalid.
    """
    given = call.value("--ovsdb")
    if given is None:
        from kata_runtime.cli.streams import note
        from kata_runtime.sandbox.config import load_config

        given = load_config(config_path_of(call), note).ovsdb
    scheme, _, path = given.partition(":")
    return f"{scheme}:{os.path.abspath(path)}" if scheme == "unix" and path else given
