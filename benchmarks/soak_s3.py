"""Kill writers to a bucket before each change that they would make, and resume every one.

Run with `make soak-s3`, a few minutes: a real S3 server on loopback, with the campaign of
tests/s3_campaign.py at every step of the protocol. Exit code 1 if anything was violated.
"""

import json
import os
import sys
from pathlib import Path

import click

TESTS = Path(__file__).parent.parent / "tests"
sys.path.append(str(TESTS))

from s3_server import CREDENTIALS, in_process, make_bucket, s3_server  # noqa: E402


@click.command()
@click.option("--step", default=1, show_default=True, help="kill before every so many-th change")
def main(step: int) -> None:
    """Print how many writers were killed and resumed."""
    code = (TESTS / "s3_campaign.py").read_text()
    with s3_server() as address:
        os.environ.update(CREDENTIALS, AWS_ENDPOINT_URL=address)
        make_bucket(address, "bucket")
        for what, overwrite in {"a new store": False, "a store in another's place": True}.items():
            try:
                n_kills = in_process(code, f"s3://bucket/{overwrite}/s.zarr", json.dumps([step, overwrite]))
            except AssertionError as error:
                sys.exit(f"{what}: {error}")
            click.echo(f"{what}: {n_kills.strip()} kills, each resumed to the same objects; 0 violations")


if __name__ == "__main__":
    main()
