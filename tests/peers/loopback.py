"""HTTP servers on loopback for the tests: JSON answers, no log, an end when the test ends."""

import json
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """What every stand-in needs; it brings its own `do_GET` and `do_POST`."""

    protocol_version = "HTTP/1.1"

    def body(self):
        return self.rfile.read(int(self.headers.get("content-length") or 0)).decode()

    def answer(self, status, value):
        """Answers with `value` as JSON."""
        self.send(status, json.dumps(value), "application/json")

    def send(self, status, text, kind="text/plain", headers=None):
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, handler, address="127.0.0.1", port=0):
        super().__init__((address, port), handler)
        self.url = f"http://{self.server_name}:{self.server_port}"

    def server_bind(self):
        # The base class looks its own name up, which can take long where there is no DNS.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.server_address[:2]


def start(handler):
    """Serves in the background for as long as this process lives; gives the URL."""
    server = Server(handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.url


def serve(server, address=None):
    """The main loop of a stand-in in a process of its own."""
    ready(address or server.url, server.shutdown)
    server.serve_forever()


def ready(address, stop):
    """Tells the test where to call, and stops when it closes our standard input (or dies)."""
    print("ready", address, flush=True)

    def wait():
        sys.stdin.read()
        stop()

    threading.Thread(target=wait, daemon=True).start()
