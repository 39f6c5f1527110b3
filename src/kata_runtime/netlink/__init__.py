"""Netlink as bytes: messages of the kernel packed and unpacked, and the one seam through which they travel.

Nothing here opens a socket except ``local``: the same requests go to this host's kernel or, relayed by the
agent, to a guest's.
"""
