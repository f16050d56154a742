"""The mask that a text tower is given on an accelerator: outputs as with transformers' own, and no look at it."""

import pytest
import torch
from torch import nn

from tests.support.text_towers import FAMILIES, SIZES, VOCABULARY, config_of
from zerovl.model.attention_masks import for_attention
from zerovl.model.text_towers import create_text_tower, text_config_from

LENGTHS = {"padded": [3, 10, 7, 1], "full": [10] * 4}


def tower_of(family: str) -> nn.Module:
    torch.manual_seed(1)
    return create_text_tower(config_of(family)).eval()


def inputs(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(2, 80, (4, 10), generator=torch.Generator().manual_seed(0))
    return ids, (torch.arange(10) < torch.tensor(lengths)[:, None]).long()


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_are_those_of_the_library_s_own_mask(family: str, lengths: str) -> None:
    tower = tower_of(family)
    ids, mask = inputs(LENGTHS[lengths])
    with torch.no_grad():
        expected = tower(input_ids=ids, attention_mask=mask).last_hidden_state
        found = tower(input_ids=ids, attention_mask=for_attention(tower, mask)).last_hidden_state
    assert torch.equal(found, expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_nobody_looks_at_its_values(family: str) -> None:
    tower = tower_of(family).to("meta")  # which has none, and says so to whoever asks
    ids, mask = (tensor.to("meta") for tensor in inputs(LENGTHS["full"]))
    assert tower(input_ids=ids, attention_mask=for_attention(tower, mask)).last_hidden_state.shape[0] == 4
    if family != "siglip_text_model":  # which takes none
        with pytest.raises(RuntimeError, match="meta"):
            tower(input_ids=ids, attention_mask=mask)


def test_of_other_families_it_stays_as_it_is() -> None:
    values = {"model_type": "electra", "vocab_size": VOCABULARY, "embedding_size": 16, **SIZES}
    tower = create_text_tower(text_config_from(values))
    _, mask = inputs(LENGTHS["padded"])
    assert for_attention(tower, mask) is mask
