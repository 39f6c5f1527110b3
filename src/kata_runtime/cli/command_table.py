"""The table of all commands, with their options, operands and handlers.

argparse is not used, since importing it and building its parsers takes as long as starting the interpreter, and clients
run these commands many times a second.
"""

from __future__ import annotations

from kata_runtime.cli import handlers
from kata_runtime.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kata_runtime.cli.argument_parser import Call

PROGRAM = "kata-runtime"


class Option(NamedTuple):
    """An option; ``metavar`` is None for a flag; with ``many`` it can be given repeatedly.

    ``seconds_max`` is the largest value of an option that takes seconds.
    """

    name: str
    metavar: str | None
    help: str
    short: str = ""
    many: bool = False
    choices: tuple[str, ...] = ()
    seconds_max: int = 0


class Command(NamedTuple):
    """A command; of its ``operands``, ``[X]`` is optional; ``[X...]`` and the one before take the rest unparsed."""

    words: tuple[str, ...]
    operands: tuple[str, ...]
    summary: str
    handler: Callable[[Call], int]
    options: tuple[Option, ...] = ()

    @property
    def name(self) -> str:
        """For example ``kata-network add-iface``."""
        return " ".join(self.words)

    @property
    def usage(self) -> str:
        """The usage line of the command."""
        shown = [f"[{_spelled(option)}]{'...' if option.many else ''}" for option in self.options]
        return " ".join((PROGRAM, *self.words, *shown, *self.operands))


GLOBAL_OPTIONS = (
    Option("--root", "DIR", "where sandboxes keep their state (default: /run/kata-runtime)"),
    Option("--kata-config", "FILE", "the configuration.toml to use (or KATA_CONF_FILE in the environment)"),
    Option(
        "--lock-timeout",
        "SECONDS",
        "how long to wait while another command works on the container (default: 120)",
        seconds_max=86_400,
    ),
    Option("--log", "FILE", "append a log of what was done to FILE"),
    Option(
        "--log-format",
        "FORMAT",
        "log as text or json, one record on each line (default: text)",
        choices=("text", "json"),
    ),
    Option("--systemd-cgroup", None, "cgroupsPath has the form slice:prefix:name, which engines use with systemd"),
    Option("--debug", None, "log in detail; without --log to standard error"),
)

_ID = "<container-id>"
_OVSDB = Option("--ovsdb", "ADDRESS", "Open vSwitch's database (default: unix:/run/openvswitch/db.sock)")
_PROCESS_FILES = (
    Option("--pid-file", "FILE", "write the pid of its process on this host to FILE"),
    Option("--console-socket", "SOCKET", "send the terminal's master to SOCKET"),
)
_PRESERVED = Option("--preserve-fds", "N", "number of further descriptors to pass on: only 0 is possible")
_LIST_FORMAT = Option(
    "--format", "FORMAT", "print json, or a table for people (default: json)", "-f", choices=("json", "table")
)
_DRY_RUN = Option("--dry-run", None, "only check, and print what would be done as a list in JSON")
COMMANDS = (
    Command(
        ("kata-network", "add-iface"),
        (_ID, "FILE"),
        "add a host NIC to a running container",
        handlers.network,
        (_DRY_RUN,),
    ),
    Command(
        ("kata-network", "list-ifaces"), (_ID,), "list the NICs that were added", handlers.network, (_LIST_FORMAT,)
    ),
    Command(
        ("kata-network", "del-iface"),
        (_ID, "[FILE]"),
        "remove a NIC that was added",
        handlers.network,
        (Option("--name", "NIC", "the NIC's name in the container, in place of FILE"), _DRY_RUN),
    ),
    Command(("kata-network", "add-route"), (_ID, "FILE"), "add routes, all or none", handlers.network, (_DRY_RUN,)),
    Command(
        ("kata-network", "del-route"),
        (_ID, "FILE"),
        "delete the routes that match, all or none",
        handlers.network,
        (_DRY_RUN,),
    ),
    Command(("kata-network", "list-routes"), (_ID,), "list the main routing table", handlers.network, (_LIST_FORMAT,)),
    Command(
        ("kata-network", "update-routes"),
        (_ID, "FILE"),
        "replace all routes that the kernel did not make",
        handlers.network,
        (_DRY_RUN,),
    ),
    Command(
        ("kata-network", "add-port"),
        (_ID, "PORT|FILE"),
        "make a NIC for a port of Neutron, or in a bridge of this host",
        handlers.network,
        (
            Option("--name", "NIC", "with PORT: name in the container (default: the first free of eth0, eth1, ...)"),
            Option("--migrate", None, "with PORT: take it over from the host that it is bound to"),
            Option("--cloud", "NAME", "with PORT: the cloud in clouds.yaml (default: OS_CLOUD and other OS_*)"),
            Option("--bridge", "BRIDGE", "plug a NIC as FILE describes it into this Linux bridge"),
            Option("--ovs", "BRIDGE", "plug a NIC as FILE describes it into this bridge of Open vSwitch"),
            Option("--iface-id", "ID", "with --ovs: what its controller, such as OVN, knows the port by"),
            _OVSDB,
            _DRY_RUN,
        ),
    ),
    Command(
        ("kata-network", "list-ports"),
        (_ID,),
        "list the NICs that add-port added",
        handlers.network,
        (_LIST_FORMAT,),
    ),
    Command(
        ("kata-network", "del-port"),
        (_ID, "PORT"),
        "remove a NIC that add-port added, and its port",
        handlers.network,
        (_DRY_RUN,),
    ),
    Command(
        ("kata-network", "show"),
        ("[<container-id>]",),
        "show NICs, routes, host devices, bridges and traffic; of all containers without an ID",
        handlers.show,
        (
            Option(
                "--format",
                "FORMAT",
                "print text, json, dot for Graphviz, or svg (default: text)",
                "-f",
                choices=("text", "json", "dot", "svg"),
            ),
            Option(
                "--interval", "SECONDS", "how long to measure traffic (default: 1; 0: not at all)", seconds_max=3600
            ),
        ),
    ),
    Command(
        ("kata-ipvs", "ipvsadm"),
        (_ID,),
        "change or list virtual servers as ipvsadm does",
        handlers.ipvs,
        (
            Option("--parameters", "ARGUMENTS", "one command of ipvsadm, quoted as one word"),
            Option("--restore", "FILE", "apply rules, one a line, all or none (- is standard input)"),
            Option("--replace", None, "with --restore: the rules become the whole table"),
            Option(
                "--format",
                "FORMAT",
                "print text as ipvsadm does, or json (default: text)",
                choices=("text", "json"),
            ),
            _DRY_RUN,
        ),
    ),
    Command(
        ("kata-ipvs", "top"),
        (_ID,),
        "show virtual servers with their connections and rates, live",
        handlers.ipvs,
        (
            Option("--once", None, "print the table once, as when the output is not a terminal"),
            Option("--interval", "SECONDS", "time between updates (default: 2)", seconds_max=3600),
            Option(
                "--sort",
                "ORDER",
                "order by address, active, inactive, connections/s, bytes/s or weight (default: address)",
                choices=("address", "active", "inactive", "connections/s", "bytes/s", "weight"),
            ),
        ),
    ),
    Command(
        ("kata-ipvs", "cleanup"),
        (_ID,),
        "delete connection-tracking entries",
        handlers.ipvs,
        (Option("--parameters", "ARGUMENTS", "-d|--orig-dst IP -p|--protonum tcp|udp, quoted as one word"), _DRY_RUN),
    ),
    Command(
        ("image", "build"),
        (),
        "build the guest kernel and initrd",
        handlers.image,
        (
            Option("--destination", "DIR", "where to put them (default: /var/lib/kata-runtime/image)"),
            Option("--include", "PACKAGE", "add a distribution package to the guest", many=True),
            Option("--kernel", "FILE", "use this kernel"),
            Option("--modules", "DIR", "use these kernel modules"),
            Option("--if-outdated", None, "do nothing when this version's image is there already"),
        ),
    ),
    Command(("image", "clean"), (), "remove the templates of booted machines that make run fast", handlers.image),
    Command(
        ("run",),
        ("[ID]",),
        "boot a sandbox with its pause container, or run a container of a bundle",
        handlers.lifecycle,
        (
            Option("--detach", None, "return when it runs (required without a bundle)", "-d"),
            Option("--bundle", "DIR", "run the container that DIR/config.json describes", "-b"),
            *_PROCESS_FILES,
            _PRESERVED,
        ),
    ),
    Command(
        ("list",),
        (),
        "list sandboxes and containers",
        handlers.lifecycle,
        (
            Option("--format", "FORMAT", "print a table or json (default: table)", "-f", choices=("table", "json")),
            Option("--quiet", None, "only the IDs", "-q"),
        ),
    ),
    Command(("state",), ("ID",), "the state of a container as OCI JSON", handlers.lifecycle),
    Command(
        ("create",),
        ("ID",),
        "create a container from a bundle",
        handlers.oci,
        (
            Option("--bundle", "DIR", "the directory of its config.json (default: the current one)", "-b"),
            *_PROCESS_FILES,
            _PRESERVED,
            Option("--no-pivot", None, "has no effect: crun enters the root in the guest"),
            Option("--no-new-keyring", None, "has no effect: the guest has keyrings of its own"),
        ),
    ),
    Command(("start",), ("ID",), "start a created container", handlers.oci),
    Command(
        ("exec",),
        ("ID", "[CMD]", "[ARG...]"),
        "run a command in a container",
        handlers.lifecycle,
        (
            Option("--process", "FILE", "the command as an OCI process object", "-p"),
            Option("--detach", None, "return when it runs", "-d"),
            Option("--tty", None, "give it a terminal", "-t"),
            Option("--cwd", "DIR", "its working directory"),
            Option("--user", "UID[:GID]", "run as this user (default: the container's)", "-u"),
            Option("--additional-gids", "GID", "further group of it", "-g", many=True),
            Option("--cap", "CAP", "further capability of it", "-c", many=True),
            Option("--cgroup", "PATH", "run in this cgroup within the container's (default: the container's)"),
            Option("--no-new-privs", None, "the process cannot gain privileges by executing programs"),
            Option("--env", "NAME=VALUE", "add to its environment", "-e", many=True),
            *_PROCESS_FILES,
            _PRESERVED,
        ),
    ),
    Command(
        ("kill",),
        ("ID", "[SIGNAL]"),
        "send a signal to a container (default: TERM)",
        handlers.lifecycle,
        (Option("--all", None, "send it to all processes of the container", "-a"),),
    ),
    Command(
        ("ps",),
        ("ID",),
        "list a container's processes",
        handlers.oci,
        (
            Option(
                "--format",
                "FORMAT",
                "print a table of those in the guest, or json of the host's (default: table)",
                "-f",
                choices=("table", "json"),
            ),
        ),
    ),
    Command(("pause",), ("ID",), "freeze a container's processes until resume", handlers.oci),
    Command(("resume",), ("ID",), "resume a paused container's processes", handlers.oci),
    Command(
        ("update",),
        ("ID",),
        "change a container's limits",
        handlers.oci,
        (Option("--resources", "FILE", "the limits, linux.resources as JSON (- is standard input)", "-r"),),
    ),
    Command(
        ("events",),
        ("ID",),
        "print a container's resource usage and events, one line of JSON each, until it ends",
        handlers.oci,
        (
            Option("--stats", None, "print its resource usage once"),
            Option("--interval", "SECONDS", "time between two of them (default: 5)"),
        ),
    ),
    Command(
        ("metrics",),
        (),
        "print the metrics of all containers for Prometheus, or serve or write them",
        handlers.metrics,
        (
            Option("--listen", "ADDRESS", "serve them over HTTP at PORT of the loopback address, or at HOST:PORT"),
            Option("--textfile", "FILE", "replace FILE by them in one step, as for node_exporter"),
        ),
    ),
    Command(("features",), (), "what this runtime can do, as JSON", handlers.oci),
    Command(
        ("spec",),
        (),
        "write an example config.json",
        handlers.oci,
        (Option("--bundle", "DIR", "where to write it (default: the current directory)", "-b"),),
    ),
    Command(
        ("delete",),
        ("ID",),
        "remove a stopped container and every trace of it",
        handlers.lifecycle,
        (Option("--force", None, "kill it first if it runs", "-f"),),
    ),
    Command(
        ("kata-check",),
        (),
        "check whether this host can run sandboxes, or a container's NICs work, with remedies",
        handlers.check,
        (
            Option("--network", "ID", "check the NICs of this container instead of the host"),
            Option("--format", "FORMAT", "print a table or json (default: table)", "-f", choices=("table", "json")),
            Option("--renew", None, "forget whether KVM works here: the next sandbox tries it again"),
        ),
    ),
    Command(
        ("kata-env",),
        (),
        "show the programs, image and settings that sandboxes use here",
        handlers.check,
        (Option("--json", None, "as JSON instead of a table"),),
    ),
    Command(("completion", "bash"), (), "print the script that completes command lines in bash", handlers.completion),
    Command(("completion", "zsh"), (), "print the script that completes command lines in zsh", handlers.completion),
    Command(("completion", "fish"), (), "print the script that completes command lines in fish", handlers.completion),
    Command(
        ("completion", "candidates"),
        ("[WORD]", "[WORD...]"),
        "print the completions of the last word of a command line, for the scripts",
        handlers.completion,
    ),
)


def _spelled(option: Option) -> str:
    return option.name if option.metavar is None else f"{option.name} {option.metavar}"
