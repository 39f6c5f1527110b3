"""Clients of the services of this host and its cloud that ports are made in: Open vSwitch's database and Neutron."""
