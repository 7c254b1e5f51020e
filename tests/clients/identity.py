"""The least of an OpenStack identity service: one token, and a catalog that says where DMS is."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from service import TOKEN


class Identity:
    """Answers on a port of its own until it is closed."""

    def __init__(self, dms_url, project):
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(dms_url, project))
        self.url = f"http://127.0.0.1:{self._server.server_port}/v3"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def cloud(self):
        """What a clouds.yaml says of this cloud."""
        auth = {"auth_url": self.url, "username": "user", "password": "secret", "user_domain_name": "domain"}
        auth |= {"project_name": "project", "project_domain_name": "domain"}
        return {"auth": auth, "region_name": "region", "identity_api_version": "3"}


def _handler(dms_url, project):
    endpoint = {"id": "e", "interface": "public", "region": "region", "region_id": "region", "url": dms_url}
    token = {
        "methods": ["password"],
        "issued_at": "2026-01-01T00:00:00.000000Z",
        "expires_at": "2099-01-01T00:00:00.000000Z",
        "user": {"id": "u", "name": "user", "domain": {"id": "d", "name": "domain"}},
        "project": {"id": project, "name": "project", "domain": {"id": "d", "name": "domain"}},
        "roles": [],
        "catalog": [{"id": "c", "type": "dms", "name": "dms", "endpoints": [endpoint]}],
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            links = [{"rel": "self", "href": f"http://{self.headers['Host']}/v3/"}]
            self._answer(200, {"version": {"id": "v3.14", "status": "stable", "links": links}})

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(201, {"token": token}, {"X-Subject-Token": TOKEN})

        def _answer(self, status, body, headers=()):
            body = json.dumps(body).encode()
            self.send_response(status)
            for name, value in dict(headers).items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    return Handler
