"""``functools.lru_cache`` without ``functools``, whose import with what it brings along takes 2 ms.

CPython's own function below it; what it makes can be called and has no statistics.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from functools import lru_cache
else:
    from _functools import _lru_cache_wrapper

    def lru_cache(maxsize):
        """See ``functools.lru_cache``."""

        def cached(function):
            made = _lru_cache_wrapper(function, maxsize, False, tuple)
            made.__name__, made.__module__ = function.__name__, function.__module__
            made.__doc__, made.__wrapped__ = function.__doc__, function
            return made

        return cached


__all__ = ["lru_cache"]
