"""Ports: NICs with a TAP that kata-network creates and plugs into a switch of this host, also for ports of Neutron."""
