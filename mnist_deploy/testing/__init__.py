"""Test what is built on `mnist_deploy`: without Azure, without a network, in milliseconds.

pytest finds five fixtures where the package is installed:

``mocked_workspace``
    The genuine SDK in front of a cloud in memory. Its ``cloud`` says what services do
    (`answer_with`, `answer_in_turn`, `refuse`, `time_out`, `cut_off`, `delay`, `fail_init`,
    `never_finish`, `recover`) and what happened (``requests``, ``calls``, ``errors``, ``clock``,
    `assert_requests`, `expect_error`); see `mnist_deploy.testing.cloud.MockedCloud`. The marker
    of the same name takes the arguments of `mock_workspace`, which is the same as a context
    manager and as a decorator. Whoever connects while it is on, gets it; no config.json is
    read, and a connection to another machine is an error that names it.
``local_workspace``
    The genuine SDK in front of a real scoring server on this machine, for the whole session.
``mocked_client``, ``local_client``
    SDK v2's clients of these two workspaces, for `mnist_deploy.managed`; `mock_client` is the
    first as a context manager and as a decorator.
``mnist_sample``
    A hundred genuine digits, and files of three hundred others to train on.

How do I …
----------
The code that is tested, and what the tests import::

    import time, unittest

    import numpy as np, pytest, requests
    from azureml.core import Model

    import mnist_deploy as md
    from mnist_deploy.errors import AuthenticationFailed, DeploymentError, PayloadTooLarge
    from mnist_deploy.errors import ScoringTimeout, ServiceUnavailable
    from mnist_deploy.testing import mock_workspace

    def deploy(ws, name="svc"):
        return md.deploy_to_aci(
            ws,
            md.fetch_model(ws),
            md.build_inference_config(md.fetch_environment(ws)),
            md.build_aci_config(auth_enabled=True),
            name,
        )

    def count_digit(ws, images, digit):
        with md.closing_service(deploy(ws)) as service:
            return int((md.call_service(service, images) == digit).sum())

    def call_patiently(service, images):
        for pause in (1, 10, 60):
            try:
                return list(md.call_service(service, images, timeout=20))
            except (ServiceUnavailable, ScoringTimeout):
                time.sleep(pause)
        raise TimeoutError(service.name)

    IMAGES = np.zeros((2, 784))

… test a retry? The clock of the cloud takes the place of the module `time`, and sleeps at once::

    def test_retry(mocked_workspace, monkeypatch):
        cloud = mocked_workspace.cloud
        monkeypatch.setattr(f"{__name__}.time", cloud.clock)
        cloud.answer_in_turn(503, 503, [7, 2])
        assert call_patiently(deploy(mocked_workspace), IMAGES) == [7, 2]
        cloud.assert_requests(("svc", 503), ("svc", 503), ("svc", 200))
        assert cloud.clock.slept == 1 + 10

… test a time-out? `delay` makes answers slow, `time_out` lets them never come::

    def test_time_out(mocked_workspace, monkeypatch):
        cloud = mocked_workspace.cloud
        monkeypatch.setattr(f"{__name__}.time", cloud.clock)
        cloud.delay(30)
        with pytest.raises(TimeoutError, match="svc"):
            call_patiently(deploy(mocked_workspace), IMAGES)
        assert cloud.clock.slept == 3 * 20 + 1 + 10 + 60

… test a wrong key? Keys are checked as on Azure; `refuse` says any other status::

    def test_wrong_key(mocked_workspace):
        service = deploy(mocked_workspace)
        with pytest.raises(AuthenticationFailed):
            md.post_images(service.scoring_uri, IMAGES, api_key="wrong")

… test a failed ``init()``? The error is in the service's logs::

    def test_failed_init(mocked_workspace):
        mocked_workspace.cloud.fail_init("ModuleNotFoundError: No module named 'xgboost'")
        with pytest.raises(DeploymentError, match="xgboost"):
            count_digit(mocked_workspace, IMAGES, 7)

… test that everything was deleted? A service that is left fails the test with its name::

    @pytest.mark.mocked_workspace(assert_all_deleted=True)
    def test_cleans_up_after_a_refusal(mocked_workspace):
        mocked_workspace.cloud.refuse(413)
        with pytest.raises(PayloadTooLarge):
            count_digit(mocked_workspace, IMAGES, 7)

… test what was sent? Requests are kept, and each call of the SDK is a mock::

    def test_sent(mocked_workspace, mnist_sample):
        count_digit(mocked_workspace, mnist_sample.images, 7)
        np.testing.assert_array_equal(
            mocked_workspace.cloud.requests[0].images, mnist_sample.images
        )
        Model.deploy.assert_called_once()

… test with two services? Name the one that is meant::

    def test_two_services(mocked_workspace):
        first, second = (deploy(mocked_workspace, name) for name in ("first", "second"))
        mocked_workspace.cloud.cut_off(service="first")
        mocked_workspace.cloud.answer_with([1, 2], service="second")
        with pytest.raises(ServiceUnavailable):
            md.call_service(first, IMAGES)
        assert list(md.call_service(second, IMAGES)) == [1, 2]

… run the same test for real? With both workspaces; the local one takes seconds::

    @pytest.mark.parametrize("kind", ["mocked_workspace", "local_workspace"])
    def test_for_real(kind, request, mnist_sample):
        ws = request.getfixturevalue(kind)
        assert 5 < count_digit(ws, mnist_sample.images, 7) < 15

… keep CI off the network? It is off; what tries to reach it is named, even if it is swallowed::

    def test_without_a_network(mocked_workspace):
        mocked_workspace.cloud.expect_error(RuntimeError)
        with pytest.raises(RuntimeError, match="pypi.org"):
            requests.get("https://pypi.org")

… use it with unittest? The workspace is the argument ``ws``; pytest need not be installed::

    @mock_workspace(assert_all_deleted=True)
    class TestCount(unittest.TestCase):
        def test_counts(self, ws):
            ws.cloud.answer_with(lambda images: [7] * len(images))
            self.assertEqual(count_digit(ws, IMAGES, 7), 2)

… test what is built on SDK v2? With `mock_client`, or `mocked_client`: the cloud is the same. Name
an endpoint, or one of its deployments::

    from mnist_deploy import managed
    from mnist_deploy.testing import mock_client

    def release(client, name, deployment):
        model = client.models.get("sklearn_mnist", label="latest")
        environment = client.environments.get("tutorial-env", label="latest")
        return managed.deploy_to_endpoint(
            client, model, environment, name=name, deployment=deployment
        )

    @mock_client(assert_all_deleted=True)
    def test_failed_release(client):
        endpoint = release(client, "digits", "blue")
        client.cloud.fail_init("ImportError: xgboost", service="digits/green")
        with pytest.raises(DeploymentError, match="xgboost"):
            release(client, "digits", "green")
        assert len(managed.call_endpoint(client, endpoint, IMAGES)) == 2
        client.cloud.assert_requests(("digits/blue", 200))
        managed.delete_endpoint(client, endpoint)
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

# For those who name this module themselves: pytest_plugins = ["mnist_deploy.testing"].
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
        and that nobody asked for.
    assert_all_deleted : bool
        At the end, an `AssertionError` names each service that is left, and each cluster that
        was created: they are paid by the hour.
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
    """The same for SDK v2: ``with mock_client() as client:``, or ``@mock_client()``.

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
            return  # one report is enough
        problems = self._plane.behavior.unused() if self._options["assert_all_used"] else []
        if remaining:
            problems.append(
                f"Not deleted: {', '.join(remaining)}. On Azure it would go on costing money; "
                "closing_service deletes a service at the end of its block."
            )
        if problems:
            raise AssertionError("\n".join(problems))

    def settle(self, failure: BaseException | None = None) -> None:
        """Raise what the test's own functions raised, unless it is how the test failed."""
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

        def again() -> WorkspaceMock:
            return type(self)(**self._options)

        wrapper: Any
        if inspect.iscoroutinefunction(function):

            async def wrapper(*args: Any, **kwargs: Any) -> Any:
                with again() as mocked:
                    return await call(mocked, args, kwargs)

        elif inspect.isgeneratorfunction(function):

            def wrapper(*args: Any, **kwargs: Any) -> Any:
                with again() as mocked:
                    return (yield from call(mocked, args, kwargs))

        elif inspect.isasyncgenfunction(function):

            async def wrapper(*args: Any, **kwargs: Any) -> Any:
                with again() as mocked:
                    async with aclosing(call(mocked, args, kwargs)) as values:
                        async for each in values:
                            yield each

        else:

            def wrapper(*args: Any, **kwargs: Any) -> Any:
                with again() as mocked:
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
