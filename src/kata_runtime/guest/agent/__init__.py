"""The program that runs in the guest: relays netlink, runs commands; standard library only."""
