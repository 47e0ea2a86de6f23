"""From released tensor names to transformers' and back.

transformers runs these declarations while it loads (streaming, so no second copy of the weights) and runs
them backwards while it saves. Fused rows are cut by the sizes of the model's own parameters, which is
what makes grouped key/value heads come out right; going back is a plain concatenation.
"""

from __future__ import annotations

from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import Split, WeightConverter, WeightRenaming

#: What all families share: where things sit in the tree.
ROOT = [
    WeightRenaming(r"^model\.transformer\.ff_out", "lm_head"),
    WeightRenaming(r"^model\.transformer\.wte", "model.wte"),
    WeightRenaming(r"^model\.transformer\.ln_f", "model.language_model.norm"),
    WeightRenaming(r"^model\.transformer\.blocks", "model.language_model.layers"),
]

#: The layers of Molmo-7B-D and Molmo-72B. Fused rows: q, k, v; and up before gate.
QWEN2_LAYERS = [
    WeightRenaming("attn_out", "self_attn.o_proj"),
    WeightRenaming("attn_norm", "input_layernorm"),
    WeightRenaming("ff_norm", "post_attention_layernorm"),
    WeightRenaming("ff_out", "mlp.down_proj"),
    WeightConverter("att_proj", ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], [Split(dim=0)]),
    WeightConverter("ff_proj", ["mlp.up_proj", "mlp.gate_proj"], [Split(dim=0)]),
]


def register() -> None:
    """Tell transformers how Molmo checkpoints are laid out."""
    register_checkpoint_conversion_mapping("MolmoForConditionalGeneration", ROOT, overwrite=True)
    register_checkpoint_conversion_mapping("MolmoQwen2Model", QWEN2_LAYERS, overwrite=True)
