"""The handlers of the table of commands; each imports the module of its command only when it is called."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.cli.argument_parser import Call


def network(call: Call) -> int:
    """kata-network."""
    from kata_runtime.cli import network_commands

    return network_commands.run(call)


def show(call: Call) -> int:
    """kata-network show."""
    from kata_runtime.cli import show_command

    return show_command.run(call)


def ipvs(call: Call) -> int:
    """kata-ipvs."""
    from kata_runtime.cli import ipvs_commands

    return ipvs_commands.run(call)


def check(call: Call) -> int:
    """kata-check and kata-env."""
    from kata_runtime.cli import check_commands

    return check_commands.run(call)


def image(call: Call) -> int:
    """image build."""
    from kata_runtime.cli import image_commands

    return image_commands.run(call)


def lifecycle(call: Call) -> int:
    """Commands for sandboxes and containers alike."""
    from kata_runtime.cli import lifecycle_commands

    return lifecycle_commands.run(call)


def metrics(call: Call) -> int:
    """metrics."""
    from kata_runtime.cli import metrics_command

    return metrics_command.run(call)


def oci(call: Call) -> int:
    """Commands for containers of engines."""
    from kata_runtime.cli import oci_commands

    return oci_commands.run(call)


def completion(call: Call) -> int:
    """completion."""
    from kata_runtime.cli import completion_commands

    return completion_commands.run(call)
