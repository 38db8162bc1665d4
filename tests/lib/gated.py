"""An OTLP/HTTP upstream that answers when a test lets it."""

import http.server
import threading

from lib import otlp


class Gated:
    """Takes Export calls; each waits for the gate, then is answered 200."""

    def __init__(self, open_gate=False):
        upstream = self
        self.gate = threading.Event()
        self.arrived = threading.Semaphore(0)
        self.bodies = []
        if open_gate:
            self.gate.set()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                signal = self.path.rsplit("/", 1)[-1]
                upstream.bodies.append(otlp.REQUESTS[signal].FromString(body))
                upstream.arrived.release()
                upstream.gate.wait(60)
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", "0")
                self.end_headers()

            def handle(self):
                try:
                    super().handle()
                except OSError:
                    pass  # the gateway has gone

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

        self.server = Server(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    @property
    def destination(self):
        """The destination's settings."""
        return {"otlp": {"endpoint": f"http://127.0.0.1:{self.server.server_port}",
                         "protocol": "http", "timeout": "30s", "connections": 8}}

    def config(self, **more):
        return {"destinations": {"slow": self.destination}, "routes": [{"to": ["slow"]}], **more}

    def items(self):
        return sum(otlp.count("traces", body) for body in self.bodies)

    def close(self):
        self.gate.set()
        self.server.shutdown()
        self.server.server_close()
