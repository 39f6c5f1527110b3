"""Runs the hooks of a container on the host (OCI, "POSIX-platform Hooks")."""

from __future__ import annotations

from kata_runtime.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kata_runtime.oci.bundle import Hook

# Timeout of a hook that has none of its own.
_HOOK_SECONDS = 60.0
_SHOWN = 300


def run_hooks(hooks: Sequence[Hook], state: Mapping[str, object], directory: str) -> None:
    """Run the hooks in order, with the container's state on standard input.

    :raise HostError: one cannot be started, fails, or outlasts its timeout; those after it are not run.
    """
    for hook in hooks:
        _run_hook(hook, state, directory)


def run_late_hooks(
    hooks: Sequence[Hook], state: Mapping[str, object], directory: str, warn: Callable[[str], None]
) -> None:
    """Run all hooks; ``warn`` is called for those that fail, as they cannot undo what was done (OCI, "Lifecycle")."""
    for hook in hooks:
        try:
            _run_hook(hook, state, directory)
        except HostError as error:
            warn(str(error))


def _run_hook(hook: Hook, state: Mapping[str, object], directory: str) -> None:
    import json
    import subprocess

    seconds = hook.timeout or _HOOK_SECONDS
    try:
        done = subprocess.run(
            list(hook.argv) or [hook.path], executable=hook.path, cwd=directory, input=json.dumps(state).encode(),
            env=_environment(hook), capture_output=True, check=False,
            timeout=seconds, close_fds=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise HostError(f"the hook {hook.path} has not ended within {seconds:g} s") from None
    except OSError as error:
        raise HostError.of(f"cannot run the hook {hook.path}", error) from error
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()[-_SHOWN:]
        raise HostError(f"the hook {hook.path} ended with status {done.returncode}: {said or 'without a message'}")


def _environment(hook: Hook) -> dict[str, str] | None:
    """The environment of a hook; if it has none, this process's, as with runc and crun."""
    return dict(entry.partition("=")[::2] for entry in hook.environment) if hook.environment else None
