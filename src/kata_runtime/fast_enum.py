"""``enum.StrEnum`` and ``enum.IntEnum`` without ``enum``, whose import takes a third of the interpreter's start.

Members have ``name`` and ``value``; they compare, hash, print and are encoded in JSON as their text or number. Calling
the class with a value returns its member, and iterating over it returns them in order. There are no flags or aliases.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from enum import IntEnum, StrEnum
else:

    class _Maker(type):
        """The metaclass: it turns the texts or numbers in the body of a class into members."""

        def __new__(mcs, name, bases, namespace):
            made = super().__new__(mcs, name, bases, namespace)
            members = {}
            plain = bases[0].__bases__[0] if isinstance(bases[0], _Maker) else object
            for key, value in namespace.items():
                if type(value) is plain and key[0] != "_":
                    member = plain.__new__(made, value)
                    member.name, member.value = key, value
                    setattr(made, key, member)
                    members[value] = member
            made._members = members
            return made

        def __call__(cls, value):
            try:
                return cls._members[value]
            except (KeyError, TypeError):
                raise ValueError(f"{value!r} is not a valid {cls.__name__}") from None

        def __iter__(cls):
            return iter(cls._members.values())

    class StrEnum(str, metaclass=_Maker):
        """See ``enum.StrEnum``."""

        __slots__ = ("name", "value")

        def __repr__(self):
            return f"<{type(self).__name__}.{self.name}: {self.value!r}>"

    class IntEnum(int, metaclass=_Maker):
        """See ``enum.IntEnum``."""

        __repr__ = StrEnum.__repr__
        __str__ = int.__repr__
        __format__ = int.__format__


__all__ = ["IntEnum", "StrEnum"]
