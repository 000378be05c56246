"""A real S3 server on loopback, a process of its own, and processes that use it.

What talks to S3 in a test runs in a process of its own where it is killed: threads of a client do not survive
a fork.
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

# As `python -m moto.server`, which finds out for each request what service of many is asked, and logs it:
# that takes as long as to answer.
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
    """The server's address; it chooses a free port itself, and says which."""
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    try:
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
    finally:
        server.kill()
        server.wait()


def make_bucket(address: str, name: str) -> None:
    """Make an empty bucket."""
    urlopen(Request(f"{address}/{name}", method="PUT")).close()


def in_process(code: str, *arguments: str, killed: bool = False) -> str:
    """Run Python in a new process that may import the tests' modules; what it printed.

    Args:
        code: the program.
        arguments: of it.
        killed: whether it is to die of SIGKILL, else it must end well.
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
