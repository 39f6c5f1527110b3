"""kata-check and kata-env: checks whether this host can run sandboxes, and reports its versions and settings."""

from __future__ import annotations

import json
import os
import platform
import shutil
import stat
import subprocess
import sys
from enum import StrEnum
from pathlib import Path

from kata_runtime.cli.command_table import PROGRAM
from kata_runtime.cli.network_json import compact
from kata_runtime.cli.settings import config_path_of, root_of
from kata_runtime.cli.streams import notify, write_line, write_text
from kata_runtime.cli.text_table import text_table
from kata_runtime.errors import KataError
from kata_runtime.guest.image import DESCRIPTION_NAME, image_is_current
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.sandbox import cgroup
from kata_runtime.sandbox.boot import kvm_question
from kata_runtime.sandbox.config import Config, load_config
from kata_runtime.sandbox.identity import check_root
from kata_runtime.vmm.accelerator import FAILED_SECONDS, forget, kvm_obstacle, remembered
from kata_runtime.vmm.architecture import ARCHITECTURE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.cli.argument_parser import Call

_PROGRAM_DEADLINE = 10.0  # seconds
_PYTHON_MIN = (3, 11)
_SECCOMP = Path("/proc/sys/kernel/seccomp/actions_avail")  # Documentation/userspace-api/seccomp_filter.rst


class Verdict(StrEnum):
    """How a finding affects sandboxes."""

    OK = "ok"
    SLOWER = "slower"  # sandboxes run, but slower or with fewer functions
    FAIL = "fail"


class Finding(NamedTuple):
    """The result of one check; ``remedy`` says what to do, and is empty if nothing is wrong."""

    name: str
    verdict: Verdict
    value: str
    remedy: str = ""


def run(call: Call) -> int:
    """Print the findings; kata-check fails if one of them prevents sandboxes from running."""
    container = call.value("--network")
    if container is not None:
        from kata_runtime.cli import network_check

        return network_check.run(call, container)
    if call.value("--renew") is not None:
        forget()
    findings = find(load_config(config_path_of(call), notify), Path(root_of(call)))
    if call.command.words[0] == "kata-env":
        if call.value("--json") is not None:
            write_line(compact({finding.name: _as_json(finding) for finding in findings}))
        else:
            write_text(text_table([(finding.name, finding.value) for finding in findings]))
        return 0
    if call.value("--format") == "json":
        write_line(compact([{"name": finding.name, **_as_json(finding)} for finding in findings]))
    else:
        write_text(text_table([(finding.verdict, finding.name, finding.value) for finding in findings]))
    for finding in findings:
        if finding.remedy:
            notify(f"{finding.name}: {finding.remedy}")
    failed = [finding.name for finding in findings if finding.verdict is Verdict.FAIL]
    if failed:
        raise KataError(f"this host cannot run sandboxes: see {', '.join(failed)}")
    return 0


def find(config: Config, root: Path) -> list[Finding]:
    """Check everything that a sandbox needs, without changing anything."""
    return [
        _python(),
        _privilege(),
        _qemu(config.path),
        _seccomp(),
        _kvm(config),
        _device("/dev/net/tun", Verdict.FAIL, "modprobe tun"),
        _device("/dev/vhost-net", Verdict.SLOWER, "modprobe vhost_net makes NICs faster"),
        _file("kernel", config.kernel),
        _file("initrd", config.initrd),
        *_image(Path(config.initrd).parent),
        _root(root),
        _cgroups(),
        _memory(config.default_memory),
    ]


def _as_json(finding: Finding) -> dict[str, str]:
    return {"verdict": finding.verdict, "value": finding.value, "remedy": finding.remedy}


def _python() -> Finding:
    fits = tuple(map(int, platform.python_version_tuple()[:2])) >= _PYTHON_MIN
    remedy = "" if fits else f"install Python {'.'.join(map(str, _PYTHON_MIN))} or newer"
    program = Path(os.path.realpath(sys.executable))
    hidden = next((path for path in (program, *program.parents) if not path.stat().st_mode & stat.S_IXOTH), None)
    if fits and hidden is not None:
        # The output log of each sandbox is a Python program that runs as the sandbox's unprivileged user.
        remedy = f"other users may not execute files in {hidden}: chmod o+x, or use the distribution's Python"
        return Finding("python", Verdict.FAIL, str(program), remedy)
    return Finding("python", Verdict.OK if fits else Verdict.FAIL, platform.python_version(), remedy)


def _privilege() -> Finding:
    if os.geteuid() == 0:
        return Finding("privilege", Verdict.OK, "root")
    return Finding("privilege", Verdict.FAIL, f"user {os.geteuid()}", "run as root: opening a TAP needs it")


def _qemu(path: str) -> Finding:
    found = shutil.which(path)
    if found is None:
        remedy = f"apt-get install {ARCHITECTURE.qemu_package}, or set path in the configuration"
        return Finding("qemu", Verdict.FAIL, f"no {path}", remedy)
    try:
        ran = subprocess.run(
            [found, "--version"], capture_output=True, text=True, timeout=_PROGRAM_DEADLINE, check=True
        )
    except (OSError, subprocess.SubprocessError) as exc:
        return Finding("qemu", Verdict.FAIL, f"{found}: {exc}", f"reinstall {ARCHITECTURE.qemu_package}")
    return Finding("qemu", Verdict.OK, f"{found}: {ran.stdout.partition(chr(10))[0]}")


def _seccomp() -> Finding:
    if _SECCOMP.exists():
        return Finding("seccomp", Verdict.OK, "filters system calls")
    return Finding("seccomp", Verdict.FAIL, "absent", "QEMU is confined by it: use a kernel with CONFIG_SECCOMP_FILTER")


def _kvm(config: Config) -> Finding:
    remedy = "with KVM sandboxes start and run several times faster"
    obstacle = kvm_obstacle()
    if obstacle is not None:
        return Finding("kvm", Verdict.SLOWER, obstacle, remedy)
    try:
        verdict = remembered(kvm_question(config))
    except KataError:
        verdict = None  # QEMU or the image is missing, which another finding reports
    if verdict is None:
        return Finding("kvm", Verdict.OK, "/dev/kvm opens; the first sandbox proves it by booting")
    if verdict.works:
        return Finding("kvm", Verdict.OK, f"a sandbox booted with it {_ago(verdict.age)}")
    days = f"{FAILED_SECONDS / 86400:g} days"
    return Finding(
        "kvm",
        Verdict.SLOWER,
        f"/dev/kvm opens, but a sandbox did not boot with it {_ago(verdict.age)}",
        f"{remedy}; it is tried again after {days}, or after '{PROGRAM} kata-check --renew'",
    )


def _ago(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit} ago"
    return f"{seconds:.0f} seconds ago"


def _device(path: str, missing: Verdict, remedy: str) -> Finding:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as exc:
        return Finding(path, missing, os.strerror(exc.errno or 0), remedy)
    return Finding(path, Verdict.OK, "opens")


def _file(name: str, path: str) -> Finding:
    try:
        size = os.stat(path).st_size
    except OSError as exc:
        return Finding(name, Verdict.FAIL, f"{path}: {os.strerror(exc.errno or 0)}", f"{PROGRAM} image build")
    return Finding(name, Verdict.OK, f"{path}: {size / 1e6:.1f} MB")


def _image(directory: Path) -> list[Finding]:
    """Check that an image that was built here is of this version; the user's own images are not checked."""
    try:
        include = json.loads((directory / DESCRIPTION_NAME).read_bytes())["include"]
        current = image_is_current(directory, include)
    except (OSError, ValueError, KeyError, TypeError):
        return []
    if current:
        return [Finding("image", Verdict.OK, "built by this version")]
    return [Finding("image", Verdict.SLOWER, "built by another version", f"{PROGRAM} image build")]


def _root(root: Path) -> Finding:
    try:
        check_root(str(root))
    except KataError as error:
        return Finding("root", Verdict.FAIL, error.message, error.hint or "")
    nearest = next(parent for parent in (root, *root.absolute().parents) if parent.exists())
    if os.access(nearest, os.W_OK | os.X_OK):
        return Finding("root", Verdict.OK, str(root))
    return Finding("root", Verdict.FAIL, f"{nearest} is not writable", "give another --root, or run as root")


def _cgroups() -> Finding:
    joined = cgroup.group_directories("kata-check")
    refused = [place for place in joined if not cgroup.writable(place)]
    if joined and not refused:
        return Finding("cgroups", Verdict.OK, ", ".join(map(os.path.dirname, joined)))
    value = f"not writable: {', '.join(map(os.path.dirname, refused))}" if refused else "none mounted"
    return Finding("cgroups", Verdict.SLOWER, value, "without a group of its own a sandbox stays in its caller's")


def _memory(needed: int) -> Finding:
    available = 0
    with open("/proc/meminfo", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("MemAvailable:"):
                available = int(line.split()[1]) // 1024
    value = f"{available} MiB available, {needed} MiB for a sandbox"
    if available >= needed:
        return Finding("memory", Verdict.OK, value)
    return Finding("memory", Verdict.FAIL, value, "free memory, or lower default_memory in the configuration")
