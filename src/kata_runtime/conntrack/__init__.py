"""Connection tracking of the guest's kernel."""
