"""The log of --log and --debug; this module is imported only with these options, as ``logging`` loads slowly."""

from __future__ import annotations

import json
import logging
import os
import traceback
from datetime import UTC, datetime

from kata_runtime import operation_log
from kata_runtime.cli.streams import encoded, notify, one_line, write_note
from kata_runtime.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from kata_runtime.cli.argument_parser import Call

LOGGER = logging.getLogger("kata_runtime")
# Longer fields, such as the output of a command in the guest, are cut.
_FIELD_CHARACTERS = 4000


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            # RFC 3339: containerd ignores entries with another format.
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "pid": record.process,
            "name": record.name,
            "message": record.getMessage(),
        }
        failure = getattr(record, "failure", None)
        if failure is not None:
            fields["msg"] = failure  # what engines show their users
        return json.dumps(fields | getattr(record, "fields", {}))


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = dict(getattr(record, "fields", {}))
        failure = fields.pop("traceback", "")
        # Values can come from a guest. JSON escapes line breaks and control sequences for terminals.
        shown = "".join(f" {key}={json.dumps(value)}" for key, value in fields.items())
        return (
            one_line(super().format(record)) + shown + "".join(f"\n{one_line(line)}" for line in failure.splitlines())
        )


class _FileHandler(logging.Handler):
    """Appends each record by one write; failures do not make the command fail."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._failed = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record; the first failure is reported on standard error."""
        try:
            os.write(self._file, encoded(f"{self.format(record)}\n"))
        except OSError as exc:
            if not self._failed:
                notify(f"cannot write the log {self._path!a}: {os.strerror(exc.errno or 0)}")
            self._failed = True

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
        super().close()


class _ErrorHandler(logging.Handler):
    """Writes to standard error without blocking on its reader, since the container's lock may be held."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write as much of the record as standard error takes without blocking."""
        write_note(encoded(f"{self.format(record)}\n"))


def start_log(call: Call) -> None:
    """Direct the package's logger to the file or stream that the call's options name.

    :raise HostError: the log file cannot be opened.
    """
    path = call.settings.get("--log")
    try:
        handler = _FileHandler(path) if path else _ErrorHandler()
    except OSError as exc:
        raise HostError.of(f"cannot open the log {path!a}", exc) from exc
    if call.settings.get("--log-format") == "json":
        handler.setFormatter(_JsonFormatter())
    else:
        handler.setFormatter(_TextFormatter("%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"))
    LOGGER.addHandler(handler)
    LOGGER.setLevel(_level(call))
    LOGGER.propagate = False
    if LOGGER.isEnabledFor(logging.DEBUG):
        operation_log.send_to(_log_operation)
    LOGGER.info("%s %s", call.command.name, " ".join(map(ascii, call.operands)))


def _level(call: Call) -> int:
    if "--debug" in call.settings:
        return logging.DEBUG
    # Podman parses the whole file as one record, the error of the failed command.
    return logging.ERROR if call.settings.get("--log-format") == "json" else logging.INFO


def log_end(status: int, failed: BaseException | None) -> None:
    """Log how the command ended, with --debug including the traceback of a failure."""
    if not LOGGER.handlers:
        return  # the log could not be opened: logging itself would write to standard error
    if failed is None:
        LOGGER.info("exit status %d", status)
        return
    fields = {}
    if LOGGER.isEnabledFor(logging.DEBUG):
        fields["traceback"] = "".join(traceback.format_exception(failed)).rstrip("\n")
    LOGGER.error("exit status %d: %s", status, failed, extra={"fields": fields, "failure": str(failed)})


def _log_operation(operation: str, fields: Mapping[str, object]) -> None:
    shown = {key: _shortened(value) for key, value in fields.items()}
    LOGGER.debug("%s", operation, extra={"fields": shown})


def _shortened(value: object) -> object:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    if len(text) <= _FIELD_CHARACTERS:
        return value if isinstance(value, str) else json.loads(text)
    return f"{text[:_FIELD_CHARACTERS]} ... ({len(text)} characters)"
