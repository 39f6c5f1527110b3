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

    _new = tuple.__new__

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

    # By number of fields. Compiling one for each class would take longer than all else that makes a class.
    _MAKERS = (
        lambda _class: _new(_class, ()),
        lambda _class, a: _new(_class, (a,)),
        lambda _class, a, b: _new(_class, (a, b)),
        lambda _class, a, b, c: _new(_class, (a, b, c)),
        lambda _class, a, b, c, d: _new(_class, (a, b, c, d)),
        lambda _class, a, b, c, d, e: _new(_class, (a, b, c, d, e)),
        lambda _class, a, b, c, d, e, f: _new(_class, (a, b, c, d, e, f)),
        lambda _class, a, b, c, d, e, f, g: _new(_class, (a, b, c, d, e, f, g)),
        lambda _class, a, b, c, d, e, f, g, h: _new(_class, (a, b, c, d, e, f, g, h)),
        lambda _class, a, b, c, d, e, f, g, h, i: _new(_class, (a, b, c, d, e, f, g, h, i)),
        lambda _class, a, b, c, d, e, f, g, h, i, j: _new(_class, (a, b, c, d, e, f, g, h, i, j)),
        lambda _class, a, b, c, d, e, f, g, h, i, j, k: _new(_class, (a, b, c, d, e, f, g, h, i, j, k)),
    )

    def _members(fields, defaults):
        # A function of its own for each class, as collections.namedtuple does it: calls are as fast as plain ones.
        if len(fields) < len(_MAKERS):
            code = _MAKERS[len(fields)].__code__.replace(co_varnames=("_class", *fields))
        else:
            names = "".join(f"{field}, " for field in fields)
            code = eval(f"lambda _class, {names}: _new(_class, ({names}))").__code__
        make = type(_members)(code, {"_new": _new}, "__new__", tuple(defaults.values()))
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
