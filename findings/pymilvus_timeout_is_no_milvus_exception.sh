#!/usr/bin/env bash
# pymilvus 3.0.2: a server that is gone raises MilvusException; one that stands still raises something else.
#
# Calls take `timeout`, and what goes wrong with a server is a MilvusException. But where the time is up while it
# holds the connection and says nothing, gRPC's own error comes through: pymilvus.decorators raises
# DEADLINE_EXCEEDED, and a few more codes, as they are. So `except MilvusException` lets it pass in the very case
# that a timeout is for. Seen:
#
#     stopped: _InactiveRpcError, a MilvusException: False, a grpc.RpcError: True
#     killed: MilvusException, a MilvusException: True, a grpc.RpcError: False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pymilvus==3.0.2 milvus-lite==3.2.2
cat >"$folder/script.py" <<'PY'
import logging
import signal
import socket
import subprocess
import sys
import time

import grpc
from pymilvus import MilvusClient
from pymilvus.exceptions import MilvusException

logging.getLogger("pymilvus").setLevel(logging.CRITICAL + 1)
with socket.socket() as some:
    some.bind(("127.0.0.1", 0))
    port = some.getsockname()[1]
told = ["--data-dir", sys.argv[1], "--host", "127.0.0.1", "--port", str(port)]
server = subprocess.Popen([sys.executable, "-m", "milvus_lite", "server", *told], stdout=-3, stderr=-3)
while socket.socket().connect_ex(("127.0.0.1", port)):
    time.sleep(0.1)
client = MilvusClient(f"http://127.0.0.1:{port}")
client.create_collection("some", dimension=2)
for name, sign in (("stopped", signal.SIGSTOP), ("killed", signal.SIGKILL)):
    server.send_signal(sign)
    try:
        client.query("some", filter="", output_fields=["count(*)"], timeout=3)
    except Exception as error:
        ours, grpcs = isinstance(error, MilvusException), isinstance(error, grpc.RpcError)
        print(f"{name}: {type(error).__name__}, a MilvusException: {ours}, a grpc.RpcError: {grpcs}")
PY
"$folder/venv/bin/python" "$folder/script.py" "$folder/data.db" 2>"$folder/said" | tee "$folder/seen"
diff "$folder/seen" - <<'SEEN'
stopped: _InactiveRpcError, a MilvusException: False, a grpc.RpcError: True
killed: MilvusException, a MilvusException: True, a grpc.RpcError: False
SEEN
