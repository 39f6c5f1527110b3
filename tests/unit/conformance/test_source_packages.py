"""From the host's sources of packages to those of source packages."""

from __future__ import annotations

from conformance.source_packages import source_entries


def test_sources_of_both_formats() -> None:
    """Entries keep all but their type; comments and what names sources already are not taken twice."""
    deb822 = "Types: deb deb-src\nURIs: file:/mirror\nSuites: stable\nComponents: main\n"
    lines = "# deb off\ndeb [signed-by=/key] file:/mirror stable main\ndeb-src file:/mirror stable main\n"
    assert source_entries(deb822, deb822=True) == deb822.replace("deb deb-src", "deb-src")
    assert source_entries(lines, deb822=False) == "deb-src [signed-by=/key] file:/mirror stable main\n"
