"""The gRPC plugin of grpcio-tools, as buf calls plugins.

grpcio-tools has its plugin inside its own protoc and nowhere else, so this hands the
descriptors that buf sends to that protoc, and what it writes back to buf. It knows
nothing of what is generated.
"""

import pathlib
import sys
import tempfile

from google.protobuf import descriptor_pb2
from google.protobuf.compiler import plugin_pb2
from grpc_tools import protoc


def main() -> None:
    request = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    response = plugin_pb2.CodeGeneratorResponse(
        supported_features=plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    )
    with tempfile.TemporaryDirectory() as folder:
        descriptors = pathlib.Path(folder, "descriptors.bin")
        descriptors.write_bytes(descriptor_pb2.FileDescriptorSet(file=request.proto_file).SerializeToString())
        written = pathlib.Path(folder, "written")
        written.mkdir()
        options = [f"--descriptor_set_in={descriptors}", f"--grpc_python_out={written}"]
        if protoc.main(["protoc", *options, *request.file_to_generate]) != 0:
            response.error = "protoc failed; its message is above"
        for path in sorted(written.rglob("*.py")):
            response.file.add(name=path.relative_to(written).as_posix(), content=path.read_text())
    sys.stdout.buffer.write(response.SerializeToString())


main()
