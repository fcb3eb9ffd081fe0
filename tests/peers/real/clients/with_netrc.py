"""What requests, as this SDK's environment has it, sends to a server that its netrc may know, and to another one."""

import http.server
import threading

import requests


class Echo(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.headers.get("Authorization", "none").encode())

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
threading.Thread(target=server.serve_forever, daemon=True).start()
for host in ("127.0.0.1", "localhost"):
    answer = requests.get(f"http://{host}:{server.server_port}", headers={"Authorization": "Bearer mine"})
    print(host, answer.text)
