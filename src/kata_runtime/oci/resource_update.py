"""The limits of a container (``linux.resources``): their types, and what an ``update`` changes of them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.oci.json_object import JsonObject

# Numbers; crun ignores them as strings.
_NUMBERS = {
    "memory": ("limit", "reservation", "swap", "kernel", "kernelTCP", "swappiness"),
    "cpu": ("shares", "quota", "period", "realtimeRuntime", "realtimePeriod"),
    "pids": ("limit",),
    "blockIO": ("weight", "leafWeight"),
}

# Docker 20.10 sends 0 and "" for what its user did not name, and runc leaves such limits as they are. crun would refuse
# a kernel memory of 0, or set the others. 0 is a value of its own for memory.swappiness and pids.limit.
_UNCHANGED_IF_EMPTY = {
    "memory": ("limit", "reservation", "swap", "kernel", "kernelTCP"),
    "cpu": ("shares", "quota", "period", "realtimeRuntime", "realtimePeriod", "cpus", "mems"),
    "blockIO": ("weight", "leafWeight"),
}


def check_resources(resources: JsonObject) -> None:
    """Refuse limits of a wrong type. :raise InputError: there is one."""
    for group, limits in _NUMBERS.items():
        for limit in limits:
            resources.child(group).number(limit)
    for name in ("cpus", "mems"):
        resources.child("cpu").text(name)


def changed_resources(resources: dict[str, object]) -> dict[str, object]:
    """``linux.resources`` of the runtime specification without devices, and without limits that stay as they are."""
    changed = {key: value for key, value in resources.items() if key != "devices"}
    for name, limits in _UNCHANGED_IF_EMPTY.items():
        if isinstance(group := changed.get(name), dict):
            kept = {key: value for key, value in group.items() if value not in (0, "") or key not in limits}
            changed[name] = kept
            if not kept:
                del changed[name]
    return changed
