"""NICs whose TAP is made here and plugged into a Linux bridge or Open vSwitch of this host."""
