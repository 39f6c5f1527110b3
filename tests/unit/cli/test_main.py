"""The program as a process: exit status, standard output and error, whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kata_runtime import __version__


def kata_runtime(*argv: str, stdin: bytes = b"") -> tuple[int, str, str]:
    ran = subprocess.run(
        [sys.executable, "-m", "kata_runtime", *argv], input=stdin, capture_output=True, timeout=30, check=False
    )
    return ran.returncode, ran.stdout.decode(), ran.stderr.decode()


def test_usage_error_is_2() -> None:
    """A wrong command line ends with 2, says so on standard error, and prints no result."""
    assert kata_runtime("kata-network", "list-ifaces") == (
        2,
        "",
        (
            "kata-runtime: kata-network list-ifaces lacks <container-id>; "
            "usage: kata-runtime kata-network list-ifaces [--format FORMAT] <container-id>\n"
        ),
    )


@pytest.mark.parametrize("command", ["add-iface", "del-iface", "add-route", "del-route", "update-routes"])
def test_bad_json_is_null(command: str) -> None:
    """Every kata-network command that reads JSON prints null, one line of reason, and ends with 1."""
    assert kata_runtime("kata-network", command, "nosuch", "-", stdin=b"{") == (
        1,
        "null\n",
        "kata-runtime: the input is not JSON: it ends too early (line 1 column 2)\n",
    )


def test_missing_file() -> None:
    """A file that is not there is named."""
    assert kata_runtime("kata-network", "add-iface", "nosuch", "/nonexistent/nic\n.json") == (
        1,
        "null\n",
        "kata-runtime: cannot read /nonexistent/nic\\n.json: No such file or directory\n",
    )


def test_log_that_cannot_be_opened() -> None:
    """A log that cannot be opened is one line, and nothing is logged to standard error instead."""
    reason = "kata-runtime: cannot open the log '/nonexistent/log': No such file or directory\n"
    assert kata_runtime("--log", "/nonexistent/log", "list") == (1, "", reason)


def test_directory_as_file() -> None:
    """A directory is no input."""
    assert kata_runtime("kata-network", "add-iface", "nosuch", "/") == (
        1,
        "null\n",
        "kata-runtime: cannot read /: Is a directory\n",
    )


def test_twenty_megabytes() -> None:
    """Input beyond the limit is refused without being read to its end."""
    assert kata_runtime("kata-network", "add-iface", "nosuch", "-", stdin=b" " * 20_000_000) == (
        1,
        "null\n",
        "kata-runtime: standard input is larger than 16 MiB\n",
    )


def test_nobody_reads() -> None:
    """A closed pipe ends the command with 1 and without a word."""
    reading, writing = os.pipe()
    os.close(reading)
    ran = subprocess.run(
        [sys.executable, "-m", "kata_runtime", "--help"], stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert (ran.returncode, ran.stderr) == (1, b"")


def test_closed_output() -> None:
    """A result that cannot be written is a failure."""
    ran = subprocess.run(
        ["sh", "-c", f"exec {sys.executable} -m kata_runtime --help >&-"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (
        1,
        "",
        "kata-runtime: cannot write the result to standard output: Bad file descriptor\n",
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal(number: signal.Signals) -> None:
    """A signal while waiting for input ends the command with 128 plus its number."""
    process = subprocess.Popen(
        [sys.executable, "-m", "kata_runtime", "--debug", "kata-network", "add-iface", "nosuch", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    # The first record is written after the handlers are in place.
    assert process.stderr.readline().endswith("kata-network add-iface 'nosuch' '-'\n")
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (128 + number, "null\n")
    assert f"kata-runtime: ended by {number.name}; its change is made whole or not at all\n" in err


def test_list_interfaces_imports_little() -> None:
    """The command that clients repeat most does not load what it does not need."""
    code = """
import sys
from kata_runtime.cli.main import main
main(["kata-network", "list-ifaces", "nosuch"])
print(sorted({"argparse", "difflib", "logging", "asyncio", "subprocess", "qemu"} & set(sys.modules)))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert ran.stdout == "null\n[]\n"


def test_version() -> None:
    """The version is printed by the program as it is installed, without its package's metadata."""
    program = Path(sys.executable).with_name("kata-runtime")
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"kata-runtime {__version__}\n", "")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("kata-ipvs", "ipvsadm", "x"), "neither --parameters nor --restore; give one of the two"),
        (
            ("kata-ipvs", "ipvsadm", "--parameters", "-L", "--restore", "-", "x"),
            "both --parameters and --restore; give one of the two",
        ),
        (("kata-ipvs", "ipvsadm", "--parameters", "-L", "--replace", "x"), "--replace without --restore"),
    ],
)
def test_kata_ipvs_needs_one_source(words: tuple[str, ...], reason: str) -> None:
    """Parameters and a file exclude each other, and one of them is needed."""
    assert kata_runtime(*words) == (2, "", f"kata-runtime: kata-ipvs ipvsadm has {reason}\n")
