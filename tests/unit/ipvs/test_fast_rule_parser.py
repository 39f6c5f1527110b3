"""The quick reading of usual rules against the grammar, which has the last word."""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_pton

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.ipvs.strategies import server_specs, service_keys, service_specs

from kata_runtime.errors import InputError
from kata_runtime.ipvs import fast_rule_parser, saved_rules
from kata_runtime.ipvs.ipvsadm_grammar import parse
from kata_runtime.ipvs.model import (
    AddServer,
    AddService,
    DeleteServer,
    DeleteService,
    EditServer,
    EditService,
    Forwarding,
    Protocol,
    Rule,
    ServerKey,
    ServerSpec,
    ServiceFlag,
    ServiceKey,
    ServiceSpec,
)

_TCP = ServiceKey(AF_INET, Protocol.TCP, bytes([10, 0, 0, 1]), 80)
_ANY_PORT = _TCP._replace(port=0)
_UDP6 = ServiceKey(AF_INET6, Protocol.UDP, inet_pton(AF_INET6, "fd00::1"), 53)
_SCTP = ServiceKey(AF_INET, Protocol.SCTP, bytes([10, 0, 0, 1]), 9)
_NEAR = ServerKey(AF_INET, bytes([10, 0, 0, 2]), 80)
_NEAR6 = ServerKey(AF_INET6, inet_pton(AF_INET6, "fd00::2"), 53)
_FULL, _FULL6 = 0xFFFFFFFF, 128

_USUAL: dict[str, Rule] = {
    "-A -t 10.0.0.1:80": AddService(ServiceSpec(_TCP, "wlc", 0, 0, _FULL)),
    "-A -t 10.0.0.1:80 -s rr": AddService(ServiceSpec(_TCP, "rr", 0, 0, _FULL)),
    "-E -u [fd00::1]:53 -s mh": EditService(ServiceSpec(_UDP6, "mh", 0, 0, _FULL6)),
    "-A --sctp-service 10.0.0.1:9 -s sh -p 300": AddService(
        ServiceSpec(_SCTP, "sh", ServiceFlag.PERSISTENT, 300, _FULL)
    ),
    "-A -t 10.0.0.1:0 -p 2678400": AddService(ServiceSpec(_ANY_PORT, "wlc", ServiceFlag.PERSISTENT, 2_678_400, _FULL)),
    "-A -t 10.0.0.1 -p 1": AddService(ServiceSpec(_ANY_PORT, "wlc", ServiceFlag.PERSISTENT, 1, _FULL)),
    "-D -t 10.0.0.1:80": DeleteService(_TCP),
    "-a -t 10.0.0.1:80 -r 10.0.0.2:80": AddServer(_TCP, ServerSpec(_NEAR, Forwarding.ROUTE, 1)),
    "-a -t 10.0.0.1:80 -r 10.0.0.2:8080": AddServer(_TCP, ServerSpec(_NEAR, Forwarding.ROUTE, 1)),
    "-a -t 10.0.0.1:80 -r 10.0.0.2:8080 -m -w 65535": AddServer(
        _TCP, ServerSpec(_NEAR._replace(port=8080), Forwarding.MASQUERADE, 65535)
    ),
    "-e -t 10.0.0.1:80 -r 10.0.0.2:8080 -g -w 0": EditServer(_TCP, ServerSpec(_NEAR, Forwarding.ROUTE, 0)),
    "-e -u [fd00::1]:53 -r [fd00::2]:53 -i": EditServer(_UDP6, ServerSpec(_NEAR6, Forwarding.TUNNEL, 1)),
    "-a -t 10.0.0.1:80 -r 10.0.0.2:0 -m": AddServer(_TCP, ServerSpec(_NEAR._replace(port=0), Forwarding.MASQUERADE, 1)),
    "-a -t 10.0.0.1:80 -r 10.0.0.2:80 -w 3": AddServer(_TCP, ServerSpec(_NEAR, Forwarding.ROUTE, 3)),
    "-d -t 10.0.0.1:80 -r 10.0.0.2:8080": DeleteServer(_TCP, _NEAR._replace(port=8080)),
}


@pytest.mark.parametrize("line", _USUAL)
def test_usual_forms(line: str) -> None:
    """Each usual form is read quickly, and exactly as the grammar reads it."""
    assert (fast_rule_parser.read(line), parse(line, forwarding=Forwarding.ROUTE)) == (_USUAL[line], _USUAL[line])


@pytest.mark.parametrize(
    "line",
    [
        "",
        "-C",
        "# -A -t 10.0.0.1:80",
        "-A -f 1",
        "-A -t 10.0.0.1:0",
        "-A -t 10.0.0.1:80 -s none",
        "-A -t 10.0.0.1:80 -p 0",
        "-A -t 10.0.0.1:80 -p 2678401",
        "-A -t 10.0.0.1:80 -p",
        "-A -t 10.0.0.1:80 -o",
        "-A -t 10.0.0.1:80\r",
        " -A -t 10.0.0.1:80",
        "-A  -t 10.0.0.1:80",
        "-A\t-t 10.0.0.1:80",
        "-A -t '10.0.0.1:80'",
        "-A -t 10.0.0.1:65536",
        "-A -t fd00::1:80",
        "-a -t 10.0.0.1:80 -r 10.0.0.2",
        "-a -t 10.0.0.1:80 -r 10.0.0.2:80 -m -w 65536",
        "-a -t 10.0.0.1:80 -r 10.0.0.2:80 -m -w -1",
        "-a -t 10.0.0.1:80 -r 10.0.0.2:80 -m -w \u0665",
        "-a -t 10.0.0.1:80 -r 10.0.0.2:80 -w 1 -m",
        "-a -t 10.0.0.1:80 -r 10.0.0.2:80 -m -g",
        "-a -t 10.0.0.1:80 -r [fd00::2]:80 -i",
        "-a -t 10.0.0.1:80 -r 10.0.0.2:80 -m -w 1 -x 5",
        "-d -t 10.0.0.1:80 -r 10.0.0.2:80 -w 1",
        "-D -t 10.0.0.1:80 -s rr",
        f"-A -t {'0' * 70}:80",
    ],
)
def test_left_to_the_grammar(line: str) -> None:
    """What is wrong or merely unusual is not read quickly."""
    assert fast_rule_parser.read(line) is None


def _mostly(usual: str, odd: list[str]) -> st.SearchStrategy[str]:
    """Nine times out of ten one of the usual words."""
    words = usual.split()
    return st.integers(0, 9).flatmap(lambda luck: st.sampled_from(words if luck else odd))


_ODD_COMMANDS = ["-C", "-Z", "--add-server", "-At", "-a\t", "\ufeff-a", "- a", ""]
_FOR_SERVICES, _FOR_SERVERS = _mostly("-A -A -E -D -a", _ODD_COMMANDS), _mostly("-a -a -e -d -A", _ODD_COMMANDS)
_SERVICE_OPTIONS = _mostly("-t -u --sctp-service", ["-f", "--tcp-service", "-T", "-t=", ""])
_ODD_ENDS = [
    "10.0.0.1", "10.0.0.1:", "10.0.0.1:0", "10.0.0.1:00080", "10.0.0.1:65536", "10.0.0.1:\u0665", "10.0.0.1:+8",
    "10.0.0.1:-1", "10.0.0.1:1_0", "10.0.0.1:80:90", "010.0.0.1:80", "10.1:80", "10.0.0.1%lo:80", "[fd00::1]",
    "[fd00::1]:", "[fd00::1]:0", "[fd00::1]53", "[fd00::1", "fd00::1", "[10.0.0.1]:80", "[fe80::1%lo]:53", "web:80",
    "'10.0.0.1:80'", "10.0.0.1:80\r", "10.0.0.1:80\0", "10.0.0.1:" + "0" * 60 + "80", "1", "",
]  # fmt: skip
_ENDS = _mostly("10.0.0.1:80 10.0.0.2:65535 [fd00::1]:53 [::ffff:10.0.0.1]:1", _ODD_ENDS)
_SERVER_OPTIONS = _mostly("-r", ["--real-server", "-R", "-r10.0.0.2:80", ""])
_REST = [
    "-m", "-g", "-i", "-w", "-s", "-p", "-x", "-y", "-o", "-6", "-M", "--pe", "-b", "rr", "wlc", "twos", "RR", "''",
    "0", "1", "-1", "-0", "+1", "00", "007", "300", "65535", "65536", "9999999", "99999999", "2678400", "2678401",
    "\u0665", "\u00b2", "1.0", "1_0", "'1'", '"1"', "\\1", "#", "255.255.255.0", "sip", "", "\t", "\r", "\u00a0",
]  # fmt: skip
_FOR_SERVICE = _mostly("-s@rr -s@rr@-p@300 -p@1 -s@wlc@-p@2678400 -w@1", _REST)
_FOR_SERVER = _mostly("-m -g -i -w@1 -m@-w@65535 -i@-w@0 -m@-w@00000 -s@rr", _REST)
_SEPARATORS = st.sampled_from([" "] * 24 + ["  ", "\t", "\u00a0", "\n"])


@st.composite
def _lines(draw: st.DrawFn) -> str:
    """Mostly the shape of a rule, of words that may be wrong, with an odd separator now and then."""
    is_server = draw(st.booleans())
    words = [draw(_FOR_SERVERS if is_server else _FOR_SERVICES), draw(_SERVICE_OPTIONS), draw(_ENDS)]
    if is_server:
        words += [draw(_SERVER_OPTIONS), draw(_ENDS)]
    for tail in draw(st.lists(_FOR_SERVER if is_server else _FOR_SERVICE, max_size=2)):
        words += tail.split("@")
    text = words[0]
    for word in words[1:]:
        text += draw(_SEPARATORS) + word
    return text + draw(st.sampled_from([""] * 12 + ["\r", " ", "\0", "'"]))


@st.composite
def _nearly_right(draw: st.DrawFn) -> str:
    """A saved rule with a word exchanged, repeated, taken away or put in."""
    if draw(st.booleans()):
        words = saved_rules.add_service(draw(service_specs())).split(" ")
    else:
        key = draw(service_keys())
        words = saved_rules.add_server(key, draw(_servers(key))).split(" ")
    place = draw(st.integers(0, len(words)))
    pool = st.sampled_from(_ODD_ENDS + _REST + words)
    words[place : place + draw(st.integers(0, 1))] = draw(st.lists(pool, max_size=2))
    return " ".join(words)


def _servers(key: ServiceKey) -> st.SearchStrategy[ServerSpec]:
    specs: st.SearchStrategy[ServerSpec] = server_specs(key)
    return specs


@settings(max_examples=400)
@given(st.one_of(_lines(), _nearly_right()))
def test_never_otherwise_than_the_grammar(line: str) -> None:
    """Whatever line is read quickly, the grammar reads as the same rule of the same type."""
    rule = fast_rule_parser.read(line)
    try:
        expected = parse(line, forwarding=Forwarding.ROUTE)
    except InputError:
        assert rule is None
    else:
        assert rule is None or (type(rule), rule) == (type(expected), expected)


@given(service_specs(), st.data())
def test_saved_rules_are_usual(spec: ServiceSpec, data: st.DataObject) -> None:
    """Plain services, and servers without thresholds and tunnels, are read from what -S writes of them."""
    key = spec.key._replace(mark=0) if spec.key.address else _TCP
    plain = ServiceSpec(
        key,
        spec.scheduler,
        spec.flags & ServiceFlag.PERSISTENT,
        spec.timeout,
        _FULL if key.family == AF_INET else _FULL6,
    )
    assert fast_rule_parser.read(saved_rules.add_service(plain)) == AddService(plain)
    # -S writes the kind of tunnel: that has options of its own.
    direct = _servers(key).filter(lambda server: server.forwarding != Forwarding.TUNNEL)
    server = data.draw(direct)._replace(upper=0, lower=0)
    assert fast_rule_parser.read(saved_rules.add_server(key, server)) == AddServer(key, server)
    assert fast_rule_parser.read(f"-D {saved_rules.key_words(key)}") == DeleteService(key)
