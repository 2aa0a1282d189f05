"""pytest fixtures and mocks for code that uses `mnist_deploy`, without Azure and network.

`README.md` in this folder lists the fixtures, and has an example for each purpose.
"""

from __future__ import annotations

import copy
import functools
import inspect
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from .client import MockedClient
    from .connections import MockedWorkspace

__all__ = ["mock_client", "mock_workspace"]

T = TypeVar("T")

# For a conftest.py that names this module: pytest_plugins = ["mnist_deploy.testing"].
pytest_plugins = ["mnist_deploy.testing.plugin"]


class mock_workspace:
    """Mock a workspace: ``with mock_workspace() as ws:``, or ``@mock_workspace``.

    The variable of the block is the same as the fixture ``mocked_workspace``. A decorated function
    receives the workspace as its argument ``ws``, if it has a parameter of that name; pytest does
    not resolve a fixture for the parameter. In a decorated class, each method whose name begins
    with ``test`` is decorated, and has a separate workspace. Functions may be ``async`` or, like
    fixtures, generators.

    Parameters
    ----------
    assert_all_used : bool, default True
        Raise an `AssertionError` at the end for a response, failure or delay that was set but not
        used.
    assert_all_deleted : bool, default False
        Raise an `AssertionError` for a service, endpoint or cluster that was not deleted: Azure
        charges by the hour.
    listen : bool, default False
        Serve the mocked services on a port of 127.0.0.1, for HTTP clients other than `requests`.

    Raises
    ------
    RuntimeError
        A workspace is mocked already.
    """

    _argument = "ws"  # of a decorated function
    _is_active = False  # one at a time: the SDK's functions are replaced for all threads

    def __new__(cls, decorated: Any = None, /, **options: Any) -> Any:
        """Create a mock, or decorate a function or class without parentheses."""
        return super().__new__(cls) if decorated is None else cls(**options)(decorated)

    def __init__(
        self,
        *,
        assert_all_used: bool = True,
        assert_all_deleted: bool = False,
        listen: bool = False,
    ) -> None:
        self._assert_all_used, self._assert_all_deleted = assert_all_used, assert_all_deleted
        self._listen = listen

    def __enter__(self) -> MockedWorkspace:
        if mock_workspace._is_active:
            raise RuntimeError(
                "A workspace is mocked already: use either the fixture, the decorator or the "
                "context manager."
            )
        from .workspace import MockedControlPlane

        self._has_failed = self._has_raised = False
        self._control_plane = MockedControlPlane(listen=self._listen)
        mock_workspace._is_active = True
        return self._control_plane.workspace

    def __exit__(self, kind: object, failure: BaseException | None, trace: object) -> None:
        mock_workspace._is_active = False
        remaining = self._control_plane.remaining() if self._assert_all_deleted else []
        self._control_plane.close()
        self.raise_errors(failure)
        if self._has_failed:
            return  # the failure of the test was reported
        problems = self._control_plane.behavior.unused() if self._assert_all_used else []
        if remaining:
            problems.append(
                f"Not deleted: {', '.join(remaining)}. On Azure it would continue to cost money; "
                "closing_service deletes a service at the end of its block."
            )
        if problems:
            raise AssertionError("\n".join(problems))

    def raise_errors(self, failure: BaseException | None) -> None:
        """Raise the first error of a test's own function, unless the test failed with it."""
        from .behavior import causes

        self._has_failed = self._has_failed or failure is not None
        reported = set(map(id, causes(failure)))
        for error in self._control_plane.behavior.unexpected_errors():
            if id(error) not in reported and not self._has_raised:
                self._has_raised = True
                raise error

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
        signature = inspect.signature(function)
        others = [each for each in signature.parameters.values() if each.name != self._argument]
        shown = signature.replace(parameters=others)

        def call(mocked: Any, args: Any, kwargs: Any) -> Any:
            given = inspect.BoundArguments(signature, shown.bind(*args, **kwargs).arguments)
            if self._argument in signature.parameters:
                given.arguments[self._argument] = mocked
            return function(*given.args, **given.kwargs)

        wrapper: Any
        if inspect.iscoroutinefunction(function):

            async def wrapper(*args: Any, **kwargs: Any) -> Any:
                with copy.copy(self) as mocked:
                    return await call(mocked, args, kwargs)

        elif inspect.isgeneratorfunction(function):

            def wrapper(*args: Any, **kwargs: Any) -> Any:
                with copy.copy(self) as mocked:
                    return (yield from call(mocked, args, kwargs))

        elif inspect.isasyncgenfunction(function):

            async def wrapper(*args: Any, **kwargs: Any) -> Any:
                with copy.copy(self) as mocked:
                    async with aclosing(call(mocked, args, kwargs)) as values:
                        async for each in values:
                            yield each

        else:

            def wrapper(*args: Any, **kwargs: Any) -> Any:
                with copy.copy(self) as mocked:
                    return call(mocked, args, kwargs)

        functools.update_wrapper(wrapper, function)
        wrapper.__signature__ = shown  # read by pytest
        return wrapper


class mock_client(mock_workspace):
    """Mock a client of SDK v2: ``with mock_client() as client:``, or ``@mock_client``.

    Same as `mock_workspace`, except that the variable of the block, and the argument ``client`` of
    a decorated function, is the client of the fixture ``mocked_client``. In the block both SDKs
    connect to the mocked workspace.

    Raises
    ------
    WorkspaceError
        SDK v2 is not installed.
    """

    _argument = "client"

    def __enter__(self) -> MockedClient:  # type: ignore[override]
        from mnist_deploy.managed import connect_client

        super().__enter__()
        try:
            client: Any = connect_client()
            return client
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
