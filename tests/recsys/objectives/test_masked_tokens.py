"""Hidden words and what is lost on them, against values worked out by hand."""

from __future__ import annotations

import math

import torch

from recsys.objectives.masked_tokens import bag_of_words, hide_words, token_losses

OTHERS = torch.arange(5, 50)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_whole_words_are_hidden_in_the_published_shares() -> None:
    tokens = torch.arange(50).expand(400, 50)
    starts = torch.arange(50).expand(400, 50) % 3 == 1  # after [CLS], words of three tokens
    words = torch.ones_like(starts)
    words[:, 0] = False
    words[:, 40:] = False
    hidden, asked = hide_words(
        tokens, starts, words, share=0.15, mask=1, others=OTHERS, generator=generator()
    )
    assert not asked[:, 0].any() and not asked[:, 40:].any()
    assert torch.equal(hidden[~asked], tokens[~asked])
    triples = asked[:, 1:40].view(400, 13, 3)
    assert torch.equal(triples.all(2), triples.any(2))
    assert abs(triples.any(2).float().mean() - 0.15) < 0.01
    masked, stays = hidden[asked] == 1, hidden[asked] == tokens[asked]
    assert abs(masked.float().mean() - 0.8) < 0.02 and abs(stays.float().mean() - 0.1) < 0.02
    assert torch.isin(hidden[asked & (hidden != 1) & (hidden != tokens)], OTHERS).all()


def test_the_same_draw_hides_the_same() -> None:
    tokens, yes = torch.arange(40).view(2, 20), torch.ones(2, 20, dtype=torch.bool)
    hide = [
        hide_words(tokens, yes, yes, share=0.5, mask=1, others=OTHERS, generator=generator(seed))
        for seed in (3, 3, 4)
    ]
    assert torch.equal(hide[0].tokens, hide[1].tokens)
    assert not torch.equal(hide[0].tokens, hide[2].tokens)
    nothing = hide_words(tokens, yes, yes, share=0.0, mask=1, others=OTHERS, generator=generator())
    assert not nothing.asked.any() and torch.equal(nothing.tokens, tokens)


def test_a_token_costs_the_log_of_its_share() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]])
    expected = torch.tensor([math.log(4 / 3), math.log(2.0)])
    torch.testing.assert_close(token_losses(logits, torch.tensor([1, 0])), expected)


def test_a_bag_takes_the_most_of_tokens_that_were_kept_and_every_token_once() -> None:
    """mu = (0, log 2, log 4, 0): the last position is hidden and says nothing."""
    logits = torch.zeros(1, 4, 4)
    logits[0, 1, 1], logits[0, 2, 2], logits[0, 3, 3] = math.log(2), math.log(4), 9.0
    tokens = torch.tensor([[0, 1, 1, 2]])
    words = torch.tensor([[False, True, True, True]])
    kept = torch.tensor([[False, True, True, False]])
    expected = (math.log(8 / 2) + math.log(8 / 4)) / 2  # of 1 and 2, whose shares are 2/8 and 4/8
    torch.testing.assert_close(bag_of_words(logits, kept, tokens, words), torch.tensor([expected]))


def test_a_sentence_of_which_all_is_hidden_costs_nothing() -> None:
    logits = torch.randn(2, 3, 5, requires_grad=True)
    kept = torch.tensor([[False, True, True], [False, False, False]])
    losses = bag_of_words(logits, kept, torch.tensor([[0, 1, 2], [0, 3, 4]]), kept | True)
    assert losses[1] == 0 and losses[0] > 0
    losses.sum().backward()
    assert logits.grad is not None and logits.grad.isfinite().all()
    mu = logits[0, 1:].amax(0).log_softmax(0)
    torch.testing.assert_close(losses[0], -mu[:3].mean())
