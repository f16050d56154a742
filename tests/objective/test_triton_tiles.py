"""The Triton tiles: under Triton's interpreter anywhere, on CUDA where there is a GPU."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.pairs import embeddings
from tests.support.paths import ROOT
from zerovl.objective.tiled import fastest_tiles
from zerovl.objective.tiles import TorchTiles

triton = pytest.importorskip("triton")
triton_tiles = pytest.importorskip("zerovl.objective.triton_tiles")

Case = dict[str, Any]
# Sizes: less than a block, whole blocks, and neither; super-tiles of one block, so that there are several.
CASES: dict[str, Case] = {
    f"{dtype} {batch}x{width} t={temperature} {'mixed' if mixed else 'own'}": {
        "batch": batch,
        "width": width,
        "dtype": dtype,
        "temperature": temperature,
        "mixed": mixed,
        "super_tile": super_tile,
    }
    for dtype, batch, width, temperature, mixed, super_tile in [
        ("float32", 1, 8, 0.07, False, 128),
        ("float32", 7, 24, 0.07, False, 8192),
        ("float32", 256, 32, 0.07, True, 128),
        ("float32", 193, 40, 0.001, True, 128),
        ("float32", 193, 72, 0.02, False, 8192),
        ("bfloat16", 193, 72, 0.05, True, 128),
        ("bfloat16", 130, 64, 0.001, False, 128),
        ("float16", 193, 72, 0.05, True, 128),
    ]
}
# Nearly fitted pairs: P + Q is nearly 2Y, and rounding before the subtraction would leave noise alone.
CASES["bfloat16 fitted"] = {
    "batch": 193,
    "width": 72,
    "dtype": "bfloat16",
    "temperature": 0.1,
    "mixed": False,
    "super_tile": 128,
    "noise": 0.1,
}
# What equal pairs add to the targets is subtracted after the rounding, in float32.
CASES["bfloat16 equal pairs"] = {
    "batch": 60,
    "width": 24,
    "dtype": "bfloat16",
    "temperature": 0.05,
    "mixed": True,
    "super_tile": 128,
    "equal": True,
}
# Of the loss, a difference of logits up to 1000 in float32; and of the gradients, whose weights and results are
# rounded to the dtype of the embeddings.
LOSS_TOLERANCE = 1e-4
GRADIENT_TOLERANCES = {"float32": 1e-4, "bfloat16": 8e-3, "float16": 1e-3}


@pytest.fixture(scope="module")
def interpreted() -> dict[str, list[float]]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.interpreted", json.dumps(CASES)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    errors: dict[str, list[float]] = json.loads(done.stdout)
    return errors


@pytest.mark.parametrize("name", CASES)
def test_interpreted_kernels_equal_the_dense_loss(name: str, interpreted: dict[str, list[float]]) -> None:
    loss, *gradients = interpreted[name]
    assert loss <= LOSS_TOLERANCE
    assert max(gradients) <= GRADIENT_TOLERANCES[CASES[name]["dtype"]]


def test_interpreted_rows_of_the_second_rank(interpreted: dict[str, list[float]]) -> None:
    assert max(interpreted["second rank"]) < 1e-5


@pytest.mark.parametrize(("capability", "instruction"), [(80, "mma.sync"), (90, "wgmma.mma_async")])
def test_kernels_fit_the_gpus_they_are_meant_for(
    capability: int, instruction: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triton compiles without a GPU: tensor cores are used, and shared memory suffices from Ampere on."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from zerovl.objective.triton_kernels import log_sum_exp_partials, softmax_weights

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    launch = triton_tiles.TritonTiles(torch.bfloat16).launch_options(torch.empty(1, 512, dtype=torch.bfloat16))
    options = {name: launch.pop(name) for name in ("num_warps", "num_stages", "maxnreg", "enable_fp_fusion")}
    types = {"image": "*bf16", "text": "*bf16", "weights": "*bf16", "partner": "*i64", "share": "fp32", "gain": "fp32"}
    types |= dict.fromkeys(("scale", "row_lse", "column_lse", "row_partials", "column_partials"), "*fp32")
    for kernel in (log_sum_exp_partials, softmax_weights):
        signature = {name: "constexpr" if name in launch else types.get(name, "i32") for name in kernel.arg_names}
        aligned = [name for name in kernel.arg_names if signature[name].startswith("*") or name == "stride"]
        attributes = {(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in aligned}
        source = ASTSource(kernel, signature, launch, attributes)
        compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
        assert instruction in compiled.asm["ptx"]
        assert "cp.async" in compiled.asm["ptx"]
        assert compiled.metadata.shared <= 99 * 1024


def test_cpu_tensors_take_torch_tiles() -> None:
    image, text = embeddings(4, torch.bfloat16)
    assert fastest_tiles(image, text) == TorchTiles(torch.float32)
    assert fastest_tiles(image, text.double()) == TorchTiles(torch.float64)
