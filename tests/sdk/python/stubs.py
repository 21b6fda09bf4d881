"""Generates the Python stubs from proto/. Knows nothing of what is called.

usage: stubs.py FOLDER
"""

import pathlib
import sys

import grpc_tools
from grpc_tools import protoc

PROTOS = pathlib.Path(__file__).resolve().parents[3] / "proto"


def generate(folder: pathlib.Path) -> None:
    """Writes `riptide.persistence.v1` into `folder`, as protoc for Python does.

    `google.rpc` comes from googleapis-common-protos, so it is not generated.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sources = sorted(str(path) for path in (PROTOS / "riptide").rglob("*.proto"))
    well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    options = [f"-I{PROTOS}", f"-I{well_known}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    if protoc.main(["protoc", *options, *sources]) != 0:
        raise SystemExit("protoc failed; its message is above")


if __name__ == "__main__":
    generate(pathlib.Path(sys.argv[1]))
