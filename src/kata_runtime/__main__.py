"""``python -m kata_runtime``."""

from kata_runtime.cli.main import program

program()
