"""Several hosts on this one, as network namespaces with Open vSwitch and OVN: for tests, demo and benchmarks."""
