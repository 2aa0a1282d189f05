"""pytest fixtures and mocks for code that is built on `mnist_deploy`: no Azure, no network.

pytest finds five fixtures where the package is installed:

``mocked_workspace``
    SDK v1's workspace in front of the local workspace's own REST API, in this process and in
    memory. Its ``cloud`` sets how services behave and records what reached them; see
    `mnist_deploy.testing.cloud.MockedCloud`. The marker of the same name takes the arguments of
    `mock_workspace`, which is the same as a context manager and as a decorator.
``mocked_client``
    SDK v2's client of the same workspace; `mock_client` is the same as a context manager and as
    a decorator.
``local_workspace``, ``local_client``
    The clients of a real scoring server on this machine, one for the whole session.
``mnist_sample``
    A hundred genuine digits, and files of three hundred others to train on.

``README.md`` in this folder has an example for each purpose.
"""

from __future__ import annotations

import functools
import inspect
from contextlib import ExitStack, aclosing
from typing import TYPE_CHECKING, Any, TypeVar, overload

if TYPE_CHECKING:
    from .client import MockedClient
    from .connections import MockedWorkspace

__all__ = ["mock_client", "mock_workspace"]

T = TypeVar("T")

# For a conftest.py that names this module: pytest_plugins = ["mnist_deploy.testing"].
pytest_plugins = ["mnist_deploy.testing.plugin"]


@overload
def mock_workspace(
    *, assert_all_used: bool = True, assert_all_deleted: bool = False, listen: bool = False
) -> WorkspaceMock: ...
@overload
def mock_workspace(decorated: T, /) -> T: ...
def mock_workspace(
    decorated: Any = None,
    /,
    *,
    assert_all_used: bool = True,
    assert_all_deleted: bool = False,
    listen: bool = False,
) -> Any:
    """A mocked workspace: ``with mock_workspace() as ws:``, or ``@mock_workspace()``.

    A decorated function gets it as the argument ``ws``, if it has a parameter of that name;
    pytest does not take that one for a fixture. In a decorated class, each method whose name
    begins with ``test`` is decorated, and each has a workspace of its own. Functions may be
    ``async``, or generators, as fixtures are.

    Parameters
    ----------
    assert_all_used : bool
        At the end, an `AssertionError` names each answer, failure or delay that was prepared
        and never used.
    assert_all_deleted : bool
        At the end, an `AssertionError` names each service that is left, and each cluster that
        was created: Azure charges for them by the hour.
    listen : bool
        Serve the mocked services on a port of the loopback too, for other HTTP clients than
        `requests`: their URLs then lead there.

    Returns
    -------
    context manager and decorator
        The block's variable is a workspace as the fixture ``mocked_workspace`` gives it.

    Raises
    ------
    RuntimeError
        A workspace is mocked already.
    """
    mock = WorkspaceMock(
        assert_all_used=assert_all_used, assert_all_deleted=assert_all_deleted, listen=listen
    )
    return mock if decorated is None else mock(decorated)


@overload
def mock_client(
    *, assert_all_used: bool = True, assert_all_deleted: bool = False, listen: bool = False
) -> ClientMock: ...
@overload
def mock_client(decorated: T, /) -> T: ...
def mock_client(
    decorated: Any = None,
    /,
    *,
    assert_all_used: bool = True,
    assert_all_deleted: bool = False,
    listen: bool = False,
) -> Any:
    """A mocked client of SDK v2: ``with mock_client() as client:``, or ``@mock_client()``.

    A decorated function gets an ``azure.ai.ml.MLClient`` as the argument ``client``. It is of the
    workspace that `mock_workspace` gives: while one of the two is on, both SDKs connect to it.

    Parameters
    ----------
    assert_all_used, assert_all_deleted, listen : bool
        As of `mock_workspace`; endpoints as well must be deleted.

    Returns
    -------
    context manager and decorator
        The block's variable is a client as the fixture ``mocked_client`` gives it.

    Raises
    ------
    RuntimeError
        A workspace is mocked already.
    WorkspaceError
        SDK v2 is not installed.
    """
    mock = ClientMock(
        assert_all_used=assert_all_used, assert_all_deleted=assert_all_deleted, listen=listen
    )
    return mock if decorated is None else mock(decorated)


class WorkspaceMock:
    """What `mock_workspace` returns; its parameters are the same."""

    argument = "ws"  # of a decorated function
    _is_on = False  # one at a time: the SDK's functions are replaced for all threads

    def __init__(
        self,
        *,
        assert_all_used: bool = True,
        assert_all_deleted: bool = False,
        listen: bool = False,
    ) -> None:
        self._options = {
            "assert_all_used": assert_all_used,
            "assert_all_deleted": assert_all_deleted,
            "listen": listen,
        }

    def __enter__(self) -> MockedWorkspace:
        if WorkspaceMock._is_on:
            raise RuntimeError(
                "A workspace is mocked already: use either the fixture, the decorator or the "
                "context manager."
            )
        from .workspace import MockedControlPlane

        self._failed = self._raised = False
        with ExitStack() as stack:
            self._plane = stack.enter_context(MockedControlPlane(listen=self._options["listen"]))
            self._stack = stack.pop_all()
        WorkspaceMock._is_on = True
        return self._plane.workspace

    def __exit__(self, kind: object, failure: BaseException | None, trace: object) -> None:
        WorkspaceMock._is_on = False
        remaining = self._plane.remaining() if self._options["assert_all_deleted"] else []
        self._stack.close()
        self.settle(failure)
        if self._failed:
            return  # the failure of the test was reported
        problems = self._plane.behavior.unused() if self._options["assert_all_used"] else []
        if remaining:
            problems.append(
                f"Not deleted: {', '.join(remaining)}. On Azure it would go on costing money; "
                "closing_service deletes a service at the end of its block."
            )
        if problems:
            raise AssertionError("\n".join(problems))

    def settle(self, failure: BaseException | None = None) -> None:
        """Raise the first error of the test's own functions, unless the test failed by it."""
        self._failed = self._failed or failure is not None
        from .cloud import chain

        known = set(map(id, chain(failure)))
        errors = [each for each in self._plane.behavior.unexpected() if id(each) not in known]
        if errors and not self._raised:
            self._raised = True
            raise errors[0]

    def __call__(self, decorated: T) -> T:
        """Decorate a function, or the tests of a class."""
        if not inspect.isclass(decorated):
            return self._wrap(decorated)
        for name in dir(decorated):
            function = inspect.getattr_static(decorated, name)
            if name.startswith("test") and inspect.isfunction(function):
                setattr(decorated, name, self._wrap(function))
        return decorated

    def _wrap(self, function: Any) -> Any:
        whole = inspect.signature(function)
        others = [each for each in whole.parameters.values() if each.name != self.argument]
        shown = whole.replace(parameters=others)

        def call(mocked: Any, args: Any, kwargs: Any) -> Any:
            given = inspect.BoundArguments(whole, shown.bind(*args, **kwargs).arguments)
            if self.argument in whole.parameters:
                given.arguments[self.argument] = mocked
            return function(*given.args, **given.kwargs)

        def create_mock() -> WorkspaceMock:
            return type(self)(**self._options)

        wrapper: Any
        if inspect.iscoroutinefunction(function):

            async def wrapper(*args: Any, **kwargs: Any) -> Any:
                with create_mock() as mocked:
                    return await call(mocked, args, kwargs)

        elif inspect.isgeneratorfunction(function):

            def wrapper(*args: Any, **kwargs: Any) -> Any:
                with create_mock() as mocked:
                    return (yield from call(mocked, args, kwargs))

        elif inspect.isasyncgenfunction(function):

            async def wrapper(*args: Any, **kwargs: Any) -> Any:
                with create_mock() as mocked:
                    async with aclosing(call(mocked, args, kwargs)) as values:
                        async for each in values:
                            yield each

        else:

            def wrapper(*args: Any, **kwargs: Any) -> Any:
                with create_mock() as mocked:
                    return call(mocked, args, kwargs)

        functools.update_wrapper(wrapper, function)
        wrapper.__signature__ = shown  # which is what pytest reads
        return wrapper


class ClientMock(WorkspaceMock):
    """What `mock_client` returns; its parameters are the same."""

    argument = "client"

    def __enter__(self) -> MockedClient:  # type: ignore[override]
        from mnist_deploy.managed import connect_client

        super().__enter__()
        try:
            client: Any = connect_client()
            return client
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
