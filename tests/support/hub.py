"""A stand-in for the hub on loopback, for the real clients of huggingface_hub, datasets and transformers.

    with serve({"datasets/TIGER-Lab/MMEB-eval": folder, "openai/clip-vit-large-patch14": checkpoint}) as hub:
        subprocess.run(["mmeb", "run", ...], env={**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(empty)})

Repositories are local folders, each with one commit under the branch `main`. It answers what the clients ask for when
they read: repository info, tree, paths, and files with ETag and Range.
"""

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from mmeb.data.hub import DEFAULT_REVISIONS
from mmeb.models.entries import DEFAULT_REVISIONS as MODEL_REVISIONS

_REFUSALS = {401: "RepoNotFound", 403: "GatedRepo", 404: "RepoNotFound"}  # the hub does not tell private from missing


class Hub(str):
    """The stand-in's URL, with what it was asked and what is to go wrong.

    `requests` lists (method, path) in order, `sent` counts the bytes of each file by its name. `status` answers a
    repository with an HTTP status, 401 say. `breaks` ends the connection in the middle of a file: for each answer to
    its name the next number of bytes, until there are none.
    """

    requests: list[tuple[str, str]]
    sent: Counter[str]
    status: dict[str, int]
    breaks: dict[str, Iterator[int]]


def commit_of(repository: str) -> str:
    """The commit that the stand-in gives a repository (`datasets/TIGER-Lab/MMEB-eval`): the official one if known."""
    known = {**MODEL_REVISIONS, **DEFAULT_REVISIONS}.get(repository.removeprefix("datasets/"), "")
    return known + hashlib.sha1(repository.encode()).hexdigest()[len(known) :]


@contextmanager
def serve(repositories: Mapping[str, Path]) -> Iterator[Hub]:
    """Serve folders as repositories, by name (datasets with a leading `datasets/`); yields the URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    hub = Hub(f"http://127.0.0.1:{server.server_address[1]}")
    hub.requests, hub.sent, hub.status, hub.breaks = [], Counter(), {}, {}
    server.hub, server.repositories = hub, dict(repositories)  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@cache
def _digest(path: Path, _size: int, _changed: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _etag(path: Path) -> str:
    stat = path.stat()
    return _digest(path, stat.st_size, stat.st_mtime_ns)


def _files(folder: Path, below: str = "") -> dict[str, Path]:
    """The files of a repository's folder by their path in it."""
    paths = sorted(path for path in (folder / below).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in paths}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        self.hub = self.server.hub  # type: ignore[attr-defined]
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path))
        for name, folder in self.server.repositories.items():  # type: ignore[attr-defined]
            api = f"/api/{name}" if name.startswith("datasets/") else f"/api/models/{name}"
            for prefix, is_api in ((api, True), (f"/{name}", False)):
                if path == prefix or path.startswith(prefix + "/"):
                    if name in self.hub.status:
                        self._error(HTTPStatus(self.hub.status[name]), _REFUSALS.get(self.hub.status[name], ""))
                        return
                    parts = path[len(prefix) :].strip("/").split("/")
                    self._serve(name, folder, parts, parse_qs(body) if is_api else None)
                    return
        self._error(HTTPStatus.NOT_FOUND, "RepoNotFound")

    def _serve(self, name: str, folder: Path, parts: list[str], api: dict[str, list[str]] | None) -> None:
        action, revision, *rest = [*parts, "", ""] if len(parts) == 1 else parts
        commit = commit_of(name)
        if revision not in {"", "main", commit}:
            self._error(HTTPStatus.NOT_FOUND, "RevisionNotFound")
        elif api is None and action == "resolve":
            self._file(folder / "/".join(rest), commit)
        elif api is None:
            self._error(HTTPStatus.NOT_FOUND, "EntryNotFound")
        elif action in {"", "revision"}:
            files = [{"rfilename": file, "size": path.stat().st_size} for file, path in _files(folder).items()]
            identity = {"id": name.removeprefix("datasets/"), "sha": commit, "private": False, "gated": False}
            self._json({**identity, "disabled": False, "tags": [], "siblings": files, "downloads": 0, "likes": 0})
        elif action == "tree" and (folder / "/".join(rest)).is_dir():
            self._json(self._tree(folder, "/".join(part for part in rest if part)))
        elif action == "paths-info":
            wanted = api.get("paths", [])
            self._json([self._entry(folder, file) for file in wanted if (folder / file).exists()])
        elif action == "commits":
            entry = {"id": commit, "title": "", "message": "", "date": "2024-10-28T00:00:00.000Z", "authors": []}
            self._json([entry])
        elif action == "discussions":
            self._json({"discussions": [], "count": 0, "start": 0})
        else:
            self._error(HTTPStatus.NOT_FOUND, "EntryNotFound")

    def _tree(self, folder: Path, below: str) -> list[dict[str, Any]]:
        recursive = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() in {"true", "1"}
        start = folder / below
        paths = sorted(start.rglob("*") if recursive else start.iterdir())
        return [self._entry(folder, path.relative_to(folder).as_posix()) for path in paths]

    @staticmethod
    def _entry(folder: Path, file: str) -> dict[str, Any]:
        path = folder / file
        if path.is_dir():
            return {"type": "directory", "path": file, "oid": hashlib.sha1(file.encode()).hexdigest(), "size": 0}
        return {"type": "file", "path": file, "oid": _etag(path)[:40], "size": path.stat().st_size}

    def _file(self, path: Path, commit: str) -> None:
        if not path.is_file():
            self._error(HTTPStatus.NOT_FOUND, "EntryNotFound", commit)
            return
        content = path.read_bytes()
        start, end = 0, len(content) - 1
        wanted = self.headers.get("Range", "").removeprefix("bytes=")
        if wanted:
            first, last = wanted.split("-")
            start = int(first) if first else len(content) - int(last)
            end = min(int(last), end) if first and last else end
        self.send_response(HTTPStatus.PARTIAL_CONTENT if wanted else HTTPStatus.OK)
        self.send_header("ETag", f'"{_etag(path)}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(end - start + 1))
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = next(self.hub.breaks.get(path.name, iter(())), None)
        part = content[start : end + 1 if cut is None else min(start + cut, end)]
        self.close_connection = cut is not None
        self.hub.sent[path.name] += len(part)
        self.wfile.write(part)

    def _json(self, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _error(self, status: HTTPStatus, code: str, commit: str = "") -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        if commit:
            self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", "0")
        self.end_headers()
