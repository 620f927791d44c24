"""Who works in a folder: a lock that tells an owner that runs from one that was killed."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal

try:
    import fcntl
except ImportError:  # not a POSIX system: two processes that begin within a millisecond are not told apart
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
_FIRST_SPACE = "pid:[4026531836]"  # the number of the machine itself on every Linux
State = Literal["running", "gone", "elsewhere"]
_held: dict[Path, list[Path]] = {}  # with the folders that were made for it


@dataclass(frozen=True)
class Owner:
    """A process, told apart from a later one with the same number by when it began.

    Attributes:
        host: name of the machine, and of the container on it.
        pid: number of the process on it.
        began: when it began, in units of the system; only compared.
    """

    host: str
    pid: int
    began: float

    @classmethod
    def this_process(cls) -> Owner:
        """The process that asks."""
        found = cls.of(os.getpid())
        assert found is not None
        return found

    @classmethod
    def of(cls, pid: int) -> Owner | None:
        """A process of this machine, `None` where there is none of this number."""
        began = _began(pid)
        return None if began is None else cls(_host(), pid, began)

    @classmethod
    def from_record(cls, record: Any) -> Owner | None:
        """The owner that was written as `asdict`; `None` where the record is absent or cut."""
        try:
            return cls(str(record["host"]), int(record["pid"]), float(record["began"]))
        except (KeyError, TypeError, ValueError):
            return None

    @property
    def state(self) -> State:
        """Whether it runs, as far as this machine can tell."""
        if self.host != _host():
            return "elsewhere"
        return "running" if _began(self.pid) == self.began else "gone"


def _host() -> str:
    """The machine; inside a container, whose processes have numbers of their own, also which one."""
    with contextlib.suppress(OSError):
        if (space := os.readlink("/proc/self/ns/pid")) != _FIRST_SPACE:
            return f"{socket.gethostname()} {space}"
    return socket.gethostname()


def _began(pid: int) -> float | None:
    """When a process began; `None` when there is none, or only its remains that nobody has waited for."""
    try:
        # psutil adds the time of booting, which moves whenever the clock is set
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else float(fields[19])
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None


def status_now(record: Mapping[str, Any]) -> str | None:
    """The status of a run as it is now: a run that says it runs, and whose process is gone, was killed.

    Args:
        record: with `status` and, since version 0.2, `process`.
    """
    status = record.get("status")
    owner = Owner.from_record(record.get("process"))
    return "killed" if status == "running" and owner is not None and owner.state == "gone" else status


def check_free(folder: Path) -> None:
    """Refuse a folder that another process works in.

    Raises:
        ValueError: naming that process, and what to do.
    """
    path = folder / LOCK
    if path.is_file():
        _check_owner(folder, path.read_text(encoding="utf-8"))


def _check_owner(folder: Path, content: str) -> None:
    """Refuse unless the content of a lock names this process, one that is gone, or none."""
    try:
        owner = Owner.from_record(json.loads(content or "null"))
    except json.JSONDecodeError:  # its writer was killed while writing
        owner = None
    if owner is None or owner.state == "gone" or owner == Owner.this_process():
        return
    process = f"process {owner.pid} on {owner.host}"
    if owner.state == "running":
        raise ValueError(
            f"output_dir: {str(folder)!r} is in use by {process}; wait until it has ended, or name another folder."
        )
    raise ValueError(
        f"output_dir: {str(folder)!r} is in use by {process}, which cannot be looked at from here; wait until it has "
        f"ended, name another folder, or, if it was killed, delete {str(folder / LOCK)!r}."
    )


@contextmanager
def opened_alone(path: Path) -> Iterator[IO[str]]:
    """A file to read and write, made if absent, for one process at a time; others wait."""
    while True:
        with path.open("a+", encoding="utf-8") as file:
            if fcntl is not None:
                with contextlib.suppress(OSError):  # file systems without such locks
                    fcntl.flock(file, fcntl.LOCK_EX)
            if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
                continue  # its owner has removed it in the meantime
            yield file
            return


def hold_folder(folder: Path) -> bool:
    """Work in `folder` alone from here on, until `release_folder` or the end of the process.

    Of several processes of one launch, one holds it for all.

    Returns:
        Whether this process did not hold it before.

    Raises:
        ValueError: when another process works there.
    """
    made = [each for each in (folder.absolute(), *folder.absolute().parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    owner = Owner.this_process()
    with opened_alone(folder / LOCK) as file:
        file.seek(0)
        content = file.read()
        _check_owner(folder, content)
        text = json.dumps(asdict(owner)) + "\n"
        if content == text:
            return False
        file.truncate(0)
        file.write(text)
        file.flush()
    _held[folder.absolute()] = made
    return True


def release_folder(folder: Path) -> None:
    """Let others work in `folder`, if this process held it; one that was made for it and is empty goes, too."""
    made = _held.pop(folder.absolute(), [])
    path = folder / LOCK
    if not path.is_file():
        return
    with opened_alone(path) as file:
        file.seek(0)
        if file.read() == json.dumps(asdict(Owner.this_process())) + "\n":
            path.unlink()
    for each in made:
        if any(each.iterdir()):
            break
        each.rmdir()


@atexit.register
def release_all() -> None:
    """Let others work in every folder that this process holds."""
    for folder in list(_held):
        release_folder(folder)


@contextmanager
def held_folder(folder: Path) -> Iterator[None]:
    """Work in `folder` alone in a block; held already by this process, it stays so afterwards.

    Raises:
        ValueError: when another process works there.
    """
    first = hold_folder(folder)
    try:
        yield
    finally:
        if first:
            release_folder(folder)
