"""``signal`` without its enumerations, which take longer to build than most commands take for their work.

Functions and constants are those of ``_signal``, CPython's C module; the constants are plain integers.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from signal import (
        SIG_BLOCK,
        SIG_DFL,
        SIG_SETMASK,
        SIG_UNBLOCK,
        SIGCONT,
        SIGHUP,
        SIGINT,
        SIGKILL,
        SIGQUIT,
        SIGSTOP,
        SIGTERM,
        SIGTSTP,
        SIGTTOU,
        SIGUSR1,
        SIGUSR2,
        SIGWINCH,
        getsignal,
        pidfd_send_signal,
        pthread_sigmask,
        set_wakeup_fd,
        signal,
        valid_signals,
    )
else:
    from _signal import (
        SIG_BLOCK,
        SIG_DFL,
        SIG_SETMASK,
        SIG_UNBLOCK,
        SIGCONT,
        SIGHUP,
        SIGINT,
        SIGKILL,
        SIGQUIT,
        SIGSTOP,
        SIGTERM,
        SIGTSTP,
        SIGTTOU,
        SIGUSR1,
        SIGUSR2,
        SIGWINCH,
        getsignal,
        pidfd_send_signal,
        pthread_sigmask,
        set_wakeup_fd,
        signal,
        valid_signals,
    )

__all__ = [
    "SIGCONT",
    "SIGHUP",
    "SIGINT",
    "SIGKILL",
    "SIGQUIT",
    "SIGSTOP",
    "SIGTERM",
    "SIGTSTP",
    "SIGTTOU",
    "SIGUSR1",
    "SIGUSR2",
    "SIGWINCH",
    "SIG_BLOCK",
    "SIG_DFL",
    "SIG_SETMASK",
    "SIG_UNBLOCK",
    "getsignal",
    "pidfd_send_signal",
    "pthread_sigmask",
    "set_wakeup_fd",
    "signal",
    "valid_signals",
]
