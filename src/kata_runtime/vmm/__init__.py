"""QEMU: its command line, its monitor, and what is plugged into a running machine."""
