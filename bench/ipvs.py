"""Virtual servers by the thousand: ours, the real ipvsadm in the same guest, and the kernel's own time."""

from __future__ import annotations

import struct
from functools import partial
from typing import TYPE_CHECKING

from bench.harness import in_guest, machine, medians, run, seconds, table, write
from kata_runtime.ipvs.command import open_engine
from kata_runtime.ipvs.engine import requests
from kata_runtime.ipvs.rules import parse_rules
from kata_runtime.netlink.request import blocks_of
from kata_runtime.sandbox.record import load_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.system.conftest import Sandbox

_SIZES = (1_000, 4_000, 20_000)
_GROWTH = (20_000, 50_000, 100_000)
_SERVERS = 19  # of each service
_LENGTH = struct.Struct("<I")
# Sends blocks that were made before and waits for each one's acknowledgement: the least a client can do.
_SENDER = """
import socket, struct, sys, time
data = open("/tmp/blocks", "rb").read()
opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16)
opened.bind((0, 0))
start = time.perf_counter()
offset = 0
while offset < len(data):
    size, = struct.unpack_from("<I", data, offset)
    opened.send(data[offset + 4:offset + 4 + size])
    opened.recv(65536)
    offset += 4 + size
print(time.perf_counter() - start)
"""


def rules(count: int) -> str:
    """``count`` rules: services with 19 servers each."""
    lines: list[str] = []
    number = 0
    while len(lines) < count:
        service = f"-t 10.{1 + number // 62500}.{number // 250 % 250}.{number % 250 + 1}:80"
        lines.append(f"-A {service} -s rr")
        lines += [f"-a {service} -r 10.200.{n}.{number % 250 + 1}:8080 -m -w {n + 1}" for n in range(_SERVERS)]
        number += 1
    return "\n".join(lines[:count]) + "\n"


class Contest:
    """One table size: all contestants start from an empty table."""

    def __init__(self, sandbox: Sandbox, count: int) -> None:
        self._sandbox = sandbox
        self._text = rules(count)
        self._path = sandbox.root / ".rules"
        self._path.write_text(self._text)
        run(sandbox.runtime.argv("exec", sandbox.id, "sh", "-c", "cat >/tmp/rules"), self._text.encode())
        run(sandbox.runtime.argv("exec", sandbox.id, "sh", "-c", "cat >/tmp/blocks"), self._blocks())

    def _blocks(self) -> bytes:
        with self._sandbox.session() as session:
            engine = open_engine(session)
            changes = parse_rules(self._text.encode(), "rules").rules
            blocks = [block.data for block in blocks_of(requests(engine, changes))]
        return b"".join(_LENGTH.pack(len(block)) + block for block in blocks)

    def _ours(self, *words: str) -> float:
        argv = self._sandbox.runtime.argv("kata-ipvs", "ipvsadm", *words, self._sandbox.id)
        return seconds(lambda: run(argv))

    def _guest(self, script: str) -> float:
        return in_guest(self._sandbox, script)

    def clear(self) -> None:
        """Empty the table."""
        self._ours("--parameters", "-C")

    def contestants(self) -> dict[str, Callable[[], float]]:
        """Restore, list and save, by each."""

        def fresh(action: Callable[[], float]) -> Callable[[], float]:
            def cleared() -> float:
                self.clear()
                return action()

            return cleared

        def floor() -> float:
            argv = self._sandbox.runtime.argv("exec", self._sandbox.id, "python3", "-c", _SENDER)
            return float(run(argv))

        return {
            "floor restore": fresh(floor),
            "real restore": fresh(lambda: self._guest("ipvsadm -R </tmp/rules")),
            "ours restore": fresh(lambda: self._ours("--restore", str(self._path))),
            "real list": lambda: self._guest("ipvsadm -Ln >/dev/null"),
            "ours list": lambda: self._ours("--parameters", "-Ln"),
            "real save": lambda: self._guest("ipvsadm -Sn >/dev/null"),
            "ours save": lambda: self._ours("--parameters", "-S"),
        }


def measure(sandbox: Sandbox) -> None:
    """Write docs/benchmarks/ipvs.md and its plot."""
    found = {}
    for count in _SIZES:
        contest = Contest(sandbox, count)
        found[count] = medians(contest.contestants())
        contest.clear()
    rows = []
    for count, times in found.items():
        for what in ("restore", "list", "save"):
            ours, real = times[f"ours {what}"], times[f"real {what}"]
            floor = f"{times['floor restore']:.2f} s" if what == "restore" else ""
            over = f"{ours / times['floor restore']:.2f}" if what == "restore" else ""
            rows.append([f"{count:,}", what, f"{real:.2f} s", f"{ours:.2f} s", floor, f"{real / ours:.2f}", over])
    growth = [[f"{count:,}", f"{rate:,.0f}"] for count, rate in _growth(sandbox)]
    text = f"# Virtual servers\n\n{machine(load_record(str(sandbox.directory)).accelerator)} "
    text += "`make bench` writes this file.\n\n"
    text += "`ipvsadm` is timed inside the guest; ours with its whole start-up, from outside. The floor replays the\n"
    text += "same netlink bytes from a minimal sender in the guest.\n\n"
    heading = ["rules", "", "ipvsadm", "ours", "floor", "ipvsadm / ours", "ours / floor"]
    text += table(heading, rows) + "\n![restore](ipvs.svg)\n\n## As the table grows\n\n"
    text += table(["rules", "rules per second"], growth)
    write("ipvs.md", text)
    lines = {name: [(count, found[count][f"{name} restore"]) for count in _SIZES] for name in ("real", "ours", "floor")}
    write("ipvs.svg", _plot(lines))


def _growth(sandbox: Sandbox) -> list[tuple[int, float]]:
    found = []
    for count in _GROWTH:
        contest = Contest(sandbox, count)
        contest.clear()
        path = str(sandbox.root / ".rules")
        argv = sandbox.runtime.argv("kata-ipvs", "ipvsadm", "--restore", path, sandbox.id)
        found.append((count, count / seconds(partial(run, argv))))
        contest.clear()
    return found


_NAMESPACE = "http://www.w3.org/2000/svg"
_COLOURS = {"real": "#c33", "ours": "#36c", "floor": "#888"}
_WIDTH, _HEIGHT, _MARGIN = 640, 360, 50


def _plot(lines: dict[str, list[tuple[int, float]]]) -> str:
    """Rules against seconds, a line each, as SVG."""
    widest = max(count for points in lines.values() for count, _ in points)
    highest = max(value for points in lines.values() for _, value in points)

    def place(count: float, value: float) -> str:
        x = _MARGIN + count / widest * (_WIDTH - 2 * _MARGIN)
        y = _HEIGHT - _MARGIN - value / highest * (_HEIGHT - 2 * _MARGIN)
        return f"{x:.1f},{y:.1f}"

    parts = [f'<svg xmlns="{_NAMESPACE}" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="12">']
    axis = f"{place(0, highest)} {place(0, 0)} {place(widest, 0)}"
    parts.append(f'<polyline points="{axis}" fill="none" stroke="black"/>')
    for number, (name, points) in enumerate(lines.items()):
        path = " ".join(place(*point) for point in [(0, 0.0), *points])
        parts.append(f'<polyline points="{path}" fill="none" stroke="{_COLOURS[name]}" stroke-width="2"/>')
        parts.append(f'<text x="{_MARGIN + 10}" y="{_MARGIN + 16 * number}" fill="{_COLOURS[name]}">{name}</text>')
    parts.append(f'<text x="{_WIDTH - 130}" y="{_HEIGHT - 20}">rules, to {widest:,}</text>')
    parts.append(f'<text x="5" y="{_MARGIN - 10}">seconds, to {highest:.1f}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
