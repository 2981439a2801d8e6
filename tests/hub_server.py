"""A hub of models on this machine's loopback: as much of Hugging Face's as its client asks for."""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SHA = "0" * 40


class Hub(BaseHTTPRequestHandler):
    """Models by name, each with its files; what was asked for, in order."""

    models: dict[str, dict[str, bytes]]
    asked: list[str]
    token = "hf_mine"

    def log_message(self, *_):
        pass

    def answer(self, content, code=200, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, code, error):
        self.answer({"error": error}, code, X_Error_Code=error, X_Error_Message=error)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.asked.append(self.path)
        if match := re.fullmatch(
            r"/api/models/([^/]+/[^/]+)/(revision|tree)/\w+(\?.*)?", self.path
        ):
            name, kind, _ = match.groups()
            if name not in self.models:
                return self.refuse(404, "RepoNotFound")
            files = self.models[name]
            if kind == "tree":
                listed = [
                    {"type": "file", "path": path, "size": len(data), "oid": _oid(data)}
                    for path, data in files.items()
                ]
                return self.answer(listed)
            siblings = [{"rfilename": path} for path in files]
            return self.answer({"id": name, "sha": SHA, "siblings": siblings, "private": False})
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/\w+/(.+)", self.path):
            name, path = match.groups()
            if path not in self.models.get(name, {}):
                return self.refuse(404, "EntryNotFound")
            data = self.models[name][path]
            return self.answer(data, ETag=f'"{_oid(data)}"', X_Repo_Commit=SHA)
        return self.refuse(404, "NotFound")

    def do_POST(self):
        self.asked.append(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != f"Bearer {self.token}":
            return self.refuse(401, "Invalid username or password.")
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.models.setdefault(name, {})
            url = f"http://{self.headers['Host']}/{name}"
            return self.answer({"id": name, "name": name, "url": url})
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        name = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main", self.path)[1]
        if "/preupload/" in self.path:
            files = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for one in json.loads(body)["files"]
            ]
            return self.answer({"files": files})
        for line in body.decode().splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                content = base64.b64decode(entry["value"]["content"])
                self.models[name][entry["value"]["path"]] = content
        url = f"http://{self.headers['Host']}/{name}/commit/{SHA}"
        return self.answer({"success": True, "commitUrl": url, "commitOid": SHA})


def _oid(data):
    return hashlib.sha1(data).hexdigest()


@contextmanager
def serving():
    """(address, the hub) while the block runs."""
    hub = type("OwnHub", (Hub,), {"models": {}, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
