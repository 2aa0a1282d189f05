"""Runs a command where every address is this machine's, and records the others that are asked.

``python tests/recorded_network.py FILE COMMAND…`` in a network namespace of its own, see
`in_recorded_network`. Each line of FILE is a host name that was to be resolved, or an address
outside of 127.0.0.0/8 that a packet was sent to. Names do not exist, and no port is open.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

IPV4 = 0x0800
TCP, UDP = 6, 17
SYN, ACK = 2, 16
DNS_PORT = 53
NAME_ERROR = b"\x81\x83"  # the flags of an answer: no such name
SET_UP = 'ip link set lo up && ip route add local default dev lo && exec "$@"'


def in_recorded_network(command: list[str], file: Path) -> list[str] | None:
    """`command` with its addresses recorded in `file`; None if this machine does not allow that."""
    if not (shutil.which("unshare") and shutil.which("ip")):
        return None
    alone = ["unshare", "--net", "sh", "-c", SET_UP, "sh"]
    recorder = [*alone, sys.executable, __file__, str(file)]
    tried = subprocess.run([*recorder, "true"], capture_output=True, check=False)
    return [*recorder, *command] if tried.returncode == 0 else None


def answer_names(server: socket.socket, found: set[str]) -> None:
    while True:
        query, client = server.recvfrom(4096)
        found.add(name_of(query))
        server.sendto(query[:2] + NAME_ERROR + query[4:6] + bytes(6) + question(query), client)


def question(query: bytes) -> bytes:
    end = query.index(b"\0", 12) + 5  # the name, its type and its class
    return query[12:end]


def name_of(query: bytes) -> str:
    labels, position = [], 12
    while length := query[position]:
        labels.append(query[position + 1 : position + 1 + length].decode("latin-1"))
        position += 1 + length
    return ".".join(labels)


def watch_packets(raw: socket.socket, found: set[str]) -> None:
    while True:
        target = target_of(raw.recv(64))
        if target and not target.startswith("127."):
            found.add(target)


def target_of(packet: bytes) -> str | None:
    """Where a connection, or a datagram but for DNS, is sent to; None for other packets."""
    header = 4 * (packet[0] & 15)
    ports = [int.from_bytes(packet[header + n : header + n + 2], "big") for n in (0, 2)]
    is_connection = packet[9] == TCP and packet[header + 13] & (SYN | ACK) == SYN
    is_datagram = packet[9] == UDP and DNS_PORT not in ports
    if not (is_connection or is_datagram):
        return None
    return f"{socket.inet_ntoa(packet[16:20])}:{ports[1]}"


def main(file: Path, command: list[str]) -> int:
    found: set[str] = set()
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("0.0.0.0", DNS_PORT))
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(IPV4))
    for work, source in ((answer_names, server), (watch_packets, raw)):
        threading.Thread(target=work, args=(source, found), daemon=True).start()
    status = subprocess.run(command, check=False).returncode
    file.write_text("".join(f"{each}\n" for each in sorted(found)))
    return status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
