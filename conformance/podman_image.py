"""The image that Podman's tests expect, made of Debian's busybox: they were written for one with Alpine's."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from kata_runtime.guest.image import packages

# As in the names of the images that Podman's tests use by themselves; this one is made here, and never leaves the host.
REGISTRY, USER, NAME, TAG = "localhost", "conformance", "testimage", "20220615"
FULL_NAME = f"{REGISTRY}/{USER}/{NAME}:{TAG}"
CHANGES = (
    "WORKDIR /home/podman",
    'CMD ["/bin/echo", "This container is intended for podman CI testing"]',
    "LABEL created_by=conformance",
    "LABEL created_at=2022-06-15T00:00:00Z",
    "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
)
_PAUSE = '#!/bin/sh\necho "Confirmed: testimage pause invoked as $0"\nwhile :; do sleep 0.1; done\n'
# Debian's nc has no -n and -v, which change nothing that the tests look at, but for one that reads its messages.
_NC = """\
#!/bin/sh
for word; do
    shift
    case $word in -n | -v) ;; *) set -- "$@" "$word" ;; esac
done
exec busybox nc "$@"
"""
# In the past, and fixed, for the tests of time zones.
_TIME_OF_ID = 1_600_000_000
_ETC = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\nbin:x:1:1:bin:/bin:/sbin/nologin\n"
    "daemon:x:2:2:daemon:/sbin:/sbin/nologin\nmail:x:8:12:mail:/var/mail:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n",
    "group": "root:x:0:root\nbin:x:1:root,bin,daemon\ndaemon:x:2:root,bin,daemon\nmail:x:12:mail\nnobody:x:65534:\n",
    "shadow": "root:*:0:0:::::\nnobody:!:0:0:::::\n",
    "services": "http\t80/tcp\n",
    "hosts": "127.0.0.1\tlocalhost\n",
    "issue": "Image of conformance tests\n",
    "alpine-release": "3.16.0\n",
    "os-release": 'NAME="conformance"\nID=conformance\n',
}
_DIRECTORIES = ("bin", "dev", "etc", "home/podman", "mnt", "opt", "proc", "root", "run", "sbin", "srv", "sys", "tmp",
                "usr/bin", "usr/sbin", "usr/local/bin", "usr/share", "var/lib", "var/log", "var/tmp")  # fmt: skip


def build_root(directory: Path) -> None:
    """Make the root file system in ``directory``. :raise HostError: the packages cannot be fetched."""
    for name in _DIRECTORIES:
        (directory / name).mkdir(parents=True, exist_ok=True)
    (directory / "tmp").chmod(0o1777)
    wanted = packages.resolve(["busybox-static"])
    cache = packages.cache_directory()
    packages.fetch(wanted, cache, lambda _: None)
    (package,) = [package for package in wanted if package.name == "busybox-static"]
    busybox = directory / "bin/busybox"
    busybox.write_bytes(dict(packages.read_files(cache / package.file_name))["bin/busybox"].data)
    busybox.chmod(0o755)
    applets = subprocess.run([busybox, "--list-full"], capture_output=True, text=True, check=True).stdout.split()
    for applet in applets:
        path = directory / applet
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.symlink_to("/bin/busybox")
    # Alpine has httpd in a binary of its own.
    shutil.copy2(busybox, directory / "bin/busybox-extras")
    for name, text in _ETC.items():
        (directory / "etc" / name).write_text(text)
    (directory / "home/podman/testimage-id").write_text(f"{TAG}\n")
    os.utime(directory / "home/podman/testimage-id", (_TIME_OF_ID, _TIME_OF_ID))
    source = Path(__file__).with_name("printenv.c")
    packages.run_program(["gcc", "-static", "-O1", "-o", str(directory / "bin/printenv"), str(source)])
    (directory / "etc/mtab").symlink_to("/proc/mounts")
    scripts = (("home/podman/pause", _PAUSE), ("usr/local/bin/nc", _NC))
    for name, text in scripts:
        (directory / name).write_text(text)
        (directory / name).chmod(0o755)
