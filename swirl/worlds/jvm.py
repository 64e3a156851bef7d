"""A simulator in a Java process of its own, spoken to through py4j, that never outlives who started it.

The process ends when it is closed, when nobody refers to it any more and when Python exits. Java itself ends when its
standard input does, so nothing is left where Python was killed and could not clean up. It is in a process group of its
own: Ctrl-C is Python's to handle, and does not break a call that is under way.
"""

import os
import shutil
import subprocess
import weakref
from collections import deque
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import IO, Any

from swirl.errors import MissingPartError

INSTALL_JAVA = "apt-get install default-jre-headless"
OPTIONS = (
    "-Xmx2g",
    "-XX:+UseSerialGC",
    # Identity hashes are drawn by chance, and with them the order of every set that a simulator lists: the same for
    # all objects, such a set keeps the order in which it was filled, and an episode is a function of its seed.
    "-XX:+IgnoreUnrecognizedVMOptions",
    "-XX:+UnlockExperimentalVMOptions",
    "-XX:hashCode=2",
)


def missing(package: str, extra: str) -> str | None:
    """The command that installs what is not here of a package, the extra that names it, and Java; None if all is."""
    commands = [] if find_spec(package) else [f"pip install '.[{extra}]'"]
    commands += [] if shutil.which("java") else [INSTALL_JAVA]
    return " && ".join(commands) or None


class Java:
    """A running Java process.

    Args:
        package: The Python package whose folder has the simulator; Java runs in that folder.
        jar: The simulator's file there.

    Raises:
        MissingPartError: Java does not start.
    """

    def __init__(self, package: str, jar: str):
        spec = find_spec(package)
        assert spec is not None and spec.origin is not None
        folder = Path(spec.origin).parent
        py4j = import_module("py4j.java_gateway")
        classpath = os.pathsep.join([py4j.find_jar_path(), str(folder / jar)])
        command = ["java", *OPTIONS, "-classpath", classpath, "py4j.GatewayServer"]
        process = subprocess.Popen(
            [*command, "--die-on-broken-pipe", "--enable-auth", "0"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            process_group=0,
        )
        assert process.stdout is not None
        self.pid = process.pid
        reader = Thread(target=_drain, args=(process.stdout,), daemon=True)
        self._stop = weakref.finalize(self, _stop, process, reader, os.getpid())
        port, token = process.stdout.readline().decode().strip(), process.stdout.readline().decode().strip()
        reader.start()
        if not port.isdigit():
            self._stop()
            raise MissingPartError(f"the Java that is here does not start; to install one: {INSTALL_JAVA}")
        parameters = py4j.GatewayParameters(port=int(port), auth_token=token, auto_field=True)
        self._gateway = py4j.JavaGateway(gateway_parameters=parameters)
        client = _client(py4j, parameters)
        self._gateway.set_gateway_client(client)
        self._disconnect = weakref.finalize(self, _disconnect, client)

    def make(self, name: str, *arguments: Any) -> Any:
        """A new object of a class, by its full name."""
        return self._named(name)(*arguments)

    def static(self, name: str, field: str) -> Any:
        """What a static field of a class holds."""
        return getattr(self._named(name), field)

    def _named(self, name: str) -> Any:
        found: Any = self._gateway.jvm
        for part in name.split("."):
            found = getattr(found, part)
        return found

    def close(self) -> None:
        """Ends the process; a second time does nothing."""
        self._disconnect()
        self._stop()


def _client(py4j: Any, parameters: Any) -> Any:
    """What the calls go through.

    py4j's own client answers Ctrl-C during a call with an error of its own (py4j 0.10.9.9, java_gateway.py,
    GatewayClient.send_command calls a `shutdown_socket` that no GatewayConnection has), which hides the interrupt.
    """

    class Client(py4j.GatewayClient):
        def send_command(self, command: str, retry: bool = True, binary: bool = False) -> str:
            connection = self._get_connection()
            try:
                answer = connection.send_command(command)
            except BaseException:  # an answer may still come, and would be taken for that of the next command
                connection.close()
                raise
            self._give_back_connection(connection)
            return answer

    return Client(gateway_parameters=parameters)


def _disconnect(client: Any) -> None:
    """Ends the connections, and whatever objects are forgotten later: nobody is there to be told."""
    client.is_connected = False
    client.close()


def _drain(stream: IO[bytes]) -> None:
    """Reads what Java prints, which would stop it once the pipe is full."""
    with stream:
        deque(stream, maxlen=0)


def _stop(process: subprocess.Popen, reader: Thread, owner: int) -> None:
    if os.getpid() != owner:
        return  # the copy of a forked process: Java is not its own
    process.kill()
    process.wait()
    if reader.ident is not None:
        reader.join()
    if process.stdin is not None:
        process.stdin.close()
