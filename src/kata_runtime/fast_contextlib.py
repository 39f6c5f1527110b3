"""Two of ``contextlib``, whose import with what it brings along takes a third as long as the interpreter's start.

``contextmanager`` and ``suppress`` behave as the originals, but what the former makes is no decorator.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import contextmanager, suppress
else:

    class _GeneratorContext:
        """One use of a function made by ``contextmanager``."""

        __slots__ = ("_generator",)

        def __init__(self, generator):
            self._generator = generator

        def __enter__(self):
            try:
                return next(self._generator)
            except StopIteration:
                raise RuntimeError("generator didn't yield") from None

        def __exit__(self, kind, value, traceback):
            if kind is None:
                try:
                    next(self._generator)
                except StopIteration:
                    return False
                self._generator.close()
                raise RuntimeError("generator didn't stop")
            if value is None:
                value = kind()
            try:
                self._generator.throw(value)
            except StopIteration as ended:
                return ended is not value
            except RuntimeError as raised:
                # A StopIteration that passes through a generator comes out as the cause of another error (PEP 479).
                if raised is not value and not (isinstance(value, StopIteration) and raised.__cause__ is value):
                    raise
                value.__traceback__ = traceback
                return False
            except BaseException as raised:
                if raised is not value:
                    raise
                value.__traceback__ = traceback
                return False
            self._generator.close()
            raise RuntimeError("generator didn't stop after throw()")

    def contextmanager(function):
        """See ``contextlib.contextmanager``."""

        def made(*arguments, **named):
            return _GeneratorContext(function(*arguments, **named))

        made.__name__, made.__qualname__, made.__module__ = (
            function.__name__,
            function.__qualname__,
            function.__module__,
        )
        made.__doc__, made.__wrapped__ = function.__doc__, function
        return made

    class _Suppression:
        """See ``contextlib.suppress``."""

        __slots__ = ("_kinds",)

        def __init__(self, *kinds):
            self._kinds = kinds

        def __enter__(self):
            return None

        def __exit__(self, kind, value, traceback):
            return kind is not None and issubclass(kind, self._kinds)

    suppress = _Suppression


__all__ = ["contextmanager", "suppress"]
