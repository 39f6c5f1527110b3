"""Netlink: encoding and decoding of messages, and the interface of the transports that carry them to a kernel.

Only ``local`` opens sockets: the same requests go to this host's kernel or, relayed by the agent, to a guest's.
"""
