"""Routes by the thousand: commands as a user types them, next to `ip` in the guest."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.system.conftest import nic

from bench.harness import in_guest, machine, medians, run, seconds, table, write
from kata_runtime.sandbox.record import load_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.system.conftest import Sandbox

_ROUTES = 2000
_TAP = "routes0"


def measure(sandbox: Sandbox) -> None:
    """Write docs/benchmarks/network.md."""
    namespace = sandbox.runtime.namespace
    assert namespace is not None
    namespace.tap(_TAP, "10.0.0.1/16")
    document = json.dumps(nic(_TAP, "eth0", "10.0.0.3/16")).encode()
    run(sandbox.runtime.argv("kata-network", "add-iface", sandbox.id, "-"), document)
    rows = _routes(sandbox)
    run(sandbox.runtime.argv("kata-network", "del-iface", sandbox.id, "-"), document)
    namespace.run("ip", "link", "delete", _TAP)
    text = f"# Routes\n\n{machine(load_record(str(sandbox.directory)).accelerator)} `make bench` writes this file.\n\n"
    text += f"## {_ROUTES} routes in one list\n\n"
    text += "`ip` is timed inside the guest; ours with its whole start-up, from outside.\n\n"
    text += table(["what", "ours", "`ip -batch`", "ratio"], rows)
    write("network.md", text)


def _routes(sandbox: Sandbox) -> list[list[str]]:
    networks = [f"10.{100 + number // 256}.{number % 256}.0/24" for number in range(_ROUTES)]
    rows = [{"dest": network, "gateway": "10.0.0.1", "device": "eth0"} for network in networks]
    data = json.dumps(rows).encode()
    batches = {
        verb: "".join(f"route {verb} {network} via 10.0.0.1 dev eth0\n" for network in networks).encode()
        for verb in ("add", "del")
    }

    def ours(verb: str) -> Callable[[], float]:
        words = ["kata-network", verb, sandbox.id, *(["-"] if verb != "list-routes" else [])]
        argv = sandbox.runtime.argv(*words)
        return lambda: seconds(lambda: run(argv, data))

    # By its path: the shell of the guest, busybox, has an ip of its own and prefers that.
    def real(words: str, data: bytes = b"") -> Callable[[], float]:
        return lambda: in_guest(sandbox, f"/bin/ip {words} >/dev/null", data)

    steps = {
        "add": ours("add-route"),
        "list": ours("list-routes"),
        "delete": ours("del-route"),
        "real add": real("-batch -", data=batches["add"]),
        "real list": real("-j route show"),
        "real delete": real("-batch -", data=batches["del"]),
    }
    found = medians(steps)
    return [
        [name, f"{found[name]:.2f} s", f"{found[f'real {name}']:.2f} s", f"{found[name] / found[f'real {name}']:.2f}"]
        for name in ("add", "list", "delete")
    ]
