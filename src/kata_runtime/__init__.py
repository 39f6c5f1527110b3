"""Networking for secure containers."""

__version__ = "0.1.0"
