"""NICs whose TAP is made here and plugged into a switch of this host, also for ports of Neutron."""
