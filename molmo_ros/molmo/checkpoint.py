"""From released tensor names to transformers' and back.

transformers runs these declarations while it loads (streaming, so no second copy of the weights) and runs
them backwards while it saves. Fused rows are cut by the sizes of the model's own parameters, which is
what makes grouped key/value heads come out right; going back is a plain concatenation.
"""

from __future__ import annotations

from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import (
    Concatenate,
    MergeModulelist,
    Split,
    WeightConverter,
    WeightRenaming,
)

#: Where the parts of all families sit in the tree.
TREE = [
    WeightRenaming(r"transformer\.wte", "wte"),
    WeightRenaming(r"transformer\.ln_f", "language_model.norm"),
    WeightRenaming(r"transformer\.blocks", "language_model.layers"),
]

#: The output head of all but MolmoE-1B, which has `lm_head` at the top already.
HEAD = [WeightRenaming(r"^model\.transformer\.ff_out", "lm_head")]

#: Fused rows of all but MolmoE-1B: q, k, v; and up before gate.
FUSED = [
    WeightRenaming("attn_out", "self_attn.o_proj"),
    WeightRenaming("ff_out", "mlp.down_proj"),
    WeightConverter("att_proj", ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], [Split(dim=0)]),
    WeightConverter("ff_proj", ["mlp.up_proj", "mlp.gate_proj"], [Split(dim=0)]),
]

#: The layers of Molmo-7B-D and Molmo-72B: norms before.
QWEN2_LAYERS = [
    WeightRenaming("attn_norm", "input_layernorm"),
    WeightRenaming("ff_norm", "post_attention_layernorm"),
    *FUSED,
]

#: The layers of Molmo-7B-O: norms after, and norms of queries and keys.
OLMO2_LAYERS = [
    WeightRenaming("attn_norm", "post_attention_layernorm"),
    WeightRenaming("ff_norm", "post_feedforward_layernorm"),
    WeightRenaming("q_norm", "self_attn.q_norm"),
    WeightRenaming("k_norm", "self_attn.k_norm"),
    *FUSED,
]

#: The layers of MolmoE-1B: experts one by one, which transformers keeps in one tensor with gate before up.
OLMOE_LAYERS = [
    WeightRenaming("attn.attn_norm", "input_layernorm"),
    WeightRenaming("mlp.ff_norm", "post_attention_layernorm"),
    WeightRenaming("attn.attn_out", "self_attn.o_proj"),
    WeightRenaming("attn.q_norm", "self_attn.q_norm"),
    WeightRenaming("attn.k_norm", "self_attn.k_norm"),
    WeightConverter(
        "attn.att_proj", ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], [Split(dim=0)]
    ),
    WeightConverter(
        ["mlp.experts.*.gate_proj.weight", "mlp.experts.*.up_proj.weight"],
        "mlp.experts.gate_up_proj",
        [MergeModulelist(dim=0), Concatenate(dim=1)],
    ),
    WeightConverter("mlp.experts.*.down_proj.weight", "mlp.experts.down_proj", [MergeModulelist(dim=0)]),
]


def register() -> None:
    """Tell transformers how Molmo checkpoints are laid out."""
    for class_name, mapping in {
        "MolmoForConditionalGeneration": HEAD,
        "MolmoModel": TREE,
        "MolmoQwen2Model": QWEN2_LAYERS,
        "MolmoOlmo2Model": OLMO2_LAYERS,
        "MolmoOlmoeModel": OLMOE_LAYERS,
    }.items():
        register_checkpoint_conversion_mapping(class_name, mapping, overwrite=True)
