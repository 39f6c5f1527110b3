"""What an ``update`` changes of a container's limits."""

from __future__ import annotations

# Docker 20.10 sends 0 and "" for what its user did not name, and runc leaves such limits as they are. crun would refuse
# a kernel memory of 0, or set the others. 0 is a value of its own for memory.swappiness and pids.limit.
_UNCHANGED_IF_EMPTY = {
    "memory": ("limit", "reservation", "swap", "kernel", "kernelTCP"),
    "cpu": ("shares", "quota", "period", "realtimeRuntime", "realtimePeriod", "cpus", "mems"),
    "blockIO": ("weight", "leafWeight"),
}


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
