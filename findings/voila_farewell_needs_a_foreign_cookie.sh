#!/usr/bin/env bash
# voila 0.5.13: the kernel of a closed page stays, unless another Jupyter server gave the browser a cookie.
#
# A page that is closed posts its kernel's id to /voila/api/shutdown, with the value of the cookie _xsrf. But nothing
# in Voila sets that cookie: tornado does when somebody asks for `handler.xsrf_token`, and nobody does. So in a
# browser that has seen no JupyterLab on the same host (cookies don't know ports) the post is refused with 403, and the
# kernel stays with all its memory (voila#1458); in a developer's browser, which has, all is well. What to do: cull
# kernels without a page (MappingKernelManager.cull_idle_timeout), and in a server of one's own ask for the token in
# `VoilaConfiguration.prelaunch_hook`, which gets the handler. Seen:
#
#     cookies that the page sets: none
#     as Voila serves it:         403, kernel there: True
#     with a cookie _xsrf:        204, kernel there: False
#     with the hook:              _xsrf; 204, kernel there: False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet voila==0.5.13 jupyter-server==2.21.1 ipykernel==7.4.0
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PY'
import json
import re
import threading
import urllib.error
import urllib.parse
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path

from tornado.ioloop import IOLoop

from voila.app import Voila

cell = {"cell_type": "code", "source": "1", "metadata": {}, "outputs": [], "execution_count": None, "id": "a"}
kernel = {"name": "python3", "display_name": "", "language": "python"}
notebook = {"cells": [cell], "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
Path("one.ipynb").write_text(json.dumps(notebook))
lines = []


def visit(cookie=None):
    """Open the page and close it, as a browser does: (cookies, status of the farewell, kernel still there)."""
    jar = CookieJar()
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
    browser.addheaders = [("Cookie", f"_xsrf={cookie}")] if cookie else []
    page = browser.open(server.connection_url).read().decode()
    kernel = re.search(r'"kernelId": "([^"]+)"', page)[1]
    cookies = {each.name: each.value for each in jar}
    form = urllib.parse.urlencode({"_xsrf": cookie or cookies.get("_xsrf", "")}).encode()
    try:
        status = browser.open(f"{server.connection_url}voila/api/shutdown/{kernel}", form).status
    except urllib.error.HTTPError as error:
        status = error.code
    there = kernel in server.kernel_manager
    return [name for name in cookies if name == "_xsrf"], status, there


def visits():
    try:
        cookies, status, there = visit()
        lines.append(f"cookies that the page sets: {cookies or 'none'}")
        lines.append(f"as Voila serves it:         {status}, kernel there: {there}")
        assert not cookies and status == 403 and there
        _, status, there = visit("0123456789abcdef0123456789abcdef")
        lines.append(f"with a cookie _xsrf:        {status}, kernel there: {there}")
        assert status == 204 and not there
        server.voila_configuration.prelaunch_hook = lambda handler, **_: handler.xsrf_token and None
        (name,), status, there = visit()
        lines.append(f"with the hook:              {name}; {status}, kernel there: {there}")
        assert status == 204 and not there
    finally:
        server.ioloop.add_callback(server.ioloop.stop)


server = Voila(notebook_path="one.ipynb", open_browser=False, port=18867, log_level="CRITICAL")
server.initialize([])
IOLoop.current().add_callback(threading.Thread(target=visits).start)
server.start()
print("\n".join(lines))
assert len(lines) == 4
PY
