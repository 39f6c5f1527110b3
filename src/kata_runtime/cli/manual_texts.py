"""Texts of the manual pages and the README that are neither in the table of commands nor in --help."""

from __future__ import annotations

PURPOSE = "networking for secure containers"

DESCRIPTION = """\
A secure container is a virtual machine (QEMU) with an agent inside; a pod is one machine. kata-runtime boots, lists and
ends such containers and changes their network while they run: NICs and routes with kata-network, virtual servers with
kata-ipvs. Podman, containerd and Docker can call it as their OCI runtime.

A command either does all that it was asked for or leaves everything as it was, also when it is killed half-way.

Standard output has only the result, mostly one line of JSON. Messages for people go to standard error.
A <container-id> is a full ID or any unambiguous beginning of one. FILE is a path, or - for standard input."""

EXIT_STATUS = (
    ("0", "The command has done what it was asked for."),
    ("1", "It failed and changed nothing. Standard error says in one line what was wrong and what would be right."),
    ("2", "The command line itself is wrong."),
    ("128+N", "Signal N ended the command."),
)
# exec and run --bundle of a container.
EXIT_STATUS_OF_A_PROGRAM = "The exit status is that of the program that ran in the container."

ENVIRONMENT = (
    ("KATA_CONF_FILE", "The configuration file, when --kata-config is not given."),
    ("APT_CONFIG", "apt's configuration, see apt.conf(5): with another one image build takes another Debian release."),
    ("NO_COLOR", "When it is set, tables are printed without colour."),
)

FILES = (
    ("/etc/kata-runtime/configuration.toml", "The configuration; keys are named as in Kata Containers."),
    ("/run/kata-runtime", "The records of containers (see --root), mode 0700."),
    ("/var/lib/kata-runtime/image", "The guest's kernel and initrd, made by image build."),
    ("/var/lib/kata-runtime/templates", "Booted machines from which containers start; image clean removes them."),
    ("/var/cache/kata-runtime", "Downloaded packages, and whether KVM works on this host."),
)

EXAMPLES = """\
Boot a container, plug a TAP of the host into it, and end it:

  # kata-runtime run --detach web
  # ip tuntap add tap0 mode tap
  # ip link set tap0 up
  # kata-runtime kata-network add-iface web nic.json
  # kata-runtime kata-network list-ifaces web
  # kata-runtime delete --force web

where nic.json holds:

  {"device":"tap0","name":"eth0","hwAddr":"02:42:20:6e:03:01","mtu":1500,
   "IPAddresses":[{"address":"172.16.0.3","mask":"16"}]}"""

SEE_ALSO = ("ip(8)", "ipvsadm(8)", "qemu-system-x86_64(1)", "podman(1)")
