"""A real S3 server on loopback, in its own process, and processes that use it.

Code that is killed while it talks to S3 runs in a new process: a client's threads do not survive a fork.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

TESTS = Path(__file__).parent
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
}

# Like `python -m moto.server`, which for each request looks up the service and logs it: that takes as long as
# the answer.
SERVER = """
from moto.server import create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

class Silent(WSGIRequestHandler):
    def log_request(self, *arguments):
        pass

server = make_server("127.0.0.1", 0, create_backend_app("s3"), threaded=True, request_handler=Silent)
print(server.server_port, flush=True)
server.serve_forever()
"""


@contextmanager
def s3_server() -> Iterator[str]:
    """The server's address; it chooses a free port and prints it."""
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    try:
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
    finally:
        server.kill()
        server.wait()


def make_bucket(address: str, name: str) -> None:
    """Create an empty bucket."""
    urlopen(Request(f"{address}/{name}", method="PUT")).close()


def in_process(code: str, *arguments: str, killed: bool = False) -> str:
    """Run Python code in a new process that can import the tests' modules; returns its output.

    Args:
        code: the program.
        arguments: of it.
        killed: whether it must die of SIGKILL; else it must succeed.
    """
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == (-signal.SIGKILL if killed else 0), done.stderr
    return done.stdout
