"""Masked language modelling: hidden words are told from the words around them.

B sentences, S tokens, V tokens of the vocabulary, P hidden tokens, D width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

_MASKED, _REPLACED = 0.8, 0.9  # of what is hidden: up to here by [MASK], up to here by another


class Hidden(NamedTuple):
    """Tokens [B, S] as the encoder sees them, and which of them are to be told [B, S]."""

    tokens: Tensor
    asked: Tensor


def hide_words(
    tokens: Tensor,
    starts: Tensor,
    words: Tensor,
    *,
    share: float,
    mask: int,
    others: Tensor,
    generator: torch.Generator,
) -> Hidden:
    """Hide whole words: 80 % of their tokens become [MASK], 10 % another token, 10 % stay.

    A word is a token at which one starts, and what follows up to the next such. Source: Devlin et
    al., BERT, NAACL 2019; whole words as in its later release.

    Args:
        tokens: ids [B, S].
        starts: where a word starts [B, S].
        words: which tokens may be hidden [B, S]: not [CLS], nor padding.
        share: of the words that are hidden, 0 to 1.
        mask: the id of [MASK].
        others: ids that a token may be replaced by.
        generator: on the CPU, so that every device hides the same.
    """
    shape, device = tokens.shape, tokens.device
    of_words = torch.rand(shape, generator=generator).to(device)
    how = torch.rand(shape, generator=generator).to(device)
    another = torch.randint(len(others), shape, generator=generator).to(device)
    word = starts.long().cumsum(1)  # below S + 1
    chance = of_words.gather(1, (word - 1).clamp(min=0))  # one for all tokens of a word
    asked = words & (chance < share)
    hidden = torch.where(how < _REPLACED, others[another], tokens)
    hidden = torch.where(how < _MASKED, torch.full_like(tokens, mask), hidden)
    return Hidden(torch.where(asked, hidden, tokens), asked)


def token_losses(logits: Tensor, tokens: Tensor) -> Tensor:
    """`-log softmax(logits)[token]` [P] from logits [P, V] and tokens [P], in float32."""
    return F.cross_entropy(logits.float(), tokens.long(), reduction="none")


def bag_of_words(logits: Tensor, kept: Tensor, tokens: Tensor, words: Tensor) -> Tensor:
    """What all of a sentence's tokens say together of which there are, DupMAE's second task [B].

    `mu = max over kept tokens of their logits`, and the mean of `-log softmax(mu)[x]` over the
    distinct tokens x of the sentence. Source: Xiao et al., RetroMAE-2: duplex masked auto-encoder,
    ACL 2023, with the mean over distinct tokens as in the authors' program, so that long sentences
    weigh no more than short ones.

    Args:
        logits: of every token [B, S, V].
        kept: tokens that were not hidden [B, S]; a sentence without any has the loss 0.
        tokens: the ids as they were [B, S].
        words: which tokens are to be told [B, S].
    """
    there = kept.unsqueeze(2)
    most = logits.float().masked_fill(~there, torch.finfo(torch.float32).min).amax(1)
    told = torch.zeros_like(most).scatter_reduce(1, tokens.long(), words.to(most.dtype), "amax")
    losses = -(told * most.log_softmax(1)).sum(1) / told.sum(1).clamp(min=1)
    return losses * kept.any(1)
