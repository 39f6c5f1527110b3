"""A sandbox: the VM of a secure container, its records, its locks and its life cycle."""
