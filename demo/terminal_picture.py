"""Write docs/terminal.svg: the README's picture of a terminal, by typing what it shows. Run it by `make picture`.

The commands run as they are shown, on a terminal of their own, in a network namespace that is removed at the end.
"""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import termios
from contextlib import ExitStack
from pathlib import Path

from demo.stage import PROGRAM, DemoError
from rich.console import Console
from rich.text import Text

_PICTURE = Path(__file__).parents[1] / "docs/terminal.svg"
_COLUMNS, _ROWS = 108, 50
_FONT = "DejaVu Sans Mono, Menlo, Consolas, monospace"
_PREPARATION = (
    "ip link add br0 type bridge",
    "ip address add 172.16.0.1/16 dev br0",
    "ip link set br0 up",
    # The first start on a host proves the accelerator and makes a template, and says so.
    "kata-runtime run --detach first",
    "kata-runtime delete --force first",
)
_NIC = """{"name":"eth0","IPAddresses":[{"address":"172.16.0.3","mask":"16"}],"hwAddr":"02:42:20:6e:03:01","mtu":1500}
"""
_SHOWN = (
    "kata-runtime run --detach web",
    "kata-runtime kata-network add-port web --bridge br0 nic.json",
    "ping -c 1 172.16.0.3 | tail -n 2 | head -n 1",
    'kata-runtime kata-ipvs ipvsadm --parameters "-A -t 172.16.0.3:80 -s wrr" web',
    'kata-runtime kata-ipvs ipvsadm --parameters "-a -t 172.16.0.3:80 -r 172.16.0.1:8080 -w 3" web',
    "kata-runtime kata-network show web",
    "kata-runtime kata-ipvs top --once web",
    "kata-runtime kata-check --network web",
)


class Session:
    """A directory and a network namespace to type in, removed at the end."""

    def __init__(self, stack: ExitStack) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="kata-picture-"))
        stack.callback(shutil.rmtree, self.directory)
        self.namespace = f"kata-picture-{os.getpid()}"
        subprocess.run(["ip", "netns", "add", self.namespace], check=True)
        stack.callback(subprocess.run, ["ip", "netns", "delete", self.namespace], check=True)
        (self.directory / "nic.json").write_text(_NIC)
        program = self.directory / "kata-runtime"
        program.write_text(f'#!/bin/sh\nexec {PROGRAM} --root {self.directory}/root "$@"\n')
        program.chmod(0o755)
        stack.callback(self._remove, program)

    @staticmethod
    def _remove(program: Path) -> None:
        for name in ("web", "first"):
            subprocess.run([program, "delete", "--force", name], stderr=subprocess.DEVNULL, check=False)

    def type(self, command: str) -> str:
        """What a command line prints on a terminal; raise DemoError when it fails."""
        master, slave = os.openpty()
        with open(master, "rb") as screen:
            termios.tcsetwinsize(slave, (_ROWS, _COLUMNS))
            environment = {**os.environ, "PATH": f"{self.directory}:{os.environ['PATH']}", "TERM": "xterm-256color"}
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, "sh", "-c", command],
                cwd=self.directory, env=environment, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            )  # fmt: skip
            os.close(slave)
            output = _read_to_end(screen)
        if process.wait() != 0:
            raise DemoError(f"{command!r} ended with {process.returncode}: {output}")
        return output.replace("\r\n", "\n")


def _read_to_end(screen: io.BufferedReader) -> str:
    found = b""
    try:
        while piece := os.read(screen.fileno(), 65536):
            found += piece
    except OSError as error:
        # How the master of a pseudo-terminal ends (tty_ioctl(4)).
        if error.errno != errno.EIO:
            raise
    return found.decode()


def picture() -> str:
    """Type everything; the picture."""
    console = Console(record=True, width=_COLUMNS, file=io.StringIO(), force_terminal=True)
    with ExitStack() as stack:
        session = Session(stack)
        for command in _PREPARATION:
            session.type(command)
        for command in _SHOWN:
            if command != _SHOWN[0]:
                console.print()
            console.print(Text(f"# {command}", style="bold"), soft_wrap=True)
            if output := session.type(command).rstrip("\n"):
                console.print(Text.from_ansi(output))
    svg = console.export_svg(title="kata-runtime", unique_id="terminal")
    # Fonts of the reader's system, none that a browser would fetch.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL).replace("Fira Code, monospace", _FONT)
    svg = re.sub(r"<!-- .*? -->\s*", "", svg).replace("font-family: Fira Code", f"font-family: {_FONT}")
    # librsvg drops blanks at the beginning of a text without it.
    return svg.replace("<text ", '<text xml:space="preserve" ')


def main() -> int:
    """Return the exit status."""
    try:
        _PICTURE.write_text(picture())
    except DemoError as error:
        print(f"terminal_picture: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
