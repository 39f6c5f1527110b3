"""Functions of the C library that Python 3.11 lacks, called without ``ctypes``, whose import takes 4 ms.

Source: ctypes itself, of which ``_ctypes`` is the part that calls.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


# glibc's, which this process has loaded (libc(7)).
_LIBRARY = "libc.so.6"


def c_function(name: str) -> Callable[..., int]:
    """A function of the C library, by its ``name``, that returns an int, or -1 and sets errno: that raises OSError.

    Integers are passed as int, bytes as a pointer to them, None as NULL.
    """
    from _ctypes import FUNCFLAG_CDECL, FUNCFLAG_USE_ERRNO, CFuncPtr, dlopen, dlsym, get_errno

    class Function(CFuncPtr):
        # Without the type of a result it is an int.
        _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO

    function = Function(dlsym(dlopen(_LIBRARY, os.RTLD_NOW), name))

    def call(*arguments: int | bytes | None) -> int:
        result = int(function(*arguments))
        if result < 0:
            number = get_errno()
            raise OSError(number, os.strerror(number))
        return result

    return call
