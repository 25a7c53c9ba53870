"""What the operator does with databases as a whole, and with what is beside them."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from tether.domain.errors import SetupError
from tether.storage import copying
from tether.storage.database import Database


def redis_version(url: str) -> str:
    """The version of the Redis at this URL. Raises SetupError if it does not answer."""
    from redis import Redis, RedisError

    try:
        with Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2) as redis:
            return str(redis.info("server")["redis_version"])
    except (RedisError, OSError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SetupError(f"Redis does not answer: {reason}.") from error


def copy(
    source: Database,
    target: Database,
    progress: Callable[[str, int], AbstractContextManager[Callable[[float], None]]],
) -> int:
    """Copies a database into a new one of either kind, or goes on with it, and checks the copy.

    `progress` shows how far it is: what is done, and how many rows there are. Returns that number.
    Raises SetupError; then nothing can be served that is not whole.
    """
    with source.only_server(), source.side() as from_, target.only_server():
        known = source.epoch()
        if not _is_begun(target):
            target.migrate()
        with target.side() as to:
            from_.check_alone()
            to.check_alone()
            from_.freeze()
            copying.begin(from_, to, known)
            rows = copying.total(from_)
            with progress("Copying", rows) as done:
                copying.copy(from_, to, done)
            with progress("Comparing", rows) as done:
                copying.compare(from_, to, done)
            from_.check_alone()
            copying.finish(to, known)
            return rows


def _is_begun(database: Database) -> bool:
    """Whether it is a copy that is not whole."""
    if database.file is not None and not database.file.exists():
        return False
    with database.side() as side:
        return copying.origin_of(side) is not None
