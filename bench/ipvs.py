"""Virtual servers by the thousand: ours, the real ipvsadm in the same guest, and the kernel's own time."""

from __future__ import annotations

import statistics
import struct
import time
from functools import partial
from typing import TYPE_CHECKING

from tests.system.conftest import PROGRAM, booted, measured

from bench.harness import ROUNDS, Taken, in_guest, in_turns, machine, ratio, run, run_silently, seconds, table, write
from bench.plot import Axis, bars, chart
from kata_runtime.ipvs.commands import open_engine
from kata_runtime.ipvs.rules import outcome, parse_rules
from kata_runtime.netlink.exchange import attempt_all
from kata_runtime.netlink.transport import Family
from kata_runtime.sandbox.record import load_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tests.system.conftest import Sandbox

    from kata_runtime.netlink.transport import Block

_SIZES = (1_000, 4_000, 20_000)
_REAL, _PAIR, _ALL = ("ours", "ipvsadm"), ("floor", "ours"), ("floor", "ours", "ipvsadm")
# One run of the floor can take twice as long as another, also on an idle machine.
_PAIRS = 31
_STEP, _STEPS = 20_000, 5
_MANY = 200_000
_FEWER, _MORE = f"{_SIZES[-1]:,} rules", f"{_MANY:,} rules"
_LISTINGS = 15
_REAL_ONE = f"ipvsadm, {_MORE}"
_SERVERS = 19  # of each service
_LENGTH = struct.Struct("<I")
# Sends blocks that were made before and waits for each one's acknowledgement: the least a client can do.
_SENDER = """
import socket, struct, time
data = open("/tmp/blocks", "rb").read()
opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16)
opened.setsockopt(socket.SOL_SOCKET, 32, 1 << 20)  # SO_SNDBUFFORCE
opened.bind((0, 0))
start = time.perf_counter()
offset = 0
while offset < len(data):
    size, = struct.unpack_from("<I", data, offset)
    opened.send(data[offset + 4:offset + 4 + size])
    answer = opened.recv(65536)
    assert len(answer) == 36 and answer[16:20] == bytes(4), answer
    offset += 4 + size
print(time.perf_counter() - start)
"""


class _Noting:
    """A transport that keeps the blocks instead of sending them."""

    def __init__(self, kept: list[bytes]) -> None:
        self._kept = kept

    def exchange(self, _family: Family, blocks: Iterable[Block]) -> Iterator[bytes]:
        """No answer to any of them."""
        for block in blocks:
            self._kept.append(block.data)
            yield b""


# IPVS as in a new container. The kernel keeps deleted servers for two minutes, and each addition looks through them
# (ip_vs_trash_get_dest): after -C alone, the next contestant would be slowed by the servers of the previous one.
_RENEW = "ipvsadm -C; rmmod ip_vs_rr; rmmod ip_vs; modprobe ip_vs && modprobe ip_vs_rr"


def rules(count: int, start: int = 0) -> str:
    """``count`` rules: services with 19 servers each; ``start`` is the number of the first service."""
    lines: list[str] = []
    number = start
    while len(lines) < count:
        service = f"-t 10.{1 + number // 62500}.{number // 250 % 250}.{number % 250 + 1}:80"
        lines.append(f"-A {service} -s rr")
        lines += [f"-a {service} -r 10.200.{n}.{number % 250 + 1}:8080 -m -w {n + 1}" for n in range(_SERVERS)]
        number += 1
    return "\n".join(lines[:count]) + "\n"


class Contest:
    """Restore, list and save for a table of one size."""

    def __init__(self, sandbox: Sandbox, text: str) -> None:
        self._sandbox = sandbox
        self._text = text
        self._path = sandbox.root / f".rules-{sandbox.id}"
        self._path.write_text(text)
        run(sandbox.runtime.argv("exec", sandbox.id, "sh", "-c", "cat >/tmp/rules"), text.encode())

    def argv(self, *words: str) -> list[str]:
        """A command line of ours, without entering the network namespace first: these commands do not look at it."""
        return [PROGRAM, "--root", str(self._sandbox.root), "kata-ipvs", "ipvsadm", *words, self._sandbox.id]

    def load(self, *more: str) -> list[str]:
        """The command line that loads the rules."""
        return self.argv("--restore", str(self._path), *more)

    def renew(self) -> None:
        """IPVS loaded again, and set up by a command of ours."""
        run(self._sandbox.runtime.argv("exec", self._sandbox.id, "sh", "-c", f"{_RENEW} 2>/dev/null || true"))
        run(self.argv("--parameters", "--list --timeout"))
        run(self._sandbox.runtime.argv("exec", self._sandbox.id, "modprobe", "ip_vs_rr"))

    def clear(self) -> None:
        """An empty table in a kernel that remembers the previous one."""
        run(self.argv("--parameters", "-C"))

    def _floor(self) -> float:
        argv = self._sandbox.runtime.argv("exec", self._sandbox.id)
        # Anew each time: whenever IPVS is loaded, its netlink family gets another number.
        run([*argv, "sh", "-c", "cat >/tmp/blocks"], self._blocks())
        return float(run([*argv, "python3", "-c", _SENDER]))

    def _blocks(self) -> bytes:
        with self._sandbox.session() as session:
            changes = parse_rules(self._text.encode(), "rules").rules
            blocks: list[bytes] = []
            attempt_all(_Noting(blocks), Family.GENERIC, open_engine(session).requests(changes))
        return b"".join(_LENGTH.pack(len(block)) + block for block in blocks)

    def restores(self, empty: Callable[[], None], *contestants: str, rounds: int = ROUNDS) -> Taken:
        """Seconds of each to load the rules into a table that ``empty`` has emptied."""

        def fresh(action: Callable[[], float]) -> Callable[[], float]:
            def emptied() -> float:
                empty()
                return action()

            return emptied

        actions = {
            "floor": fresh(self._floor),
            "ours": fresh(lambda: seconds(lambda: run(self.load()))),
            "ipvsadm": fresh(lambda: in_guest(self._sandbox, "ipvsadm -R </tmp/rules")),
        }
        return in_turns({name: actions[name] for name in contestants}, rounds)

    def reads(self, ours: str, real: str) -> Taken:
        """Seconds of each to print the table."""
        return in_turns(
            {
                "ipvsadm": lambda: in_guest(self._sandbox, f"ipvsadm {real} >/dev/null"),
                "ours": lambda: seconds(lambda: run_silently(self.argv("--parameters", ours))),
            }
        )


def measure(sandbox: Sandbox) -> None:
    """Write docs/benchmarks/ipvs.md and its plot."""
    rows: list[list[str]] = []
    restores: dict[int, Taken] = {}
    for count in _SIZES:
        contest = Contest(sandbox, rules(count))
        found = contest.restores(contest.renew, *_REAL)
        pairs = contest.restores(contest.renew, *_PAIR, rounds=_PAIRS)
        restores[count] = found | pairs
        rows.append(_row(count, "restore", found, pairs))
        for what, ours, real in (
            ("list", "-L", "-Ln"),
            ("list --stats", "-L --stats", "-Ln --stats"),
            ("save", *_SAVE),
        ):
            rows.append(_row(count, what, contest.reads(ours, real)))
    contest.clear()
    after = contest.restores(contest.clear, *_ALL)
    rows.append(_row(_SIZES[-1], "restore soon after -C", after, after))
    profile = _profile(sandbox, contest)
    growth = [[f"{count:,}", f"{rate:,.0f}"] for count, rate in _growth(sandbox)]
    listed = _listings(sandbox)
    listings = [_listing_row(words, taken) for words, taken in listed.items()]
    memory = _memory(sandbox)
    _report(load_record(str(sandbox.directory)).accelerator, rows, profile, growth, listings, memory)
    points = {
        name: [(float(count), statistics.median(found[name])) for count, found in restores.items()] for name in _ALL
    }
    highest = max(value for line in points.values() for _, value in line)
    axes = Axis("rules", float(_SIZES[-1])), Axis("seconds", highest)
    lines = {"ipvsadm -R": points["ipvsadm"], "ours": points["ours"], "floor": points["floor"]}
    groups = {
        words: {size: statistics.median(taken[size]) for size in (_FEWER, _MORE)} for words, taken in listed.items()
    }
    write("ipvs-listing.svg", bars("Listing virtual servers, and ten times as many", "s", groups))
    write("ipvs.svg", chart("Loading rules into an empty table", *axes, lines))


def show_restore(sandbox: Sandbox) -> None:
    """Print what a restore of 20,000 rules takes beside its floor, and its steps; writes nothing.

    What ours does that the floor does not: before the first block the program starts, finds IPVS in the guest, parses
    and checks the rules, and writes the undo file; for each block the agent reads its three or four buffers of the
    port, inflates it and writes the answer; afterwards up to three sysctls are set, and the record is written. Blocks
    are encoded while the guest works, on a processor of their own where there is one. The kernel takes as long for
    small blocks, down to 16 KiB, as for large ones.
    """
    contest = Contest(sandbox, rules(_SIZES[-1]))
    found = contest.restores(contest.renew, *_PAIR, rounds=_PAIRS)
    print(table(_PAIR, [[f"{value:.3f} s" for value in row] for row in zip(*found.values(), strict=True)]))
    print(f"median of ours / floor: {ratio(found['ours'], found['floor']):.2f}")
    print(table(["step", "time"], _profile(sandbox, contest)))


_SAVE = ("-S", "-Sn")
# And what it is to ipvsadm, which prints names without -n.
_QUESTIONS = {"-L": "-Ln", "-L --stats": "-Ln --stats", "-S": "-Sn"}


def ratios(sandbox: Sandbox) -> dict[str, float]:
    """What ``make bench-check`` bounds."""
    contest = Contest(sandbox, rules(_SIZES[1]))
    restores, reads = contest.restores(contest.renew, *_ALL), contest.reads("-L", "-Ln")
    many = Contest(sandbox, rules(_SIZES[-1]))
    many.renew()
    run(many.load())
    counted = many.reads("-L --stats", "-Ln --stats")
    listings = {
        f"{words} of {_MANY:,} / of {_SIZES[-1]:,}": ratio(taken[_MORE], taken[_FEWER])
        for words, taken in _listings(sandbox).items()
    }
    many.renew()
    return {
        **listings,
        f"list --stats of {_SIZES[-1]:,} / ipvsadm -Ln --stats": ratio(counted["ours"], counted["ipvsadm"]),
        "restore / the kernel's own time": ratio(restores["ours"], restores["floor"]),
        "restore / ipvsadm -R": ratio(restores["ours"], restores["ipvsadm"]),
        "list / ipvsadm -Ln": ratio(reads["ours"], reads["ipvsadm"]),
    }


def _row(count: int, what: str, found: Taken, pairs: Taken | None = None) -> list[str]:
    """A row of the table; ``pairs`` are ours and the floor in turns."""
    middle = {name: f"{statistics.median(values):.2f} s" for name, values in (found | (pairs or {})).items()}
    over = "" if pairs is None else f"{ratio(pairs['ours'], pairs['floor']):.2f}"
    faster = f"{ratio(found['ipvsadm'], found['ours']):.1f}"
    return [f"{count:,}", what, middle["ipvsadm"], middle["ours"], middle.get("floor", ""), faster, over]


def _listing_row(words: str, taken: Taken) -> list[str]:
    """A row about what two tables take, and ipvsadm for the larger one."""
    (real,) = taken[_REAL_ONE]
    fewer, more = (statistics.median(taken[size]) for size in (_FEWER, _MORE))
    times = [f"{value:.2f} s" for value in (fewer, more)]
    return [words, *times, f"{ratio(taken[_MORE], taken[_FEWER]):.1f}", f"{real:.1f} s", f"{real / more:.1f}"]


def _profile(sandbox: Sandbox, contest: Contest) -> list[list[str]]:
    """Where the time of a restore of the most rules goes: its steps, one by one, in this process."""
    text = rules(_SIZES[-1]).encode()
    taken: dict[str, list[float]] = {}

    def step(name: str, since: float) -> float:
        now = time.perf_counter()
        taken.setdefault(name, []).append(now - since)
        return now

    for _ in range(ROUNDS):
        contest.renew()
        moment = time.perf_counter()
        run(sandbox.runtime.argv("--version"))
        moment = step("start of a process that does nothing", moment)
        batch = parse_rules(text, "rules")
        moment = step("reading the rules", moment)
        outcome({}, batch)
        moment = step("checking them", moment)
        with sandbox.session() as session:
            asked = list(open_engine(session).requests(batch.rules))
            moment = step("connecting; encoding, which is otherwise done while the guest works", moment)
            attempt_all(session.channel(), Family.GENERIC, asked, until_failure=True)
            moment = step("the guest: its agent and its kernel", moment)
    return [[name, f"{statistics.median(values):.2f} s"] for name, values in taken.items()]


def _growth(sandbox: Sandbox) -> list[tuple[int, float]]:
    """Rules a second of each further batch, by the number of rules after it."""
    rates: dict[int, list[float]] = {}
    for _ in range(ROUNDS):
        for number in range(_STEPS):
            contest = Contest(sandbox, rules(_STEP, number * _STEP // (_SERVERS + 1)))
            if not number:
                contest.renew()
            argv = contest.load()
            rates.setdefault((number + 1) * _STEP, []).append(_STEP / seconds(partial(run, argv)))
    return [(count, statistics.median(values)) for count, values in rates.items()]


def _listings(sandbox: Sandbox) -> dict[str, Taken]:
    """Seconds of each question to a table of 20,000 rules and to one of ten times as many, in turns.

    Both are in new sandboxes: a kernel in which tables came and went takes longer to read one. ipvsadm is asked once.
    """
    with booted(sandbox.runtime, "bench-few") as few, booted(sandbox.runtime, "bench-many") as many:
        contests = {_FEWER: Contest(few, rules(_SIZES[-1])), _MORE: Contest(many, rules(_MANY))}
        for contest in contests.values():
            contest.renew()
            run(contest.load())

        def asked(words: str) -> Taken:
            return in_turns(
                {
                    name: partial(seconds, partial(run_silently, contest.argv("--parameters", words)))
                    for name, contest in contests.items()
                },
                _LISTINGS,
            )

        return {
            words: asked(words) | {_REAL_ONE: [in_guest(many, f"ipvsadm {real} >/dev/null")]}
            for words, real in _QUESTIONS.items()
        }


def _memory(sandbox: Sandbox) -> list[list[str]]:
    """The most memory that each command, and the agent by then, ever had."""
    contest = Contest(sandbox, rules(_MANY))
    contest.renew()
    commands = {
        "restore": contest.load(),
        "list": contest.argv("--parameters", "-L"),
        "list --stats": contest.argv("--parameters", "-L --stats"),
        "save": contest.argv("--parameters", "-S"),
        "restore --replace": contest.load("--replace"),
    }
    rows = []
    report = sandbox.root / ".memory"
    for name, argv in commands.items():
        taken = seconds(partial(run, measured(argv, report)))
        agent = run(sandbox.runtime.argv("exec", sandbox.id, "sh", "-c", _AGENT_PEAK)).split()[1]
        rows.append([name, f"{taken:.1f} s", f"{int(report.read_text()) / 1000:.0f} MB", f"{int(agent) / 1000:.0f} MB"])
    contest.renew()
    return rows


_AGENT_PEAK = "grep VmHWM /proc/$(pgrep -f '[k]ata_runtime.guest')/status"


_HOW = """\
`ipvsadm` is timed inside the guest; ours from outside with its whole start-up. The floor replays the same netlink
bytes from a minimal sender in the guest. All take turns in one guest. Each restore begins with IPVS loaded again, as in
a new container; only in the last row the table was emptied with -C just before: the kernel keeps deleted servers for
two minutes, and each addition looks through them. What either program lists goes to /dev/null. Ratios are medians of
the ratios of each round.

"""

_TEN_TIMES = """\
The start of the program and its first questions to the guest take as long for both tables, some 30 ms. The rest grows
as the table does. Each table is in a new sandbox.
"""


def _report(
    accelerator: str,
    rows: list[list[str]],
    profile: list[list[str]],
    growth: list[list[str]],
    listings: list[list[str]],
    memory: list[list[str]],
) -> None:
    text = f"# Virtual servers\n\n{machine(accelerator)} `make bench` writes this file.\n\n"
    text += _HOW
    heading = ["rules", "", "ipvsadm", "ours", "floor", "ipvsadm / ours", "ours / floor"]
    text += table(heading, rows) + "\n![Loading rules](ipvs.svg)\n"
    text += f"\n## Where the time of a restore of {_SIZES[-1]:,} rules goes\n\n" + table(["step", "time"], profile)
    text += f"\n## As the table grows\n\nEach batch adds {_STEP:,} rules to those that are there.\n\n"
    text += table(["rules after it", "rules per second"], growth)
    text += "\n## Ten times as many\n\n" + _TEN_TIMES + "\n![Listing virtual servers](ipvs-listing.svg)\n\n"
    text += table(["question", _FEWER, _MORE, "ratio", f"ipvsadm, {_MORE}", "ipvsadm / ours"], listings)
    text += f"\n## {_MANY:,} rules\n\n"
    text += table(["command", "time", "most memory on the host", "most memory of the agent so far"], memory)
    write("ipvs.md", text)
