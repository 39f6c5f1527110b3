"""``lru_cache`` and ``partial`` without ``functools``, which takes 2 ms to import with the modules that it needs.

They are the C implementations that ``functools`` uses. ``cache_info()`` and ``typed`` are not supported.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from functools import lru_cache, partial
else:
    from _functools import _lru_cache_wrapper, partial

    def lru_cache(maxsize):
        """See ``functools.lru_cache``."""

        def cached(function):
            made = _lru_cache_wrapper(function, maxsize, False, tuple)
            made.__name__, made.__module__ = function.__name__, function.__module__
            made.__doc__, made.__wrapped__ = function.__doc__, function
            return made

        return cached


__all__ = ["lru_cache", "partial"]
