"""A bias behind a projection is moved in front of it exactly, or is an error."""

import pytest
import torch

from zerovl.errors import ZeroVLError
from zerovl.interop.projection_bias import moved_before


def test_a_bias_is_moved_or_refused() -> None:
    generator = torch.Generator().manual_seed(0)
    wide, bias, hidden = (torch.randn(shape, generator=generator) for shape in ((3, 5), (3,), (2, 5)))
    moved = moved_before(wide, bias, "file")
    torch.testing.assert_close((hidden + moved) @ wide.T, hidden @ wide.T + bias)
    assert not moved_before(wide, torch.zeros(3), "file").any()
    with pytest.raises(ZeroVLError, match="file: the bias behind its projection of 3 to 5 features cannot be moved"):
        moved_before(wide.T, torch.ones(5), "file")
