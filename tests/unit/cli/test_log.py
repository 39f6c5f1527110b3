"""The log of a command: one line for each record, also if a guest chose the text in it."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from kata_runtime import operation_log
from kata_runtime.cli.argument_parser import Call, parse
from kata_runtime.cli.log import LOGGER, log_end, start_log
from kata_runtime.errors import GuestError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_HOSTILE = "a\nb\x1b[2J\u202e\0"


@pytest.fixture(autouse=True)
def _quiet_afterwards() -> Iterator[None]:
    yield
    operation_log.send_to(None)
    while LOGGER.handlers:
        LOGGER.handlers[0].close()
        LOGGER.removeHandler(LOGGER.handlers[0])
    LOGGER.setLevel(logging.NOTSET)


def _start(*words: str) -> None:
    call = parse([*words, "state", "lb"])
    assert isinstance(call, Call)
    start_log(call)


def _log_steps() -> None:
    with operation_log.measured("qmp", command=_HOSTILE) as step:
        step.note(result={"name": _HOSTILE})
    with pytest.raises(ValueError, match="a"), operation_log.measured("lock", path="/x"):
        raise ValueError(_HOSTILE)
    operation_log.note("qemu", argv=["qemu", "x" * 5000])
    log_end(0, None)


def test_json_has_every_field(tmp_path: Path) -> None:
    """Each record is one JSON document with the step's fields, long ones cut, and the seconds it took."""
    log = tmp_path / "log"
    _start("--debug", "--log", str(log), "--log-format", "json")
    _log_steps()
    records = [json.loads(line) for line in log.read_text().splitlines()]
    for record in records:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", record.pop("time"))
        assert record.pop("pid") > 0
        assert record.pop("name") == "kata_runtime"
        if record["message"] in ("qmp", "lock"):
            assert 0 <= record.pop("seconds") < 1
    cut = f"{json.dumps(['qemu', 'x' * 5000])[:4000]} ... (5012 characters)"
    assert records == [
        {"level": "info", "message": "state 'lb'"},
        {"level": "debug", "message": "qmp", "command": _HOSTILE, "result": {"name": _HOSTILE}},
        {"level": "debug", "message": "lock", "path": "/x", "error": f"ValueError: {_HOSTILE}"},
        {"level": "debug", "message": "qemu", "argv": cut},
        {"level": "info", "message": "exit status 0"},
    ]


def test_text_is_a_line_for_each_record(tmp_path: Path) -> None:
    """The same as text: no line break, terminal command or direction mark of a guest gets through."""
    log = tmp_path / "log"
    _start("--debug", "--log", str(log))
    _log_steps()
    escaped = r'"a\nb\u001b[2J\u202e\u0000'
    cut = json.dumps(f"{json.dumps(['qemu', 'x' * 5000])[:4000]} ... (5012 characters)")
    lines = [re.sub(r"(?<=seconds=)[\d.e-]+$", "N", line) for line in log.read_text().splitlines()]
    assert [line.partition("kata_runtime: ")[2] for line in lines] == [
        "state 'lb'",
        f'qmp command={escaped}" result={{"name": {escaped}"}} seconds=N',
        f'lock path="/x" error="ValueError: {escaped[1:]}" seconds=N',
        f"qemu argv={cut}",
        "exit status 0",
    ]


def test_without_debug_no_steps(tmp_path: Path) -> None:
    """A log without details has start and end, and nothing is measured for it."""
    log = tmp_path / "log"
    _start("--log", str(log))
    assert not operation_log.is_wanted()
    _log_steps()
    lines = log.read_text().splitlines()
    assert [line.partition("kata_runtime: ")[2] for line in lines] == ["state 'lb'", "exit status 0"]


def test_steps_cost_no_import() -> None:
    """Where nobody reads the records, neither logging nor json is loaded to make them."""
    script = (
        "import sys; from kata_runtime import operation_log\n"
        "with operation_log.measured('x', y=1) as step: step.note(z=2)\n"
        "print(sorted({'logging', 'json'} & set(sys.modules)))"
    )
    argv = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{script}"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def test_failure_with_details_stays_on_its_lines(tmp_path: Path) -> None:
    """A message that a guest chose is escaped in the text of the failure and in its traceback."""
    log = tmp_path / "log"
    _start("--debug", "--log", str(log))
    log_end(1, GuestError(f"it said {_HOSTILE}\udcff"))
    lines = log.read_text().splitlines()
    # A traceback has lines of its own, those of the message among them.
    said = r"it said a\nb\x1b[2J\u202e\x00\udcff"
    assert [line.partition("kata_runtime: ")[2] for line in lines[:2]] == ["state 'lb'", f"exit status 1: {said}"]
    assert lines.pop(2) == "kata_runtime.errors.GuestError: it said a"
    assert lines[2:] == [r"b\x1b[2J\u202e\x00\udcff"]


def test_log_on_a_full_disk(capfd: pytest.CaptureFixture[str]) -> None:
    """A log that cannot be written is reported once, in one line, and the command goes on."""
    _start("--debug", "--log", "/dev/full")
    _log_steps()
    assert capfd.readouterr() == ("", "kata-runtime: cannot write the log '/dev/full': No space left on device\n")
