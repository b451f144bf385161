"""Locks of open files, which end with the process that holds them."""

__all__ = ["try_lock"]


def try_lock(descriptor: int) -> bool:
    """Lock an open file for this process; False if another process holds it.

    True without a lock on a system (Windows) or a file system that has none: who asked goes on as if alone.
    """
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return True
    return True
