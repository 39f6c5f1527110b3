"""``contextmanager``, ``closing``, ``suppress`` and ``ExitStack`` without ``contextlib`` and what it imports.

Importing all that takes a third as long as starting the interpreter. The functions behave as the originals, except that
the result of ``contextmanager`` cannot be used as a decorator, and ``ExitStack`` has no ``push``.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import ExitStack, closing, contextmanager, suppress
else:

    class _GeneratorContext:
        """The context manager that a function decorated with ``contextmanager`` returns."""

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

    class _Closing:
        """See ``contextlib.closing``."""

        __slots__ = ("_closed",)

        def __init__(self, closed):
            self._closed = closed

        def __enter__(self):
            return self._closed

        def __exit__(self, *_):
            self._closed.close()

    closing = _Closing

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

    class ExitStack:
        """See ``contextlib.ExitStack``."""

        def __init__(self):
            self._callbacks = []

        def __enter__(self):
            return self

        def __exit__(self, kind, value, traceback):
            received = kind is not None
            suppressed = False
            try:
                while self._callbacks:
                    function, arguments, named = self._callbacks.pop()
                    if arguments is not None:
                        function(*arguments, **named)
                    elif function(kind, value, traceback):
                        kind = value = traceback = None
                        suppressed = True
            except BaseException as raised:
                # The remaining callbacks run inside this handler: so this error is the __context__ of a later one.
                if not self.__exit__(type(raised), raised, raised.__traceback__):
                    raise
                suppressed = True
            return received and suppressed

        def enter_context(self, manager):
            """Enter ``manager``, which is left when the stack is closed."""
            entered = manager.__enter__()
            self._callbacks.append((manager.__exit__, None, None))
            return entered

        def callback(self, function, /, *arguments, **named):
            """Register ``function`` to be called when the stack is closed."""
            self._callbacks.append((function, arguments, named))
            return function

        def pop_all(self):
            """Move all callbacks to a new stack and return it."""
            moved = ExitStack()
            moved._callbacks, self._callbacks = self._callbacks, []
            return moved

        def close(self):
            """Call the callbacks now, the last one first."""
            self.__exit__(None, None, None)


__all__ = ["ExitStack", "closing", "contextmanager", "suppress"]
