"""How many rules a container has and may have: services and servers both count."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_runtime.errors import LimitError

if TYPE_CHECKING:
    from kata_runtime.ipvs.engine import Engine
    from kata_runtime.sandbox.session import Session


def admit(session: Session, engine: Engine, more: int) -> int:
    """Let a change by ``more`` rules pass, or refuse it; how many there are before it.

    The number is kept in the record and counted anew only where it would refuse: the container's own ipvsadm
    can have deleted rules since.

    :raise LimitError: there would be too many.
    """
    limit, present = session.record.ipvs_rule_limit, session.record.ipvs_rules
    if present is None or (more > 0 and present + more > limit):
        present = engine.count()
        session.save(session.record._replace(ipvs_rules=present))
    check(present, present + more, limit)
    return present


def check(present: int, wanted: int, limit: int) -> None:
    """Refuse more rules than the container may have; fewer than before are fine in any case.

    :raise LimitError: with the numbers.
    """
    if wanted > max(limit, present):
        raise LimitError(
            f"the container has {present} of {limit} possible rules, and would have {wanted}",
            limit=limit,
            hint="services and servers both count; ipvs_rule_limit in the configuration raises the limit",
        )
