"""Our own client: the policy behind a server is the policy, seed for seed; it survives the server's restart."""

import functools
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from websockets.sync.server import ServerConnection, serve

import lfm_envs
from lfm_envs.point_mass import CONTRACT
from lfm_policy.chunks.horizon import RecedingHorizon
from lfm_policy.contract import Camera
from lfm_policy.errors import ContractError, ServingError
from lfm_policy.protocols import ChunkBatch, ChunkPolicy
from lfm_policy.rollout.runner import Runner, RunnerOptions
from lfm_policy.server import wire
from lfm_policy.server.client import PolicyClient
from lfm_policy.server.load_test import load
from lfm_policy.server.server import PolicyServer
from tests.rollout.scripted import Straight
from tests.server.served import Held, eventually, served


def uri(server: PolicyServer) -> str:
    return f"ws://127.0.0.1:{server.port}"


@contextmanager
def client(**options: object) -> Iterator[PolicyClient]:
    with served(**options) as server, PolicyClient(uri(server), contract=CONTRACT) as policy:  # pyright: ignore
        yield policy


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_it_is_the_policy_bit_for_bit() -> None:
    generator = np.random.default_rng(0)
    histories = generator.standard_normal((5, 2, 4)).astype(np.float32)
    noise = generator.standard_normal((5, 8, 2)).astype(np.float32)
    local = Straight()
    with client() as policy:
        assert isinstance(policy, ChunkPolicy)
        assert (policy.contract, policy.observation_steps, policy.action_steps, policy.noise_shape) == (
            local.contract,
            local.observation_steps,
            local.action_steps,
            local.noise_shape,
        )
        remote = policy.predict(histories, noise)
        expected = local.predict(histories, noise)
    np.testing.assert_array_equal(remote.actions, expected.actions)
    assert remote.nfe == expected.nfe


def test_rollouts_through_a_server_are_those_of_the_policy_itself() -> None:
    factory = functools.partial(lfm_envs.make, "point_mass")
    seeds, options = range(4), RunnerOptions(workers=1)
    local = Runner(Straight(), factory, options).run(seeds)
    with client() as policy:
        remote = Runner(policy, factory, options).run(seeds)
    assert [result.digest for result in remote] == [result.digest for result in local]
    assert any(result.success for result in remote)


def test_a_session_is_the_receding_horizon_of_its_seed() -> None:
    rows = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
    local = RecedingHorizon(Straight(), seed=4)
    with client() as policy:
        session = policy.session(seed=4)
        for first, last in ((0, 1), (1, 5), (5, 9)):
            plan = session.infer(rows[first:last])
            local.observe(rows[first:last])
            chunk = Straight().predict(local.history[None], local.noise[None]).actions[0]
            np.testing.assert_array_equal(plan.chunk, chunk)
            np.testing.assert_array_equal(plan.actions, chunk[1:])
            local.advance(chunk)
        session.close()
        session.close()
        session.reset(seed=4)
        assert session.infer(rows[0]).nfe == 3


def test_predictions_and_sessions_survive_a_restart_of_the_server() -> None:
    rows = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    with client() as policy:
        session = policy.session(seed=9)
        expected = [session.infer(row).chunk for row in rows]
    port = free_port()
    with served(port=port) as server:
        policy = PolicyClient(uri(server))
        session = policy.session(seed=9)
        found = [session.infer(row).chunk for row in rows[:2]]
    with served(port=port):
        found += [session.infer(row).chunk for row in rows[2:]]
        policy.close()
    np.testing.assert_array_equal(found, expected)


def test_it_waits_for_a_server_that_starts_late() -> None:
    port, policies = free_port(), []
    waiting = threading.Thread(target=lambda: policies.append(PolicyClient(f"ws://127.0.0.1:{port}")))
    waiting.start()
    time.sleep(0.2)
    with served(port=port):
        waiting.join(10)
        policies[0].close()
    assert policies[0].contract == CONTRACT


def test_a_reply_that_does_not_come_is_asked_for_again_on_a_new_connection() -> None:
    policy = Held()
    with served(policy) as server:
        remote = PolicyClient(uri(server), timeout_s=0.3)
        session, plans = remote.session(seed=1), []
        asking = threading.Thread(target=lambda: plans.append(session.infer(np.zeros(4))))
        asking.start()
        assert policy.entered.acquire(timeout=5)
        assert eventually(lambda: len(server._batcher._waiting) == 1)  # asked again, while the first call still hangs
        policy.go_on.release(10)
        asking.join(10)
        local = RecedingHorizon(Straight(), seed=1)
        local.observe(np.zeros((1, 4)))
        chunk = Straight(0.1).predict(local.history[None], local.noise[None]).actions[0]
        np.testing.assert_array_equal(plans[0].chunk, chunk)
        remote.close()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ws://127.0.0.1:{free}", "no answer from the policy server .* is lfm serve running there"),
        ("http://127.0.0.1:8000", "expected ws://HOST:PORT"),
        ("127.0.0.1", "expected ws://HOST:PORT"),
    ],
)
def test_an_address_without_a_server(address: str, message: str) -> None:
    with pytest.raises(ServingError, match=message):
        PolicyClient(address.format(free=free_port()), reconnect_s=0.2)


def test_encryption_that_the_server_does_not_speak_is_told_at_once() -> None:
    with served() as server, pytest.raises(ServingError, match="expected ws:// where the server has no certificate"):
        PolicyClient(uri(server).replace("ws://", "wss://"), reconnect_s=30.0)


def test_refusals_are_raised_with_the_servers_words() -> None:
    with served(keys=("k" * 16,)) as server:
        with pytest.raises(ServingError, match=r"refuses the connection \(401\): this server needs a key"):
            PolicyClient(uri(server), api_key="wrong")
        with PolicyClient(uri(server), api_key="k" * 16) as policy:
            with pytest.raises(
                ServingError, match=r"item 0 of __batch__: observation 'observation.state': expected width 4"
            ):
                policy.predict(np.zeros((1, 2, 3), np.float32), np.zeros((1, 8, 2), np.float32))
            assert policy.predict(np.zeros((1, 2, 4), np.float32), np.zeros((1, 8, 2), np.float32)).nfe == 3


def test_another_contract_is_refused_both_sides_named() -> None:
    other = CONTRACT.model_copy(update={"control_hz": 10.0})
    with (
        served() as server,
        pytest.raises(ContractError, match=r"control_hz: policy straight .* has 20.0, the client ha"),
    ):
        PolicyClient(uri(server), contract=other)


def test_a_restart_with_another_policy_is_noticed() -> None:
    port = free_port()
    with served(port=port) as server:
        policy = PolicyClient(uri(server))
    policy._greeting = policy._greeting.model_copy(update={"digest": "of the policy before"})
    with served(port=port), pytest.raises(ServingError, match="now serves straight"):
        policy.predict(np.zeros((1, 2, 4), np.float32), np.zeros((1, 8, 2), np.float32))


def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    with served() as server:
        with PolicyClient(uri(server)) as policy:
            assert policy.contract == CONTRACT
        assert load(uri(server), clients=1, seconds=0.1).errors == []
        with pytest.raises(ServingError, match="no answer from the policy server"):
            PolicyClient(uri(server), proxy=f"http://127.0.0.1:{free_port()}", reconnect_s=0.1)


def test_more_than_one_message_holds_are_asked_for_in_several() -> None:
    generator = np.random.default_rng(0)
    histories = generator.standard_normal((11, 2, 4)).astype(np.float32)
    noise = generator.standard_normal((11, 8, 2)).astype(np.float32)
    expected = Straight().predict(histories, noise).actions
    for limits in ({"max_batch": 4}, {"max_message_bytes": 2048}):
        policy = Straight()
        with served(policy, **limits) as server, PolicyClient(uri(server)) as remote:
            np.testing.assert_array_equal(remote.predict(histories, noise).actions, expected)
            assert remote.predict(histories[:0], noise[:0]).actions.shape == (0, 8, 2)
        assert len(policy.batches) > 1


class Seeing(Straight):
    """Goes where the first pixel of its second camera says."""

    contract = CONTRACT.model_copy(
        update={"cameras": tuple(Camera(name=name, height=8, width=6) for name in ("top", "wrist"))}
    )

    def predict(self, histories: np.ndarray, noise: np.ndarray, frames: np.ndarray | None = None) -> ChunkBatch:
        assert frames is not None
        chunks = super().predict(histories, noise)
        return ChunkBatch(chunks.actions + frames[:, 1, 0, 0, :2][:, None], chunks.nfe)


def test_pictures_travel_in_batches_and_in_sessions() -> None:
    generator = np.random.default_rng(0)
    histories = generator.standard_normal((5, 2, 4)).astype(np.float32)
    noise = generator.standard_normal((5, 8, 2)).astype(np.float32)
    frames = generator.integers(0, 256, (5, 2, 8, 6, 3), np.uint8)
    expected = Seeing().predict(histories, noise, frames).actions
    with served(Seeing(), max_batch=3) as server, PolicyClient(uri(server)) as remote:
        np.testing.assert_array_equal(remote.predict(histories, noise, frames).actions, expected)
        local, session = RecedingHorizon(Seeing(), seed=4), remote.session(seed=4)
        local.observe(histories[0], frames[0])
        np.testing.assert_array_equal(
            session.infer(histories[0], frames[0]).chunk, Seeing().predict(*local.inputs).actions[0]
        )
        assert load(uri(server), clients=1, seconds=0.3).errors == []
        with pytest.raises(ServingError, match="picture 'top_image' is missing"):
            remote.session(seed=5).infer(histories[0])


GREETING = {
    "policy": "odd",
    "digest": "digest",
    "observation_steps": 2,
    "action_steps": 4,
    "noise_shape": [8, 2],
    "contract": CONTRACT.model_dump(mode="json"),
}
CHUNK = np.zeros((8, 2), np.float32)


@contextmanager
def odd_server(*frames: object) -> Iterator[str]:
    """A server that sends one frame at once, and one more for each message."""
    packed = [frame if isinstance(frame, str | bytes) else wire.pack(frame) for frame in frames]

    def converse(connection: ServerConnection) -> None:
        for frame in packed:
            connection.send(frame)
            connection.recv()

    with serve(converse, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join(10)


@pytest.mark.parametrize(
    ("greeting", "message"),
    [
        ({}, "does not greet as a policy server of this kind does: policy: Field required"),
        ([1, 2], "the whole: Input should be"),
        (GREETING | {"noise_shape": []}, "noise_shape: Tuple should have at least 1 item"),
        (GREETING | {"noise_shape": [10**9]}, "noise_shape.0: Input should be less than or equal to 100000"),
        (GREETING | {"action_steps": "many"}, "action_steps: Input should be a valid integer"),
        (GREETING | {"observation_steps": 0}, "observation_steps: Input should be greater than or equal to 1"),
        (GREETING | {"action_steps": 9}, "9 actions of a chunk of 8 are executed after 2 observations"),
        (GREETING | {"contract": None}, "contract: Input should be"),
        (GREETING | {"limits": 3}, "limits: Input should be"),
        ("no policy is loaded", "the policy server answers: no policy is loaded"),
        (b"\xc1", "expected one msgpack map"),
        (b"\0" * (2**24 + 1), "no answer from the policy server .* exceeds limit"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_an_odd_greeting_is_told_kindly(greeting: object, message: str) -> None:
    with odd_server(greeting) as address, pytest.raises(ServingError, match=message):
        PolicyClient(address, reconnect_s=0.2)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ([], "answers with list, expected a map"),
        ({}, "answers 1 requests without a list of as many"),
        ({"batch": [{}], "nfe": 1}, r"a chunk that is NoneType, expected \(8, 2\)"),
        ({"batch": [{"chunk": CHUNK[:3]}], "nfe": 1}, r"a chunk that is float32 of shape \(3, 2\), expected \(8, 2\)"),
        ({"batch": [{"chunk": CHUNK * np.nan}], "nfe": 1}, "a chunk that holds NaN or infinity"),
        ({"batch": [{"chunk": CHUNK}]}, "answers without 'nfe'"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_an_odd_reply_never_reaches_a_robot(reply: object, message: str) -> None:
    with (
        odd_server(GREETING, reply) as address,
        PolicyClient(address, reconnect_s=0.2) as policy,
        pytest.raises(ServingError, match=message),
    ):
        policy.predict(np.zeros((1, 2, 4), np.float32), np.zeros((1, 8, 2), np.float32))
