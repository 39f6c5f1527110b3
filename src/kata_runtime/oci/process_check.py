"""Checks an OCI process object for what crun would refuse without naming the field, or ignore."""

from __future__ import annotations

from kata_runtime.errors import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.oci.json_object import JsonObject

ID_MAX = (1 << 32) - 2  # the largest uid_t and gid_t; the number above means none (chown(2))


def check_process(process: JsonObject) -> None:
    """Check the program and the user of a process. :raise InputError: they are missing or impossible."""
    if not process.texts("args"):
        where = process.where if process.where.endswith(": ") else f"{process.where}."
        raise InputError(f"{where}args is missing", hint="it must begin with the program to run")
    process.texts("env")
    for kind in process.child("capabilities").fields:
        process.child("capabilities").texts(kind)
    user = process.child("user")
    for key in ("uid", "gid"):
        _check_id(f"{user.where}.{key}", user.number(key))
    for position, group in enumerate(user.numbers("additionalGids")):
        _check_id(f"{user.where}.additionalGids[{position}]", group)


def _check_id(where: str, number: int) -> None:
    if not 0 <= number <= ID_MAX:
        raise InputError(f"{where} is {number}", hint=f"it must be from 0 to {ID_MAX}")
