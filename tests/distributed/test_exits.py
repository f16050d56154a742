"""Whose failure an error of torch.distributed is, and what is shown of it."""

import pytest
from torch.distributed import DistBackendError, DistNetworkError, DistStoreError

from zerovl.distributed import exits
from zerovl.training import one_rank


def nccl(kind: str, explained: str, last: str) -> DistBackendError:
    """As torch puts it together."""
    head = f"NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.cpp:77, {kind}, NCCL version 2.30.7"
    return DistBackendError(f"{head}\n{explained}\nLast error:\n{last}")


SYSTEM = "ncclSystemError: System call (e.g. socket, malloc) or external library call failed or device error. "
INTERNAL = "ncclInternalError: Internal check failed."
STORE = (
    "[1] is setting up NCCL communicator and retrieving ncclUniqueId from [0] via c10d key-value store by key '0', "
    "but store->get('0') got error: Failed to recv, got 0 bytes. Connection was likely closed.\n"
    "Exception raised from recvBytes at Utils.hpp:676 (most recent call first):\nframe #0: c10::Error::Error"
)

OWN = {
    "shared memory": nccl(
        "unhandled system error (run with NCCL_DEBUG=INFO for details)",
        SYSTEM,
        "Error while creating shared memory segment /dev/shm/nccl-WU88OE (size 9637888), error: No space left",
    ),
    "memory": nccl("unhandled cuda error", "ncclUnhandledCudaError: Call to CUDA function failed.", "out of memory"),
    "one GPU twice": nccl(
        "invalid usage",
        "ncclInvalidUsage: This usually reflects invalid usage of NCCL library.",
        "Duplicate GPU detected : rank 0 and rank 1 both on CUDA device 1000",
    ),
    "peer access": nccl("unhandled cuda error", INTERNAL, "peer access is not supported between these two devices"),
    "no error of a group": RuntimeError("shape mismatch"),
}
LOST = {
    "remote": nccl(
        "remote process exited or there was a network error",
        "ncclRemoteError: A call failed possibly due to a network error or a remote process exiting prematurely.",
        "socketPollConnect: connect to 10.0.0.2<33759> returned No such device",
    ),
    "closed": nccl("internal error", INTERNAL, "socketProgress: Connection closed by remote peer node2<42830>"),
    "refused": nccl("unhandled system error", SYSTEM, "connect to node2<42830> failed : Connection refused"),
    "unique id": DistBackendError(STORE),
    "store": DistStoreError("wait timeout after 1800000ms, keys: /x"),
    "network": DistNetworkError("Failed to recv, got 0 bytes. Connection was likely closed."),
    "gloo": RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer"),
}


@pytest.mark.parametrize("error", OWN.values(), ids=OWN.keys())
def test_an_own_failure_is_shown_whole(error: RuntimeError, capfd: pytest.CaptureFixture[str]) -> None:
    assert not exits.peer_is_gone(error)
    assert one_rank._crashed("1", error) == exits.CRASHED
    said = capfd.readouterr().err
    assert str(error) in said
    assert type(error).__name__ in said


@pytest.mark.parametrize("error", LOST.values(), ids=LOST.keys())
def test_a_lost_peer_is_said_in_one_line(error: RuntimeError, capfd: pytest.CaptureFixture[str]) -> None:
    assert exits.peer_is_gone(error)
    assert one_rank._crashed("1", error) == exits.LOST_PEER
    (line,) = capfd.readouterr().err.splitlines()
    _, _, said = line.partition(" ")  # after the time
    assert said == f"rank 1 lost another rank: {exits.summary_line(error)}"


def test_the_line_that_says_most() -> None:
    assert exits.summary_line(LOST["closed"]) == "socketProgress: Connection closed by remote peer node2<42830>"
    assert exits.summary_line(LOST["unique id"]).endswith("got 0 bytes. Connection was likely closed.")
    assert exits.summary_line(RuntimeError()) == "RuntimeError"
