"""Control sockets: lines arrive whole and in order, or are dropped whole."""

from __future__ import annotations

import json
import socket
import threading

import pytest
from polling import wait_until

from mnist_deploy.local.control_socket import ControlSocket


@pytest.fixture
def pair():
    ends = [ControlSocket(each, max_line=1 << 20) for each in socket.socketpair()]
    yield ends
    for end in ends:
        end.close()


def read_lines(end: ControlSocket, count: int) -> list[bytes]:
    lines: list[bytes] = []
    wait_until(lambda: lines.extend(end.read()) or len(lines) >= count)
    return lines


def test_messages_arrive_in_both_directions(pair):
    for sender, receiver in (pair, pair[::-1]):
        for number in range(3):
            sender.offer(ping=number)
        lines = read_lines(receiver, 3)
        assert [json.loads(line) for line in lines] == [{"ping": number} for number in range(3)]


def test_offered_messages_are_dropped_whole_when_the_other_process_does_not_read(pair):
    sender, receiver = pair
    for number in range(20_000):
        sender.offer(number=number, text="x" * 1000)
    sender.send(b"last\n", 0)
    *lines, last = read_lines_until(receiver, sender, b"last")
    numbers = [json.loads(line)["number"] for line in lines]
    # A UNIX socket stays full; over TCP, of Windows, the receiver's buffer grows meanwhile.
    assert numbers[:20] == list(range(20))
    assert numbers == sorted(set(numbers))
    assert 0 < len(numbers) < 20_000
    assert last == b"last"


def read_lines_until(receiver: ControlSocket, sender: ControlSocket, end: bytes) -> list[bytes]:
    lines: list[bytes] = []

    def has_ended() -> bool:
        lines.extend(receiver.read())
        sender.send(b"", 0)  # what is left of a line that was begun
        return bool(lines) and lines[-1] == end

    wait_until(has_ended)
    return lines


def test_large_line_is_sent_while_the_other_process_reads(pair):
    sender, receiver = pair
    line = b"x" * (1 << 20)
    sending = threading.Thread(target=sender.send, args=(line + b"\n", 20.0))
    sending.start()
    assert read_lines(receiver, 1) == [line]
    sending.join()


def test_send_fails_when_the_other_process_does_not_read_in_time(pair):
    assert not pair[0].send(b"x" * (8 << 20) + b"\n", 0.05)


def test_line_without_end_is_cut(pair):
    sender, receiver = pair
    sending = threading.Thread(target=sender.send, args=(b"x" * (3 << 20) + b"\n", 20.0))
    sending.start()
    lines = read_lines(receiver, 3)
    sending.join()
    assert all(len(line) < (2 << 20) for line in lines)


def test_end_of_the_other_process_closes_the_socket(pair):
    sender, receiver = pair
    sender.offer(ping=1)
    sender.close()
    wait_until(lambda: receiver.read() or not receiver.is_open)
    wait_until(lambda: not (receiver.read() or receiver.is_open))
    receiver.offer(ping=2)  # is dropped
    assert receiver.send(b"x\n", 0.1)
