"""Python packages that only some commands need: found when such a command runs, never at the start of others.

    from kata_runtime.optional_packages import RICH, require

    require(RICH)               # raises the one line that says how to install it
    from rich.tree import Tree  # an ordinary import statement, which mypy understands

The program runs as ``python3 -IS``, without the site module and so without site-packages: ``require`` adds those of the
virtual environment that contains the program, or of the system's Python. Modules that use such a package import it at
their top and are themselves imported inside the function that has called ``require``. For another package add a
constant here, and its versions to ``tools`` or another extra in pyproject.toml and, with hashes, to requirements.lock.
"""

from __future__ import annotations

import os
import sys

from kata_runtime.errors import HostError
from kata_runtime.named_tuple import NamedTuple


class Package(NamedTuple):
    """``module`` is what Python imports, ``distribution`` pip's name of it, ``debian`` the Debian package with it."""

    module: str
    distribution: str
    debian: str


_added = False

RICH = Package("rich", "rich", "python3-rich")
OVSDBAPP = Package("ovsdbapp", "ovsdbapp", "python3-ovsdbapp")
OPENSTACKSDK = Package("openstack", "openstacksdk", "python3-openstacksdk")
PROMETHEUS_CLIENT = Package("prometheus_client", "prometheus-client", "python3-prometheus-client")


def require(package: Package) -> None:
    """Make ``package`` importable.

    :raise HostError: it is not installed, or cannot be imported.
    """
    from importlib import import_module

    add_site_packages()
    try:
        import_module(package.module)
    except ModuleNotFoundError as error:
        missing = (error.name or package.module).partition(".")[0]
        if missing != package.module:
            raise _broken(package, error) from error
        raise HostError(
            f"this command needs the Python package {package.distribution!a}, which is not installed",
            hint=f"install it with '{_installation(package)}'",
        ) from error
    except ImportError as error:
        raise _broken(package, error) from error


def add_site_packages() -> None:
    """Add the directories to sys.path that ``-S`` left out: of the virtual environment, or of the system's Python."""
    global _added
    if not sys.flags.no_site or _added:
        return
    import site

    environment = virtual_environment()
    if environment:
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        site.addsitedir(os.path.join(environment, "lib", version, "site-packages"))
    else:
        site.main()
    _added = True


def virtual_environment() -> str:
    """The directory of the virtual environment that the program belongs to; empty where it is in none.

    The program in ``bin`` of an environment runs by the interpreter that the environment was made with, which does not
    know of it.
    """
    if sys.prefix != sys.base_prefix:
        return sys.prefix
    for program in (sys.executable, os.path.realpath(sys.argv[0])):
        directory = os.path.dirname(os.path.dirname(program))
        if os.path.exists(os.path.join(directory, "pyvenv.cfg")):
            return directory
    return ""


def _broken(package: Package, error: ImportError) -> HostError:
    return HostError(
        f"the Python package {package.distribution!a} cannot be loaded: {error}",
        hint=f"install it again with '{_installation(package)}'",
    )


def _installation(package: Package) -> str:
    """A virtual environment has a pip of its own; Debian's Python refuses pip (PEP 668)."""
    environment = virtual_environment()
    if environment:
        return f"{environment}/bin/python3 -m pip install {package.distribution}"
    return f"apt-get install {package.debian}"
