"""A sentence is rebuilt from its vector, and no position from itself."""

from __future__ import annotations

import torch

from recsys.layers.enhanced_decoder import EnhancedDecoder, visible


def test_positions_see_the_vector_and_a_share_of_the_others() -> None:
    present = torch.ones(200, 12, dtype=torch.bool)
    present[:, 9:] = False
    seen = visible(present, 0.5, torch.Generator().manual_seed(0))
    assert seen[:, :, 0].all()
    assert not seen[:, :, 9:].any()
    itself = torch.arange(1, 12)
    assert not seen[:, itself, itself].any()
    others = ~torch.eye(12, dtype=torch.bool)[1:9, 1:9]
    assert abs(seen[:, 1:9, 1:9][:, others].float().mean() - 0.5) < 0.01
    assert not torch.equal(seen[0], seen[1])  # each sentence has its own


def test_a_position_depends_on_the_vector_and_on_what_it_sees_alone() -> None:
    torch.manual_seed(0)
    decoder = EnhancedDecoder(8, 2, positions=6)
    vectors, tokens = torch.randn(1, 8), torch.randn(1, 6, 8)
    seen = torch.zeros(1, 6, 6, dtype=torch.bool)
    seen[..., 0] = True
    seen[0, 2, 4] = True
    tokens.requires_grad_()
    vectors.requires_grad_()
    for position, expected in ((2, [4]), (3, [])):
        out = decoder(vectors, tokens, seen)[0, position].square().sum()
        of_tokens, of_vectors = torch.autograd.grad(out, [tokens, vectors])
        assert of_tokens.abs().sum(2)[0].nonzero().flatten().tolist() == expected
        assert of_vectors.abs().sum() > 0
