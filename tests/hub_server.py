"""A hub on this machine: what huggingface_hub asks of the real one, answered from memory."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]


@dataclass
class Hub:
    """Models by their names, and what was asked.

    Attributes:
        models: the files of each model.
        asked: method and path of each request.
        cut: the files of which only the first half is sent.
        sizes: what the hub claims of files' sizes, where it is not their size.
        address: where it listens.
    """

    models: dict[str, Files] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    cut: set[str] = field(default_factory=set)
    sizes: dict[str, int] = field(default_factory=dict)
    address: str = ""

    def commit(self, name: str) -> str:
        """The digest of a model's state, which stands for a commit."""
        state = b"".join(key.encode() + value for key, value in sorted(self.models[name].items()))
        return hashlib.sha1(state).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _answer(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _answer_json(self, values: object, status: int = 200) -> None:
        self._answer(json.dumps(values).encode(), status, {"Content-Type": "application/json"})

    def _refuse(self, code: str) -> None:
        self._answer(b"", 404, {"X-Error-Code": code, "X-Error-Message": code})

    def _file(self) -> None:
        """HEAD or GET of /USER/NAME/resolve/REVISION/FILE."""
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")
        name = "/".join(parts[:2])
        if name not in self.hub.models or len(parts) != 5 or parts[2] != "resolve":
            self._refuse("RepoNotFound")
            return
        commit, file = self.hub.commit(name), parts[4]
        if parts[3] not in ("main", "v1", commit):
            self._refuse("RevisionNotFound")
            return
        if file not in self.hub.models[name]:
            self._refuse("EntryNotFound")
            return
        content = self.hub.models[name][file]
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": commit}
        if self.command == "HEAD":
            headers["Content-Length"] = str(self.hub.sizes.get(file, len(content)))
        if file in self.hub.cut:
            content = content[: len(content) // 2]
        self._answer(content, 200, headers)

    do_HEAD = _file  # noqa: N815

    def do_GET(self) -> None:
        """Whose the token is, which files there are, or a file."""
        path = urlsplit(self.path).path
        if path == "/api/whoami-v2":
            if self._is_known():
                self._answer_json({"name": "me"})
        elif path.startswith("/api/models/") and "/tree/" in path:
            files = self.hub.models["/".join(path.split("/")[3:5])]
            self._answer_json(
                [
                    {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
                    for name, content in files.items()
                ]
            )
        else:
            self._file()

    def _is_known(self) -> bool:
        """Whether the token is good; else say so."""
        known = self.headers.get("Authorization") == "Bearer good"
        if not known:
            self._answer_json({"error": "Invalid username or password."}, 401)
        return known

    def do_POST(self) -> None:
        """What an upload asks."""
        path = urlsplit(self.path).path
        self.hub.asked.append(f"POST {path}")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self._is_known():
            return
        if path == "/api/repos/create":
            values = json.loads(body)
            name = f"{values['organization']}/{values['name']}"
            self.hub.models.setdefault(name, {})
            self._answer_json({"url": f"{self.hub.address}/{name}", "id": name})
        elif path == "/api/validate-yaml":
            self._answer_json({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            files = [
                {"path": entry["path"], "uploadMode": "regular", "shouldIgnore": False}
                for entry in json.loads(body)["files"]
            ]
            self._answer_json({"files": files})
        elif "/commit/" in path:
            self._commit("/".join(path.split("/")[3:5]), body)
        else:
            self._refuse("RepoNotFound")

    def _commit(self, name: str, body: bytes) -> None:
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                value = entry["value"]
                self.hub.models[name][value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "deletedFile":
                del self.hub.models[name][entry["value"]["path"]]
        commit = self.hub.commit(name)
        address = f"{self.hub.address}/{name}/commit/{commit}"
        self._answer_json({"commitUrl": address, "commitOid": commit})


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that listens on a free port of the loopback."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
