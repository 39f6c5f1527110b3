"""``typing.NamedTuple`` without ``typing``, whose import takes half as long as the interpreter's start.

A class body, base classes and all that follow from them are as with the original: fields in the order of their
annotations, defaults, methods, properties, ``_replace``, ``_asdict``, ``_make``, ``_fields``, ``_field_defaults``.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple
else:
    from _collections import _tuplegetter

    class _Maker(type):
        """Makes a subclass of tuple from the body of a class."""

        def __new__(mcs, name, bases, namespace):
            if not bases:
                return super().__new__(mcs, name, bases, namespace)
            fields = tuple(namespace.get("__annotations__", ()))
            defaults = {field: namespace[field] for field in fields if field in namespace}
            if tuple(defaults) != fields[len(fields) - len(defaults) :]:
                raise TypeError(f"{name}: a field without a default follows one with a default")
            namespace.update(_members(fields, defaults))
            return type(name, (tuple,), namespace)

    def _members(fields, defaults):
        names = "".join(f"{field}, " for field in fields)
        # One evaluated expression, as collections.namedtuple does it: calls are as fast as those of a plain function.
        make = eval(f"lambda _class, {names}: _new(_class, ({names}))", {"_new": tuple.__new__})
        make.__name__ = "__new__"
        make.__defaults__ = tuple(defaults.values())
        members = {field: _tuplegetter(place, "") for place, field in enumerate(fields)}
        return members | {
            "__slots__": (),
            "__new__": make,
            "__match_args__": fields,
            "__repr__": _representation,
            "__getnewargs__": _arguments,
            "_fields": fields,
            "_field_defaults": defaults,
            "_make": classmethod(_make),
            "_replace": _replace,
            "_asdict": _asdict,
        }

    def _representation(self):
        values = ", ".join(f"{field}={value!r}" for field, value in zip(self._fields, self, strict=True))
        return f"{type(self).__name__}({values})"

    def _arguments(self):
        return tuple(self)

    def _make(cls, values):
        made = tuple.__new__(cls, values)
        if len(made) != len(cls._fields):
            raise TypeError(f"{cls.__name__} has {len(cls._fields)} fields, not {len(made)}")
        return made

    def _replace(self, /, **changed):
        replaced = self._make(map(changed.pop, self._fields, self))
        if changed:
            raise TypeError(f"{type(self).__name__} has no field {', '.join(changed)}")
        return replaced

    def _asdict(self):
        return dict(zip(self._fields, self, strict=True))

    class NamedTuple(metaclass=_Maker):
        """See ``typing.NamedTuple``; the functional form is there, too."""

        def __new__(cls, name, fields):
            return _Maker(name, (cls,), {"__annotations__": dict(fields)})


__all__ = ["NamedTuple"]
