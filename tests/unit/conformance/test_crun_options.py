"""crun's own options on the command lines of its tests."""

from __future__ import annotations

import json

import pytest
from conformance.crun_options import matching, translated, with_network


@pytest.mark.parametrize(
    ("given", "kept", "taken"),
    [
        (
            ["--cgroup-manager", "cgroupfs", "--root", "R", "run", "--config", "config.json", "--detach", "c"],
            ["run", "--detach", "c"],
            {"--cgroup-manager": "cgroupfs", "--root": "R", "--config": "config.json"},
        ),
        (
            ["--root", "R", "exec", "c", "prog", "--config", "f"],
            ["exec", "c", "prog", "--config", "f"],
            {"--root": "R"},
        ),
    ],
)
def test_options_of_crun_are_taken_out(given: list[str], kept: list[str], taken: dict[str, str]) -> None:
    """What the runtime has not is taken out; a command in a container keeps all its words."""
    assert translated(given) == (kept, taken)


def test_a_network_namespace_is_added() -> None:
    """A container without one gets a new one; one that has it keeps it."""
    added = {"linux": {"namespaces": [{"type": "mount"}, {"type": "network"}]}}
    assert with_network({"linux": {"namespaces": [{"type": "mount"}]}}) == added
    given = {"linux": {"namespaces": [{"type": "network", "path": "/n"}]}}
    assert with_network({"linux": {"namespaces": [{"type": "network", "path": "/n"}]}}) == given


def test_what_is_about_the_hosts_network_is_left() -> None:
    """A container without a network namespace that sets a sysctl of the network keeps what the test is about."""
    given = {"linux": {"namespaces": [{"type": "mount"}], "sysctl": {"net.a": "1"}}}
    assert with_network(json.loads(json.dumps(given))) == given


def test_an_expression_for_names() -> None:
    """A command with an expression is one for each name in which it is found."""
    words = ["delete", "-f", "--regex", "test-*"]
    assert matching(words, ["test-a", "b", "my-test"]) == [["delete", "-f", "test-a"], ["delete", "-f", "my-test"]]
