"""What the system says of files: on which disk a folder is, and whether a file is still being written.

Behind a network, times and locks are another machine's.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from pathlib import Path

import psutil

NETWORKS = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "ceph", "glusterfs", "afs")


def network_of(folder: Path) -> str | None:
    """The kind of network file system that a folder is on, and where that is mounted; None on this machine's disks."""
    place = str(folder.absolute())
    mountpoint, kind = "", ""
    for mount in psutil.disk_partitions(all=True):
        inside = place == mount.mountpoint or place.startswith(mount.mountpoint.rstrip("/") + "/")
        if inside and len(mount.mountpoint) >= len(mountpoint):
            mountpoint, kind = mount.mountpoint, mount.fstype
    return f"{kind} at {mountpoint}" if kind in NETWORKS else None


def has_writer(path: Path) -> bool | None:
    """Whether somebody has a file open for writing, as Linux says to its owner; None where it cannot be told."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # A lease to read is given only where nobody writes. Who opens the file in this moment waits until it is given
        # back, and the signal of that is one that ends no process.
        fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    finally:
        os.close(file)
    return False
