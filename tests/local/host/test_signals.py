"""The alarm of the main thread; this test runs on each system."""

from __future__ import annotations

import signal
import time

import pytest

from mnist_deploy.local.host import signals

ALARM_SIGNALS = [signal.SIGINT, *filter(None, [getattr(signal, "SIGALRM", None)])]


def test_alarm_interrupts_python_code_and_sleep():
    def raise_timeout(*_: object) -> None:
        raise TimeoutError

    before = {number: signal.getsignal(number) for number in ALARM_SIGNALS}
    signals.on_alarm(raise_timeout)
    try:
        for work in (lambda: time.sleep(30), spin):
            signals.set_alarm(0.05)
            with pytest.raises(TimeoutError):
                work()
            signals.set_alarm(0)
        signals.set_alarm(20)
        assert 0 < signals.set_alarm(0) <= 20
        assert signals.set_alarm(0) == 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def spin() -> None:
    give_up_at = time.monotonic() + 30
    while time.monotonic() < give_up_at:
        pass
