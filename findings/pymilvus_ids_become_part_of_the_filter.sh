#!/usr/bin/env bash
# pymilvus 3.0.2: an id that is passed as an id can delete other rows.
#
# `client.delete(collection, ids=[…])` and `client.get(collection, ids=[…])` look like parameters, but the client makes
# a filter of them, `key in ['…','…']`, and pastes ids that are strings in between the quotes as they are. So the id
# `x', 'a', 'b` names three rows, and no row is named by an id with a quote in it, or with a backslash before its end:
# it cannot be read or deleted. Ids are file names, titles and addresses, and so from outside. The same goes for
# `query_iterator`, which pastes the last id of a page. What to do: keys that need no escaping, such as a hash of the
# id, with the id itself in a field of its own. Seen:
#
#     rows before: a, b, o'clock, x', 'a', 'b
#     get(ids=["o'clock"]): unterminated string literal
#     delete(ids=["x', 'a', 'b"]) says it deleted x, a, b
#     rows after: o'clock, x', 'a', 'b
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pymilvus==3.0.2 milvus-lite==3.2.2
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import logging

from pymilvus import DataType, MilvusClient, MilvusException

logging.getLogger("pymilvus").setLevel(logging.CRITICAL + 1)
client = MilvusClient("rows.db")
schema = MilvusClient.create_schema(auto_id=False)
schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=100)
schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
index = MilvusClient.prepare_index_params()
index.add_index("vector", index_type="FLAT", metric_type="IP")
client.create_collection("rows", schema=schema, index_params=index, consistency_level="Strong")
client.insert("rows", [{"key": key, "vector": [1.0, 0.0]} for key in ("a", "b", "o'clock", "x', 'a', 'b")])


def rows():
    return sorted(row["key"] for row in client.query("rows", filter="", limit=10, output_fields=["key"]))


print("rows before:", ", ".join(rows()))
try:
    client.get("rows", ids=["o'clock"])
    raise AssertionError("it is found")
except MilvusException as error:
    print("get(ids=[\"o'clock\"]):", error.message.split(" at ")[0])
told = client.delete("rows", ids=["x', 'a', 'b"])
print("delete(ids=[\"x', 'a', 'b\"]) says it deleted", ", ".join(told))
print("rows after:", ", ".join(rows()))
assert rows() == ["o'clock", "x', 'a', 'b"]
PY
