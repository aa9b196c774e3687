"""A collection of a Milvus server, or of Milvus Lite in this process, and what to do where none answers."""

import json
import logging
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ragkit.retrieval.corpus import Passage
from ragkit.retrieval.storage import KIND, MANIFEST

FIELDS = tuple(Passage.__dataclass_fields__)  # each of them a string
BYTES = 65_535  # of UTF-8 in a string: what servers hold. Milvus Lite counts characters
ANSWERS = 10.0  # seconds in which a server is to take a connection
_open: Counter[Path] = Counter()  # how many connections of this process use a folder of Milvus Lite


def is_milvus(place: str | Path) -> bool:
    """Whether a library by this name is one in Milvus: an address, or a name that ends in .db."""
    return "://" in str(place) or (_is_folder(str(place)) and not (_path(place) / MANIFEST).exists())


class Collection:
    """One collection at `place`, a folder whose name ends in .db or an address.

    Raises FileNotFoundError where there is no such folder and none is to be made, ValueError for what is no
    place; where Milvus does not answer, OSError that says what to do, here and in `call`.
    """

    def __init__(self, place: str, collection: str, token: str, timeout: float, make: bool):
        self.place, self.collection = place, collection
        self._timeout = None if _is_folder(place) else timeout  # this process does not go away
        self._client = _connected(place, token, make)

    def __str__(self) -> str:
        """The place, without a password."""
        return re.sub(r"//[^@/]*@", "//", self.place)

    def call(self, name: str, **arguments):
        """A method of pymilvus's client on this collection."""
        if self._client is None:
            raise ValueError(f"this library is closed; open it again: MilvusLibrary.load({str(self)!r})")
        with self.explained():
            return getattr(self._client, name)(self.collection, **{"timeout": self._timeout} | arguments)

    def explained(self):
        return _explained(str(self))

    def make(self, encoder: str, fingerprint: str, dimension: int) -> None:
        """A row is a passage: `key`, `number`, which gives the order, FIELDS and `vector`."""
        from pymilvus import DataType, MilvusClient

        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=64)
        schema.add_field("number", DataType.INT64)
        for name in FIELDS:
            schema.add_field(name, DataType.VARCHAR, max_length=BYTES)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dimension)
        facts = KIND | {"encoder": encoder, "fingerprint": fingerprint, "dimension": dimension}
        self.call(
            "create_collection",
            schema=schema,
            consistency_level="Strong",  # a search sees all that was written before it
            properties={"ragkit": json.dumps(facts)},  # Milvus Lite loses descriptions
        )

    def index(self) -> None:
        """Have the vectors indexed and in memory. Who made the collection may have been killed before."""
        from pymilvus import MilvusClient

        if not self.call("list_indexes"):
            index = MilvusClient.prepare_index_params()
            index.add_index("vector", index_name="vector", index_type="FLAT", metric_type="IP")
            self.call("create_index", index_params=index)
        self.call("load_collection", timeout=None)  # it takes as long as it takes

    def facts(self) -> dict:
        """What `make` was told. Raises FileNotFoundError or ValueError where it has not made this."""
        named = f"the collection {self.collection!r} at {self}"
        if not self.call("has_collection"):
            raise FileNotFoundError(f"{named} is not there (MilvusLibrary.open makes it)")
        told = self.call("describe_collection")
        try:
            facts = json.loads(told["properties"]["ragkit"])
            if any(facts.get(key) != value for key, value in KIND.items()):
                raise ValueError(f"it says {facts}")
            sizes = [field["params"].get("dim") for field in told["fields"] if field["name"] == "vector"]
            indexes = (self.call("describe_index", index_name=name) for name in self.call("list_indexes"))
            others = [index["metric_type"] for index in indexes if index["metric_type"] != "IP"]
            if sizes != [facts["dimension"]] or others or not {"encoder", "fingerprint"} <= {*facts}:
                raise ValueError(f"it says {facts}, with vectors of {sizes} dimensions compared by {others}")
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{named} is no library of this ragkit ({error!r}): name another") from error
        return facts

    def close(self) -> None:
        """Another process can open the folder then, once nobody else in this one uses it."""
        client, self._client = self._client, None
        if client is None:
            return
        client.close()
        if _is_folder(self.place):
            from milvus_lite.server_manager import server_manager_instance

            path = _path(self.place)
            _open[path] -= 1
            if not _open[path]:
                server_manager_instance.release_server(str(path))


def _is_folder(place: str) -> bool:
    return "://" not in place and place.endswith(".db")


def _path(place: str | Path) -> Path:
    return Path(place).expanduser().resolve()


def _connected(place: str, token: str, make: bool):
    try:
        from pymilvus import MilvusClient
    except ModuleNotFoundError as error:
        if error.name != "pymilvus":
            raise
        raise OSError(
            'a library in Milvus needs pymilvus, which is not installed: pip install -e ".[scale]"'
        ) from error
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL + 1)  # it prints what it raises, too
    if not is_milvus(place):
        raise ValueError(f"place={place!r}: a folder's name ends in .db; a server is http://HOST:19530")
    if not _is_folder(place):
        with _explained(re.sub(r"//[^@/]*@", "//", place)):
            return MilvusClient(place, token=token, timeout=ANSWERS)
    path = _path(place)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{place!r} is a file, and a library of Milvus Lite is a folder: name another")
    if not make and not path.exists():
        raise FileNotFoundError(f"no library in {place!r} (MilvusLibrary.open makes one)")
    path.parent.mkdir(parents=True, exist_ok=True)
    with _explained(place):
        client = MilvusClient(str(path))
    _open[path] += 1
    return client


class _Heard(logging.Handler):
    """Milvus Lite tells its log, and nobody else, why it does not open a folder."""

    def __init__(self):
        super().__init__()
        self.cause = None

    def emit(self, record: logging.LogRecord) -> None:
        self.cause = record.exc_info[1] if record.exc_info else None


@contextmanager
def _explained(place: str) -> Iterator[None]:
    """What Milvus raises inside becomes an OSError that names the place and says what to do."""
    from grpc import RpcError
    from pymilvus.exceptions import MilvusException

    logger, heard = logging.getLogger("milvus_lite.server_manager"), _Heard()
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(heard)
    try:
        yield
    except (MilvusException, RpcError) as error:  # the latter where an answer is not there in time
        said = error.details() if isinstance(error, RpcError) else error.message
        if type(heard.cause).__name__ == "DataDirLockedError":
            serve = f"milvus-lite server --host 127.0.0.1 --data-dir {place}"
            raise OSError(
                f"{place!r} is in use by another process, and Milvus Lite lets in one at a time: close it "
                f"there, or serve it to both as http://127.0.0.1:19530 ({serve})"
            ) from error
        if _is_folder(place):
            raise OSError(f"Milvus Lite, {place!r}: {heard.cause or said}") from error
        raise OSError(
            f"Milvus at {place} does not answer, or not as it should: does it run there, and is that its "
            f"address? Without a server, name a folder: library.db ({said})"
        ) from error
    finally:
        logger.removeHandler(heard)
        logger.propagate = propagates
