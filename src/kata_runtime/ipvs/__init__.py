"""Virtual servers of the guest's kernel: ipvsadm's grammar and listings, the kernel's netlink, batches."""
