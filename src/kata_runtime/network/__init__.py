"""NICs and routes of a running container. Command lines and output are the business of ``kata_runtime.cli``."""
