"""``hashlib.sha256`` for short texts without ``hashlib``, which loads OpenSSL in 4 ms.

For large data ``hashlib`` is faster: OpenSSL uses the processor's instructions.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hashlib import sha256
else:
    try:
        from _sha2 import sha256  # since Python 3.12
    except ImportError:
        from _sha256 import sha256


__all__ = ["sha256"]
