"""NICs and routes of a running container. Command lines and output are in ``kata_runtime.cli``."""
