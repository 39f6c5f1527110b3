"""What the benchmarks share: a sandbox of their own, medians, and tables with machine and versions."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lab.ending_signals import exit_on_signals
from scripts.ensure_images import TEST_IMAGE
from tests.system.conftest import Runtime, Sandbox, booted, network_namespace

from kata_runtime.guest.image import INITRD_NAME, KERNEL_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

RESULTS = Path(__file__).parents[1] / "docs/benchmarks"
ROUNDS = 5
_PROOFS = 3
# No step of a benchmark takes a tenth of it; one that hangs must not hang all.
_SECONDS = 600
_PART_SECONDS = 3600
_TEMPLATES = ".templates"


@contextmanager
def bench_runtime(*lines: str) -> Iterator[Runtime]:
    """The program under a root of its own, with further ``lines`` of QEMU's section, in a private network namespace."""
    exit_on_signals()
    # In memory, as /run of a usual host: on a disk each fsync(2) of a record takes milliseconds.
    root = Path(tempfile.mkdtemp(prefix="kata-bench-", dir="/dev/shm"))
    runtime = Runtime(root, root / ".configuration.toml")
    configure(runtime, *lines)
    try:
        with network_namespace(f"kata-bench-{os.getpid()}") as namespace:
            runtime.namespace = namespace
            # The first ones may have to prove KVM, and say so.
            for _ in range(_PROOFS):
                told = runtime.cli("run", "--detach", "proof").stderr
                runtime.cli("delete", "--force", "proof")
                if not told:
                    break
            else:
                # On a busy host KVM may work only sometimes: measurements must not depend on that.
                configure(runtime, *lines, 'accelerator = "tcg"')
            yield runtime
    finally:
        shutil.rmtree(root)


def configure(runtime: Runtime, *lines: str) -> None:
    """Write the configuration of ``runtime``: the test image, a place for templates, and ``lines``."""
    runtime.config.write_text(
        "[hypervisor.qemu]\n"
        f'kernel = "{TEST_IMAGE / KERNEL_NAME}"\n'
        f'initrd = "{TEST_IMAGE / INITRD_NAME}"\n'
        f'template_path = "{runtime.root / _TEMPLATES}"\n'
        + "".join(f"{line}\n" for line in lines)
        + "[runtime]\nipvs_rule_limit = 1000000\n"
    )


def template_of(runtime: Runtime) -> Path:
    """The only template that there is."""
    (found,) = [place for place in (runtime.root / _TEMPLATES).iterdir() if not place.name.startswith(".")]
    return found


@contextmanager
def bench_sandbox(*lines: str) -> Iterator[Sandbox]:
    """A sandbox in a private network namespace, with room for any number of rules; ``lines`` as for the runtime."""
    with bench_runtime("default_memory = 1024", *lines) as runtime, booted(runtime, "bench") as sandbox:
        yield sandbox


@contextmanager
def bounded(part: str) -> Iterator[None]:
    """End a part of the benchmarks that hangs, and everything that it started."""

    def end(_number: int, _frame: object) -> None:
        raise TimeoutError(f"the benchmark {part} has taken longer than {_PART_SECONDS} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(_PART_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def seconds(action: Callable[[], object]) -> float:
    """How long an action takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def run(argv: Sequence[str], data: bytes = b"") -> bytes:
    """Standard output of a program that must succeed, in time."""
    done = subprocess.run(argv, input=data, capture_output=True, check=False, timeout=_SECONDS)
    if done.returncode:
        raise RuntimeError(f"{argv}: {done.stderr.decode()}")
    return done.stdout


def run_silently(argv: Sequence[str]) -> None:
    """``run`` for a program whose output is not wanted: to read 14 MB of it would be a part of its time."""
    done = subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False, timeout=_SECONDS)
    if done.returncode:
        raise RuntimeError(f"{argv}: {done.stderr.decode()}")


def in_guest(sandbox: Sandbox, script: str, data: bytes = b"") -> float:
    """Seconds that a script takes inside the guest, without the way there."""
    timed = (
        "import os, sys, time\n"
        "start = time.perf_counter()\n"
        f"status = os.system({script!r})\n"
        "print(time.perf_counter() - start)\n"
        "sys.exit(status != 0)\n"
    )
    return float(run(sandbox.runtime.argv("exec", sandbox.id, "python3", "-c", timed), data))


Taken = dict[str, list[float]]


def in_turns(actions: dict[str, Callable[[], float]], rounds: int = ROUNDS) -> Taken:
    """Each action's own seconds, round by round; the actions alternate, so that noise affects all of them."""
    taken: Taken = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            taken[name].append(action())
    return taken


def medians(actions: dict[str, Callable[[], float]], rounds: int = ROUNDS) -> dict[str, float]:
    """The median of each action's own seconds."""
    return {name: statistics.median(values) for name, values in in_turns(actions, rounds).items()}


def ratio(first: Sequence[float], second: Sequence[float]) -> float:
    """The median of the ratios of each round: machines like this one change their speed from minute to minute."""
    return statistics.median(a / b for a, b in zip(first, second, strict=True))


def machine(accelerator: str) -> str:
    """A line about where times come from."""
    return f"{host(accelerator)}; medians of {ROUNDS} or more."


def host(accelerator: str) -> str:
    """What was measured on, without a full stop."""
    qemu = run(["qemu-system-x86_64", "--version"]).decode().split("\n")[0]
    return (
        f"{os.cpu_count()} CPUs, Linux {platform.release()}, Python {platform.python_version()}, {qemu}, "
        f"accelerator {accelerator}"
    )


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in (heading, ["---"] * len(heading), *rows)]
    return "\n".join(lines) + "\n"


def write(name: str, text: str) -> None:
    """Store a result, and show it."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / name).write_text(text)
    print(text)
