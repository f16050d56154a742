"""What GPUs reach on paper: for plans that nobody has measured yet."""

from __future__ import annotations

from dataclasses import dataclass

from zerovl.errors import ZeroVLError
from zerovl.params import MachineParams, TrainParams

# Share of the matrix rate that decoupled steps of ViT-B/16 and BERT-base reached on an H100 (benchmarks/README.md).
_EAGER, _LOW_STREAMS, _LOW_STREAMS_COMPILED = 0.32, 0.39, 0.43
_SINGLE = 0.5  # in float32, not measured: products are slower there and the rest matters less


@dataclass(frozen=True)
class Gpu:
    """Rates in TFLOP/s that large dense matrix products reach: about 0.8 of the vendors' data sheets."""

    name: str
    memory_gib: int
    half: float  # bf16 and fp16 on tensor cores
    single: float  # float32 without TF32


# Data sheets of NVIDIA, dense rates; the SXM version where there are several.
_GPUS = [
    Gpu("B200", 180, 1800, 60),
    Gpu("H200", 141, 800, 53),
    Gpu("H100", 80, 800, 53),
    Gpu("A100-80GB", 80, 250, 15),
    Gpu("A100", 40, 250, 15),
    Gpu("L40S", 48, 290, 73),
    Gpu("L4", 24, 97, 24),
    Gpu("A10G", 24, 56, 25),
    Gpu("A10", 24, 100, 25),
    Gpu("V100", 16, 100, 12),
    Gpu("T4", 16, 52, 6),
    Gpu("RTX 4090", 24, 132, 66),
    Gpu("RTX 3090", 24, 57, 28),
]


def utilisation(train: TrainParams, machine: MachineParams) -> float:
    """Return the share of the matrix rate that training is assumed to reach with these settings."""
    if train.precision == "float32":
        return _SINGLE
    if train.residual_stream == "float32":
        return _EAGER
    return _LOW_STREAMS_COMPILED if machine.compile else _LOW_STREAMS


def named(text: str) -> Gpu:
    """The GPU that --gpu names; raises `ZeroVLError` for one that is not in the table."""
    found = known(text)
    if found is None:
        raise ZeroVLError(f"--gpu {text!r}: not in the table; name one of {', '.join(gpu.name for gpu in _GPUS)}")
    return found


def known(device_name: str) -> Gpu | None:
    """The row of a name such as "h100" or, as CUDA gives it, "NVIDIA A100-SXM4-80GB"."""
    words = device_name.upper().replace("-", " ").split()
    for gpu in _GPUS:
        if all(word in words for word in gpu.name.upper().replace("-", " ").split()):
            return gpu
    return None
