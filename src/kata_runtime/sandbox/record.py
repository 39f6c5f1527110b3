"""The record of a sandbox, a JSON file that is read and replaced as a whole."""

from __future__ import annotations

from kata_runtime import fast_json, operation_log
from kata_runtime.address_types import InterfaceAddress, MacAddress
from kata_runtime.errors import HostError
from kata_runtime.fast_enum import StrEnum
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.sandbox.files import replace_whole
from kata_runtime.sandbox.paths import SandboxPaths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VERSION = 2
_PID_MAX = 1 << 22  # PID_MAX_LIMIT, include/linux/threads.h


class EndpointKind(StrEnum):
    """The kind of a NIC's back end on the host."""

    TAP = "tap"
    VHOST_USER = "vhost-user"
    # Any Ethernet interface; traffic control redirects its packets to and from a TAP.
    REDIRECT = "redirect"
    MACVTAP = "macvtap"
    # TAPs that add-port creates in a Linux bridge, in Open vSwitch, and in Open vSwitch for a port of Neutron.
    BRIDGE = "bridge"
    OVS = "ovs"
    NEUTRON = "neutron"


class PortRecord(NamedTuple):
    """The switch port of a TAP that add-port created.

    ``port`` is Neutron's UUID, an iface-id of Open vSwitch or, where there is neither, the name of the TAP; ``ovsdb``
    is the address of the database. For a port of Neutron, ``given`` is how the user named it, ``cloud`` and
    ``clouds_file`` select the cloud, ``host`` is the host it is bound to, ``previous_host`` the one to restore.
    """

    port: str
    bridge: str
    ovsdb: str = ""
    given: str = ""
    cloud: str = ""
    clouds_file: str = ""
    host: str = ""
    previous_host: str = ""


class NicRecord(NamedTuple):
    """A NIC of the machine; ``slot`` is the root port from 0 on.

    ``queues`` is as requested (0: a single pair), ``vhost_user_socket`` empty for a TAP. ``device`` is an
    interface of the network namespace ``namespace`` (device and inode number of its file, ``4:4026531840``; a
    vhost-user NIC has none). ``carried_from`` is empty for a NIC that add-iface added; otherwise the path of
    that namespace, of which the NIC mirrors the interface with the index ``interface``. With ``dhcp`` a client in the
    guest renews its address. ``port`` is set for a NIC that add-port added.
    """

    name: str
    device: str
    mac: MacAddress
    mtu: int
    addresses: tuple[InterfaceAddress, ...]
    slot: int
    queues: int = 0
    vhost_user_socket: str = ""
    kind: EndpointKind = EndpointKind.TAP
    namespace: str = ""
    carried_from: str = ""
    interface: int = 0
    offload: bool = True
    dhcp: bool = False
    port: PortRecord | None = None

    @property
    def identity(self) -> str:
        """The ID of the NIC's parts in QEMU."""
        return f"nic{self.slot}"


class WorkKind(StrEnum):
    """The kinds of work that an interrupted command can leave pending."""

    ADD_NIC = "interface.add"
    DELETE_NIC = "interface.delete"
    MIRROR = "mirror"
    ROUTES = "routes"
    IPVS = "ipvs"

    @property
    def subject(self) -> str:
        """The subject of commands that leave such work and must recover it: ``interface`` for ``interface.add``."""
        return self.value.partition(".")[0]


class Work(NamedTuple):
    """Work that a command began, named in the record until it is finished or undone.

    ``nic`` is a NIC being added, ``name`` that of one being deleted; ``refused``: the guest has failed to release it.
    ``facts`` are those of the network namespace that are to be mirrored (``network.namespace_facts``). Routes or
    virtual servers to be restored are in a separate file (``undo_file``).
    """

    kind: WorkKind
    nic: NicRecord | None = None
    name: str = ""
    refused: bool = False
    facts: tuple[str, ...] = ()

    @property
    def nic_name(self) -> str:
        """The name of the NIC that is added or deleted; empty for other work."""
        return self.name if self.nic is None else self.nic.name


class Record(NamedTuple):
    """A sandbox.

    ``pid`` is QEMU's, 0 before it was started; with ``start_time`` (proc(5), /proc/PID/stat, field 22) it names one
    process of the host's boot ``boot_id``. ``pending`` is work that commands began and have not finished.
    ``mirrored`` are the mirrored facts of the network namespace (``network.namespace_facts``).
    ``pod`` is whether it was created for containers of an engine, whose files ``virtiofsd`` serves.
    ``ready`` is False from the start of QEMU until its agent has answered. ``cgroups`` are directories of its own.
    """

    container_id: str
    pid: int = 0
    start_time: int = 0
    boot_id: str = ""
    created: str = ""
    qemu: str = ""
    accelerator: str = ""
    vcpus: int = 1
    root_ports: int = 32
    kernel_parameters: str = ""
    shared_memory: bool = False
    ipvs_rule_limit: int = 20_000
    nics: tuple[NicRecord, ...] = ()
    mirrored: tuple[str, ...] = ()
    pending: tuple[Work, ...] = ()
    ready: bool = True
    cgroups: tuple[str, ...] = ()
    pod: bool = False
    virtiofsd: int = 0
    virtiofsd_start_time: int = 0

    @property
    def has_kvm(self) -> bool:
        """Whether the guest runs with KVM."""
        return self.accelerator == "kvm"


def boot_id() -> str:
    """The ID of this boot of the host (proc_sys_kernel(5))."""
    with open("/proc/sys/kernel/random/boot_id", "rb") as file:
        return file.read().decode("ascii").strip()


def load_record(directory: str) -> Record:
    """The record in a sandbox's directory.

    :raise FileNotFoundError: there is none.
    :raise HostError: it cannot be read, or was written by another version, or is damaged.
    """
    path = SandboxPaths(directory).record
    try:
        with open(path, "rb") as file:
            document = fast_json.loads(file.read().decode())
        version = document.pop("version")
        if version == VERSION:
            record = _record_of(document)
            # After a reboot of the host, another process can have the same pid and start time (ticks since boot).
            return record if record.boot_id in ("", boot_id()) else record._replace(pid=0, start_time=0, virtiofsd=0)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise HostError.of(f"cannot read {path}", error) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise HostError(f"{path} is damaged: {error}", hint="delete --force the container") from error
    raise HostError(
        f"{path} is of version {version!a}, this kata-runtime writes {VERSION}",
        hint="use the version that made the container, or delete --force it",
    )


def save_record(directory: str, record: Record) -> None:
    """Replace the record atomically; after a crash of the host it is either the previous or the new one.

    :raise HostError: the file system refused.
    """
    document: dict[str, Any] = {"version": VERSION, **record._asdict()}
    document["nics"] = [document_of(nic) for nic in record.nics]
    document["pending"] = [_work_document(work) for work in record.pending]
    path = SandboxPaths(directory).record
    with operation_log.measured("record", path=path, pending=document["pending"]):
        try:
            replace_whole(path, fast_json.dumps(document).encode())
        except OSError as error:
            raise HostError.of(f"cannot write {path}", error) from error


def document_of(nic: NicRecord) -> dict[str, object]:
    """A NIC as JSON object for the record."""
    return {
        **nic._asdict(),
        "mac": str(nic.mac),
        "addresses": [str(address) for address in nic.addresses],
        "port": None if nic.port is None else nic.port._asdict(),
    }


def nic_of(document: Any) -> NicRecord:
    """The NIC of a JSON object from ``document_of``.

    :raise TypeError, KeyError, ValueError: it is no NIC.
    """
    fields = dict(document)
    mac = fields["mac"] = MacAddress.parse(fields["mac"])
    addresses = fields["addresses"] = tuple(map(InterfaceAddress.parse, fields["addresses"]))
    if mac is None or None in addresses:
        raise ValueError(f"NIC {fields.get('name')!a} has {document['mac']!a} and {document['addresses']!a}")
    fields["kind"] = EndpointKind(fields["kind"])
    if fields.get("port") is not None:
        port = fields["port"] = PortRecord(**fields["port"])
        if not all(isinstance(value, str) for value in port):
            raise TypeError(f"port is {port!a}")
    return NicRecord(**fields)


def _record_of(document: dict[str, Any]) -> Record:
    document["nics"] = tuple(nic_of(nic) for nic in document["nics"])
    document["mirrored"] = tuple(document.get("mirrored", ()))
    document["cgroups"] = tuple(document.get("cgroups", ()))
    document["pending"] = tuple(_work_of(work) for work in document.get("pending", ()))
    record = Record(**document)
    for name, default in Record._field_defaults.items():
        value = getattr(record, name)
        if default is not None and type(value) is not type(default):
            raise TypeError(f"{name} is {value!a}")
    # These values decide what is killed or removed.
    if not (0 <= record.pid <= _PID_MAX and 0 <= record.virtiofsd <= _PID_MAX and isinstance(record.container_id, str)):
        raise ValueError(f"pid is {record.pid}")
    if not all(isinstance(path, str) for path in record.cgroups):
        raise TypeError(f"cgroups is {record.cgroups!a}")
    return record


def _work_of(document: Any) -> Work:
    if not isinstance(document, dict):
        raise TypeError(f"pending work is {document!a}")
    fields = dict(document)
    fields["kind"] = WorkKind(fields["kind"])
    if "nic" in fields:
        fields["nic"] = nic_of(fields["nic"])
    work = Work(**fields)._replace(facts=tuple(fields.get("facts", ())))
    if (work.nic is None) == (work.kind is WorkKind.ADD_NIC) or not isinstance(work.name, str):
        raise ValueError(f"pending work is {document!a}")
    return work


def _work_document(work: Work) -> dict[str, object]:
    """Work as JSON object, with only the fields that differ from the defaults."""
    document = {name: value for name, value in work._asdict().items() if value != Work._field_defaults.get(name)}
    if work.nic is not None:
        document["nic"] = document_of(work.nic)
    return document
