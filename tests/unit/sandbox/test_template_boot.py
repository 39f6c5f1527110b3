"""When a template is used, kept, dropped, or left alone."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from kata_runtime.sandbox.boot_failure import BootError
from kata_runtime.sandbox.config import Config
from kata_runtime.sandbox.guest_memory import create_memory
from kata_runtime.sandbox.template import TemplateStore
from kata_runtime.sandbox.template_boot import boot_with_template

if TYPE_CHECKING:
    from pathlib import Path

    from kata_runtime.sandbox.boot import StoreTemplate
    from kata_runtime.sandbox.template import Template

_KEY = "key"


class _Starts:
    """Stands for ``boot``: notes how it was called, and fails where there is a template and ``failure`` is given."""

    def __init__(self, failure: BootError | None = None) -> None:
        self.calls: list[tuple[float, bool, bool]] = []
        self._failure = failure

    def __call__(self, *, seconds: float, template: Template | None = None, keep: StoreTemplate | None = None) -> None:
        self.calls.append((seconds, template is not None, keep is not None))
        if template is not None and self._failure is not None:
            raise self._failure


def _config(tmp_path: Path, template: str = "auto", *, shared_memory: bool = True) -> Config:
    return Config(template=template, template_path=str(tmp_path / "templates"), shared_memory=shared_memory)


def _keep_one(tmp_path: Path) -> None:
    memory = create_memory(1 << 20)
    try:
        store = TemplateStore(tmp_path / "templates")
        with store.making(_KEY):
            store.save(_KEY, memory, lambda file: None)
    finally:
        os.close(memory)


def _run(config: Config, starts: _Starts) -> list[str]:
    told: list[str] = []
    boot_with_template(config, _KEY, starts, 120.0, told.append)
    return told


def test_without_a_template_one_is_kept(tmp_path: Path) -> None:
    """Where there is none the machine is booted, and kept as it has booted."""
    starts = _Starts()
    assert _run(_config(tmp_path), starts) == []
    assert starts.calls == [(120.0, False, True)]


def test_with_a_template_nothing_boots(tmp_path: Path) -> None:
    """Where there is one it is used, within a shorter deadline."""
    _keep_one(tmp_path)
    starts = _Starts()
    assert _run(_config(tmp_path), starts) == []
    assert starts.calls == [(20.0, True, False)]


@pytest.mark.parametrize(("template", "shared"), [("off", True), ("auto", False)], ids=["off", "private memory"])
def test_where_none_is_wanted_or_possible(tmp_path: Path, template: str, *, shared: bool) -> None:
    """Switched off, or with memory that is not shared, the machine is booted, and none is kept or used."""
    _keep_one(tmp_path)
    starts = _Starts()
    assert _run(_config(tmp_path, template, shared_memory=shared), starts) == []
    assert starts.calls == [(120.0, False, False)]


@pytest.mark.parametrize(
    ("printed", "is_kept"),
    [("qemu: Missing section footer for 0000:00:01.0", False), ("qemu: cannot map: Cannot allocate memory", True)],
    ids=["damaged", "no memory"],
)
def test_one_that_does_not_load(tmp_path: Path, printed: str, is_kept: bool) -> None:
    """It is reported and the machine booted; the template goes unless the host was short of something."""
    _keep_one(tmp_path)
    starts = _Starts(BootError("QEMU ended", [], printed=printed))
    assert _run(_config(tmp_path), starts) == [
        "the sandbox is booted, since its template could not be loaded: QEMU ended"
    ]
    assert starts.calls == [(20.0, True, False), (120.0, False, not is_kept)]
    assert (tmp_path / "templates" / _KEY).exists() is is_kept


def test_a_store_that_cannot_be_made(tmp_path: Path) -> None:
    """Where no directory for templates can be made the machine is booted all the same, and that is reported."""
    (tmp_path / "templates").touch()
    starts = _Starts()
    assert _run(_config(tmp_path), starts) == [
        f"no template is kept, so that later sandboxes boot, too: cannot use {tmp_path / 'templates'}: File exists"
    ]
    assert starts.calls == [(120.0, False, False)]
