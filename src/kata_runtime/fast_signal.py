"""``signal`` without the enumerations that it makes of its numbers, which take longer than most commands' work.

The functions and numbers of CPython's own module below it; the numbers are plain ones.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from signal import (
        SIG_BLOCK,
        SIG_DFL,
        SIG_SETMASK,
        SIGHUP,
        SIGINT,
        SIGKILL,
        SIGSTOP,
        SIGTERM,
        SIGTSTP,
        SIGTTOU,
        getsignal,
        pidfd_send_signal,
        pthread_sigmask,
        signal,
        valid_signals,
    )
else:
    from _signal import (
        SIG_BLOCK,
        SIG_DFL,
        SIG_SETMASK,
        SIGHUP,
        SIGINT,
        SIGKILL,
        SIGSTOP,
        SIGTERM,
        SIGTSTP,
        SIGTTOU,
        getsignal,
        pidfd_send_signal,
        pthread_sigmask,
        signal,
        valid_signals,
    )

__all__ = [
    "SIGHUP",
    "SIGINT",
    "SIGKILL",
    "SIGSTOP",
    "SIGTERM",
    "SIGTSTP",
    "SIGTTOU",
    "SIG_BLOCK",
    "SIG_DFL",
    "SIG_SETMASK",
    "getsignal",
    "pidfd_send_signal",
    "pthread_sigmask",
    "signal",
    "valid_signals",
]
