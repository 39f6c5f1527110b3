"""Files of rules: whole or not at all, whatever goes wrong."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from tests.system.ipvs.conftest import PREVIOUS, rule_lines

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.ipvs.conftest import Balancer


def _outcome(done: subprocess.CompletedProcess[str]) -> tuple[int, str, str]:
    return done.returncode, done.stdout, done.stderr


def test_twenty_thousand(balancer: Balancer, tmp_path: Path) -> None:
    """20,000 rules load into an empty table; the real program shows them; one more is refused and named."""
    lines = rule_lines(1000, 19)
    assert _outcome(balancer.restore("\n".join(lines))) == (0, "", "")
    saved = balancer.table()
    assert sorted(saved.splitlines()) == sorted(lines)
    assert balancer.ours("-S").stdout == saved
    assert balancer.ours("-Ln").stdout == balancer.real("-Ln").stdout
    done = balancer.ours("-A -t 10.250.0.1:80")
    assert _outcome(done) == (
        1,
        "",
        (
            "kata-runtime: the container has 20000 of 20000 possible rules, and would have 20001; services and "
            "servers both count; ipvs_rule_limit in the configuration raises the limit\n"
        ),
    )
    assert _outcome(balancer.restore("-A -t 10.250.0.1:80 -s rr\n")) == _outcome(done)
    assert _outcome(balancer.restore("\n".join([*lines, "-A -f 7"]), "--replace")) == _outcome(done)
    assert balancer.table() == saved
    assert _outcome(balancer.restore(saved, "--replace")) == (0, "", "")
    assert balancer.table() == saved
    balancer.do("-D -t 10.1.0.1:80", "-A -t 10.250.0.1:80 -s rr")
    # The container's own ipvsadm can make room, of which the kept number knows nothing.
    balancer.do(*(f"-A -t 10.250.0.{n}:80 -s rr" for n in range(2, 21)))
    assert balancer.ours("-A -t 10.250.0.21:80 -s rr").returncode == 1
    assert balancer.real("-D", "-t", "10.250.0.2:80").returncode == 0
    balancer.do("-A -t 10.250.0.21:80 -s rr")
    balancer.renew()


@pytest.mark.parametrize("line", [1, 999, 2000])
def test_conflict_leaves_the_table(balancer: Balancer, line: int) -> None:
    """A rule that contradicts the table, anywhere in the file: named by its line, nothing applied."""
    assert balancer.restore(PREVIOUS).returncode == 0
    before = balancer.table()
    lines = rule_lines(100, 19)
    lines[line - 1] = "-A -t 10.9.9.9:80 -s rr"
    done = balancer.restore("\n".join(lines) + "\n")
    assert (done.returncode, done.stdout) == (1, "")
    told = f"line {line}: '-A -t 10.9.9.9:80 -s rr': service TCP 10.9.9.9:80 exists already"
    assert done.stderr.splitlines()[0] == f"kata-runtime: standard input, {told}"
    assert balancer.table() == before


def test_two_at_once(balancer: Balancer) -> None:
    """Two batches at the same time on one container end as one after the other."""
    halves = [rule_lines(200, 9), [line.replace("10.1.", "10.3.") for line in rule_lines(200, 9)]]
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda lines: _outcome(balancer.restore("\n".join(lines))), halves))
    assert done == [(0, "", "")] * 2
    assert sorted(balancer.table().splitlines()) == sorted(halves[0] + halves[1])


def test_replace_touches_only_what_differs(balancer: Balancer) -> None:
    """--replace makes the file the table; what both have keeps its counters."""
    assert balancer.restore(PREVIOUS).returncode == 0
    wanted = "-A -t 10.9.9.9:80 -s wlc -p 60\n-a -t 10.9.9.9:80 -r 10.9.9.2:80 -m -w 1\n-A -u 10.9.9.9:53 -s rr\n"
    assert _outcome(balancer.restore(wanted, "--replace")) == (0, "", "")
    assert balancer.table() == wanted


_MANY = [b"-A -u 10.3.%d.%d:53" % divmod(number, 256) for number in range(20_001)]
_BAD_FILES = {
    "far duplicate": (
        b"\n".join([*_MANY[:18_999], _MANY[6], b""]),
        "standard input, line 19000: '-A -u 10.3.0.6:53': service UDP 10.3.0.6:53 exists already since line 7",
    ),
    "duplicate": (
        b"-A -t 10.0.0.1:80\n" + b"#\n" * 5 + b"-A -t 10.0.0.1:80 -s rr\n",
        "standard input, line 7: '-A -t 10.0.0.1:80 -s rr': service TCP 10.0.0.1:80 exists already since line 1",
    ),
    "binary": (b"\x7fELF\x80\n", "standard input, line 1: '\\x7fELF\\ufffd': it is not UTF-8 text"),
    "nul": (
        b"-A -t 10.0.0.1:80\0\n",
        "standard input, line 1: '-A -t 10.0.0.1:80\\x00': the command line holds control characters",
    ),
    "long line": (
        b"\n" + b"x" * 100_000,
        f"standard input, line 2: '{'x' * 80}': it has 100000 characters, a rule at most 4096",
    ),
    "listing": (
        b"-L\n",
        "standard input, line 1: '-L': only services and servers can be added, edited and deleted by a file",
    ),
    "unknown service": (
        b"-a -t 10.0.0.1:80 -r 10.0.0.2:80\n",
        "standard input, line 1: '-a -t 10.0.0.1:80 -r 10.0.0.2:80': service TCP 10.0.0.1:80 does not exist",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", _BAD_FILES)
def test_bad_files(balancer: Balancer, name: str) -> None:
    """Every wrong line is named with what is wrong, and nothing is applied."""
    data, problem = _BAD_FILES[name]
    assert _outcome(balancer.restore(data)) == (
        1,
        "",
        f"kata-runtime: {problem}\nkata-runtime: 1 line of standard input cannot be applied; nothing was changed\n",
    )
    assert balancer.table() == ""


def test_one_too_many(balancer: Balancer) -> None:
    """20,001 rules for an empty table are refused with the numbers, and none is applied."""
    assert _outcome(balancer.restore(b"\n".join(_MANY))) == (
        1,
        "",
        (
            "kata-runtime: the container has 0 of 20000 possible rules, and would have 20001; services and "
            "servers both count; ipvs_rule_limit in the configuration raises the limit\n"
        ),
    )
    assert balancer.table() == ""


def test_unreadable_files(balancer: Balancer, tmp_path: Path) -> None:
    """A line of 1 GB, a directory and a missing file are refused in one line, and nothing changes."""
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate(1 << 30)
    for path, reason in (
        (huge, f"{huge} is larger than 64 MiB"),
        (tmp_path, f"cannot read {tmp_path}: Is a directory"),
        (tmp_path / "none", f"cannot read {tmp_path / 'none'}: No such file or directory"),
    ):
        done = balancer.sandbox.cli("kata-ipvs", "ipvsadm", "--restore", str(path), "--replace", balancer.sandbox.id)
        assert _outcome(done) == (1, "", f"kata-runtime: {reason}\n")
    assert balancer.table() == ""


def test_many_bad_lines(balancer: Balancer) -> None:
    """Of many wrong lines the first twenty are shown, and all are counted."""
    done = balancer.restore("nonsense\n" * 100)
    lines = done.stderr.splitlines()
    assert (done.returncode, len(lines)) == (1, 21)
    assert lines[-1] == "kata-runtime: 100 lines of standard input cannot be applied; nothing was changed"


def test_forgiving_files(balancer: Balancer) -> None:
    """A byte order mark, CRLF, comments, empty lines and a missing final newline do no harm."""
    data = b"\xef\xbb\xbf# rules\r\n\r\n-A -t 10.0.0.1:80 -s rr\r\n  -a -t 10.0.0.1:80 -r 10.0.0.2:80"
    assert _outcome(balancer.restore(data)) == (0, "", "")
    assert balancer.table() == "-A -t 10.0.0.1:80 -s rr\n-a -t 10.0.0.1:80 -r 10.0.0.2:80 -g -w 1\n"


def test_closed_input(balancer: Balancer) -> None:
    """Without an input at all nothing changes."""
    assert balancer.restore(PREVIOUS).returncode == 0
    before = balancer.table()
    argv = balancer.sandbox.runtime.argv("kata-ipvs", "ipvsadm", "--restore", "-", "--replace", balancer.sandbox.id)
    closed = ["sh", "-c", 'exec "$@" <&-', "sh", *argv]
    done = subprocess.run(closed, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr == ("kata-runtime: cannot read standard input: Bad file descriptor\n")
    assert balancer.table() == before
