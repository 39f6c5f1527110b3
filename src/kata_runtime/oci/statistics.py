"""A container's resource usage in the format of ``runc events --stats`` (types/events.go of runc)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.guest.crun import Usage

_NANOSECONDS = 1000  # nanoseconds in a microsecond


def statistics(container_id: str, usage: Usage) -> dict[str, object]:
    """The stats event: times in nanoseconds, sizes in bytes, limits 0 if there is none."""
    cpu = usage.cpu
    return {
        "type": "stats",
        "id": container_id,
        "data": {
            "cpu": {
                "usage": {
                    "total": cpu.get("usage_usec", 0) * _NANOSECONDS,
                    "kernel": cpu.get("system_usec", 0) * _NANOSECONDS,
                    "user": cpu.get("user_usec", 0) * _NANOSECONDS,
                },
                "throttling": {
                    "periods": cpu.get("nr_periods", 0),
                    "throttledPeriods": cpu.get("nr_throttled", 0),
                    "throttledTime": cpu.get("throttled_usec", 0) * _NANOSECONDS,
                },
            },
            "memory": {
                "usage": {
                    "limit": usage.memory_limit or 0,
                    "usage": usage.memory_current,
                    "failcnt": usage.memory_events.get("max", 0),
                },
                "raw": usage.memory,
            },
            "pids": {"current": usage.pids_current, "limit": usage.pids_limit or 0},
        },
    }
