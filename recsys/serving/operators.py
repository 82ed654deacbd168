"""The operators that an exported program may call: arithmetic of tensors.

torch.export names operators by a path of attributes, and by such a path anything within torch can
be called. Of its operators some read and write files. So those that models need are listed, and
another one that a new model needs is a word more here.
"""

from __future__ import annotations

import re
from typing import Any

import torch

from recsys.serving.grammar import Refused, shown

_NAMES = """
    abs acos add addcdiv addcmul addmm all alias amax amin any arange argmax argmin argsort asin
    atan atan2 avg_pool1d baddbmm bitwise_and bitwise_not bitwise_or bitwise_right_shift
    bitwise_xor bmm broadcast_to cat ceil celu chunk clamp clamp_max clamp_min clone
    constant_pad_nd contiguous conv1d copy cos cosine_similarity cummax cummin cumprod cumsum
    detach diagonal diff div dot dropout einsum elu embedding embedding_bag empty empty_like eq
    erf exp expand expand_as expm1 eye fft_fft fft_ifft fft_irfft fft_rfft fill flatten flip
    floor floor_divide fmod full full_like gather ge gelu glu group_norm gru gt hardtanh histc
    index index_add index_copy index_fill index_put index_select isfinite isin isinf isnan
    kthvalue layer_norm le leaky_relu lerp lift lift_fresh lift_fresh_copy linalg_inv
    linalg_norm linalg_solve linalg_vector_norm linear linspace log log10 log1p log2 log_sigmoid
    log_softmax logaddexp logical_and logical_not logical_or logical_xor logsumexp lstm lt
    masked_fill masked_select matmul max max_pool1d maximum mean median min minimum mish mm mode
    mul movedim mv nan_to_num narrow ne neg new_empty new_full new_ones new_zeros nonzero norm
    numpy_T one_hot ones ones_like outer pad permute pow prelu prod quantile reciprocal relu
    remainder repeat repeat_interleave reshape reshape_as rms_norm rnn_relu rnn_tanh roll round
    rsqrt rsub scalar_tensor scaled_dot_product_attention scatter scatter_add scatter_reduce
    searchsorted select select_scatter selu sigmoid sign silu sin slice slice_scatter slogdet
    softmax softplus sort split split_with_sizes sqrt square squeeze stack std sub sum swapaxes
    sym_numel sym_size t take take_along_dim tan tanh tensor_split threshold tile to topk trace
    transpose tril triu true_divide trunc type_as unbind unflatten unfold unsqueeze var view
    view_as view_as_complex view_as_real where zeros zeros_like _assert_scalar
    _assert_tensor_metadata _log_softmax _softmax _to_copy _unsafe_view __and__ __or__ __xor__
    __lshift__ __rshift__
"""
_OPERATORS = set(_NAMES.split())
_OF_SIZES = {
    *(f"_operator.{name}" for name in ("add", "sub", "mul", "floordiv", "mod", "neg", "pos")),
    *(f"_operator.{name}" for name in ("eq", "ne", "lt", "le", "gt", "ge", "and_", "or_")),
    *(f"torch.sym_{name}" for name in ("max", "min", "not", "ite")),
}
_REGIONS = {  # of a program, in which numbers are treated otherwise, or one of which is run
    "torch.ops.higher_order.cond",
    "torch.ops.higher_order.wrap_with_autocast",
    "torch.ops.higher_order.wrap_with_set_grad_enabled",
}
_TARGET = re.compile(r"torch\.ops\.aten\.(\w+)\.(\w+)")


def check_operator(target: Any, where: str) -> None:
    """Raises Refused for what is not the name of an operator that may be called."""
    if target in _OF_SIZES or target in _REGIONS:
        return
    named = _TARGET.fullmatch(target) if isinstance(target, str) else None
    if named is None or not _is_listed(*named.groups()):
        raise Refused(
            where,
            f"calls {shown(target)}, which is none of the operators that a program may call "
            "(recsys/serving/operators.py)",
        )


def _is_listed(name: str, overload: str) -> bool:
    if name not in _OPERATORS and name.removesuffix("_") not in _OPERATORS:  # in place
        return False
    packet = getattr(torch.ops.aten, name, None)
    return packet is not None and overload in packet.overloads()
