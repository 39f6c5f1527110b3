"""A container that an engine creates in a mount namespace of its own, as Podman does for a user namespace."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.system.engines.conftest import NOTHING, Host, quiet

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.system.conftest import Runtime
    from tests.system.engines.conftest import Bundle


def test_joining_a_container_of_another_mount_namespace(
    bundle: Bundle, engine_runtime: Runtime, unique: Callable[[str], str]
) -> None:
    """Its files could not reach the VM: so a second container is refused by name, and the first one is well."""
    owner, member = unique("owner"), unique("member")
    cli, host = engine_runtime.cli, Host(engine_runtime.root)
    bundle.write("/bin/sleep", "1000")
    create = engine_runtime.argv("create", "--bundle", str(bundle.directory))
    try:
        assert quiet(["unshare", "--mount", "--propagation", "private", *create, owner]) == (0, "")
        assert cli("start", owner).stderr == ""
        before = host.traces()
        bundle.namespace("network", f"/proc/{json.loads(cli('state', owner).stdout)['pid']}/ns/net")
        reason = f"container {owner} was created in a mount namespace of its own, which no other can join"
        hint = "Podman does so when a container has a user namespace"
        assert quiet([*create, member]) == (1, f"kata-runtime: {reason}; {hint}\n")
        assert host.traces() == before
        assert cli("exec", owner, "echo", "well").stdout == "well\n"
    finally:
        deleted = [cli("delete", "--force", name) for name in (member, owner)]
    assert [(done.returncode, done.stderr) for done in deleted] == [(0, "")] * 2
    assert host.left() == NOTHING
