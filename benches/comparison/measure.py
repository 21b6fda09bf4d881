"""What an operation costs the server: here, and at Redis, Memcached and etcd, in turn and
in one run. Prints the table of docs/comparison.md. Needs redis-server, memcached, etcd,
h2load and gcc on PATH, and a release build. It judges nothing.

usage: measure.py [ROUNDS]
"""

import contextlib
import json
import os
import pathlib
import re
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
BINARY = HERE.parents[1] / "target/release/riptide-persistence"
SECONDS = 3
VALUE = os.urandom(1024)
KEY = b"key-00000000000000000001"
ANSWER = len(b"$1024\r\n") + 1026


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


def cpu_seconds(process: subprocess.Popen) -> float:
    fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def field(number: int, content: bytes) -> bytes:
    """A field of bytes, as protobuf writes it."""
    length, size = b"", len(content)
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def framed(message: bytes) -> bytes:
    return b"\0" + struct.pack(">I", len(message)) + message


def command(*parts: bytes) -> bytes:
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


class Run:
    """The servers, and what is asked of them."""

    def __init__(self, folder: pathlib.Path, ends: contextlib.ExitStack) -> None:
        self.folder, self.ends = folder, ends
        self.loop = folder / "closed_loop"
        subprocess.run(["gcc", "-O2", "-pthread", "-o", self.loop, HERE / "closed_loop.c"], check=True)

    def start(self, arguments: list, **more) -> subprocess.Popen:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen([str(one) for one in arguments], **{"cwd": self.folder, **quiet, **more})
        self.ends.callback(process.wait)
        self.ends.callback(process.terminate)
        return process

    def redis(self):
        port = free_port()
        return self.start(["redis-server", "--port", port, "--save", "", "--bind", "127.0.0.1"]), port

    def serve(self, **settings):
        home, port = pathlib.Path(tempfile.mkdtemp(dir=self.folder)), free_port()
        environment = {"PATH": os.environ["PATH"], "PERSISTENCE_SERVER__LISTEN": f"127.0.0.1:{port}",
                       "PERSISTENCE_SERVER__ADMIN_LISTEN": "127.0.0.1:0",
                       "RIPTIDE_ADDRESS": f"http://127.0.0.1:{port}", **settings}
        process = self.start([BINARY, "serve"], cwd=home, env=environment)

        def riptide(*arguments):
            return subprocess.run([BINARY, *arguments], cwd=home, env=environment, capture_output=True, text=True)

        while riptide("health").returncode:
            time.sleep(0.1)
        riptide("tenant", "create", "acme", "--plan", "enterprise").check_returncode()
        key = riptide("key", "create", "--tenant", "acme", "--scope", "cache.read,cache.write", "-o", "json")
        (home / "value").write_bytes(VALUE)
        riptide("cache", "set", KEY, "--file", "value", "--tenant", "acme", "--ttl", "7d").check_returncode()
        return process, port, json.loads(key.stdout)["secret"]

    def written(self, content: bytes) -> pathlib.Path:
        handle, path = tempfile.mkstemp(dir=self.folder)
        os.write(handle, content)
        os.close(handle)
        return pathlib.Path(path)

    def measured(self, processes: list, ask) -> list:
        """Operations a second, and the microseconds of each process an operation."""
        before = [cpu_seconds(process) for process in processes]
        count = ask()
        spent = [cpu_seconds(process) - then for process, then in zip(processes, before)]
        return [count / SECONDS] + [seconds / count * 1e6 for seconds in spent]

    def plain(self, processes: list, port: int, request: bytes, answer_bytes: int, pipelined: int = 1) -> list:
        file, connections = self.written(request * pipelined), 64 // pipelined
        arguments = [self.loop, port, connections, SECONDS, file, answer_bytes * pipelined]

        def ask() -> int:
            ran = subprocess.run([str(one) for one in arguments], capture_output=True, text=True, check=True)
            return int(ran.stdout) * pipelined

        return self.measured(processes, ask)

    def grpc(self, processes: list, port: int, path: str, message: bytes, key: str = "") -> list:
        arguments = ["h2load", "-c", 8, "-m", 8, "-t", 1, "-D", SECONDS, "-d", self.written(framed(message)),
                     "-H", "content-type: application/grpc", "-H", "te: trailers"]
        if key:
            arguments += ["-H", f"authorization: Bearer {key}"]
        arguments.append(f"http://127.0.0.1:{port}{path}")

        def ask() -> int:
            ran = subprocess.run([str(one) for one in arguments], capture_output=True, text=True, check=True)
            return int(re.search(r"status codes: (\d+) 2xx", ran.stdout).group(1))

        return self.measured(processes, ask)


def main(rounds: int) -> None:
    with contextlib.ExitStack() as ends:
        folder = ends.enter_context(tempfile.TemporaryDirectory())
        run = Run(pathlib.Path(folder), ends)
        bare, bare_port = run.redis()
        beneath, beneath_port = run.redis()
        beneath_off, off_port = run.redis()
        memcached_port, etcd_port, peers = free_port(), free_port(), free_port()
        memcached = run.start(["memcached", "-u", "nobody", "-p", memcached_port, "-l", "127.0.0.1", "-U", 0])
        etcd = run.start(["etcd", "--data-dir", "etcd", "--log-level", "error",
                          "--listen-client-urls", f"http://127.0.0.1:{etcd_port}",
                          "--advertise-client-urls", f"http://127.0.0.1:{etcd_port}",
                          "--listen-peer-urls", f"http://127.0.0.1:{peers}",
                          "--initial-advertise-peer-urls", f"http://127.0.0.1:{peers}",
                          "--initial-cluster", f"default=http://127.0.0.1:{peers}"])
        near, near_port, near_key = run.serve(REDIS_URL=f"redis://127.0.0.1:{beneath_port}")
        far, far_port, far_key = run.serve(REDIS_URL=f"redis://127.0.0.1:{off_port}",
                                           PERSISTENCE_CACHE__NEAR__ENABLED="false")
        embedded, embedded_port, embedded_key = run.serve()
        time.sleep(2)

        cache, kv = "/riptide.persistence.v1.CacheService/", "/etcdserverpb.KV/"
        get, put = field(3, KEY), field(3, KEY) + field(4, VALUE)
        redis_get, redis_set = command(b"GET", KEY), command(b"SET", KEY, VALUE, b"EX", b"3600")
        memcached_get = b"get " + KEY + b"\r\n"
        memcached_set = b"set " + KEY + b" 0 3600 1024\r\n" + VALUE + b"\r\n"
        memcached_answer = len(b"VALUE " + KEY + b" 0 1024\r\n") + 1026 + len(b"END\r\n")
        kinds = {
            "Redis SET": lambda: run.plain([bare], bare_port, redis_set, 5),
            "Redis GET": lambda: run.plain([bare], bare_port, redis_get, ANSWER),
            "Redis GET, pipelined": lambda: run.plain([bare], bare_port, redis_get, ANSWER, 8),
            "Redis SET, pipelined": lambda: run.plain([bare], bare_port, redis_set, 5, 8),
            "Memcached set": lambda: run.plain([memcached], memcached_port, memcached_set, 8),
            "Memcached get": lambda: run.plain([memcached], memcached_port, memcached_get, memcached_answer),
            "Memcached get, pipelined":
                lambda: run.plain([memcached], memcached_port, memcached_get, memcached_answer, 8),
            "Memcached set, pipelined": lambda: run.plain([memcached], memcached_port, memcached_set, 8, 8),
            "etcd Put": lambda: run.grpc([etcd], etcd_port, kv + "Put", field(1, KEY) + field(2, VALUE)),
            "etcd Range": lambda: run.grpc([etcd], etcd_port, kv + "Range", field(1, KEY)),
            "Get, near": lambda: run.grpc([near, beneath], near_port, cache + "Get", get, near_key),
            "Get from Redis": lambda: run.grpc([far, beneath_off], far_port, cache + "Get", get, far_key),
            "Set on Redis": lambda: run.grpc([near, beneath], near_port, cache + "Set", put, near_key),
            "Get, near, embedded": lambda: run.grpc([embedded], embedded_port, cache + "Get", get, embedded_key),
            "Set, embedded": lambda: run.grpc([embedded], embedded_port, cache + "Set", put, embedded_key),
        }
        found = {name: [] for name in kinds}
        for _ in range(rounds):
            for name, measure in kinds.items():
                found[name].append(measure())
        for name, rows in found.items():
            rate, *cpu = (statistics.median(column) for column in zip(*rows))
            print(f"{name:26} {rate:9,.0f}/s  " + "  ".join(f"{one:6.1f} us" for one in cpu))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
