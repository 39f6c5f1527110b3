"""Containers of engines: bundles, pods, shims and the operations of the OCI runtime command line."""
