"""Container IDs, and which sandbox of a root one means."""

from __future__ import annotations

import os

from kata_runtime.errors import ContainerError, HostError, InputError

_ID_LENGTH = 64  # hexadecimal digits, as container engines make them
_ID_MAX = 128
_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_REST = _FIRST | frozenset("_+.-")


def new_id() -> str:
    """A fresh random ID."""
    return os.urandom(_ID_LENGTH // 2).hex()


def check_id(text: str) -> str:
    """``text``, when a container can be called that.

    :raise InputError: it cannot.
    """
    if text and len(text) <= _ID_MAX and text[0] in _FIRST and _REST.issuperset(text):
        return text
    raise InputError(
        f"container ID {_shown(text)} is not possible",
        hint=f"1 to {_ID_MAX} characters of A-Z a-z 0-9 _ + . - are, the first a letter or digit",
    )


def sandbox_ids(root: str) -> list[str]:
    """IDs of all sandboxes below ``root``, sorted.

    :raise HostError: the directory cannot be read.
    """
    try:
        with os.scandir(root) as entries:
            return sorted(
                entry.name
                for entry in entries
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
            )
    except FileNotFoundError:
        return []
    except OSError as error:
        raise HostError(f"cannot read {root}: {error.strerror}", errno=error.errno or 0) from error


def resolve(root: str, text: str) -> str:
    """The ID that ``text`` is or unambiguously begins.

    :raise ContainerError: there is none, or there are several.
    """
    ids = sandbox_ids(root)
    if text in ids:
        return text
    matching = [candidate for candidate in ids if text and candidate.startswith(text)]
    if len(matching) == 1:
        return matching[0]
    if not matching:
        raise ContainerError(
            f"container {_shown(text)} does not exist",
            container=text,
            hint="'kata-runtime list' shows those that do",
        )
    shown = ", ".join(matching[:3]) + (", ..." if len(matching) > 3 else "")
    raise ContainerError(
        f"container {_shown(text)} is ambiguous: it could be {shown}",
        container=text,
        hint="give more of the ID",
    )


def _shown(text: str) -> str:
    return ascii(text if len(text) <= _ID_MAX else f"{text[:_ID_MAX]}...")
