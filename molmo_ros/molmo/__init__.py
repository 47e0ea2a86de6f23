"""Molmo v1 (Deitke et al. 2024, arXiv:2409.17146) for transformers 5, without remote code.

Importing this package registers the model with transformers' Auto classes.
"""

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
)

from . import checkpoint
from .config import MolmoConfig, MolmoVisionConfig
from .image_processing import MolmoImageProcessor
from .modeling import MolmoForConditionalGeneration, MolmoModel
from .processing import MolmoProcessor

checkpoint.register()
AutoConfig.register("molmo", MolmoConfig, exist_ok=True)
AutoModel.register(MolmoConfig, MolmoModel, exist_ok=True)
AutoModelForCausalLM.register(MolmoConfig, MolmoForConditionalGeneration, exist_ok=True)
AutoModelForImageTextToText.register(MolmoConfig, MolmoForConditionalGeneration, exist_ok=True)
AutoImageProcessor.register(MolmoConfig, image_processor_classes={"pil": MolmoImageProcessor}, exist_ok=True)
AutoProcessor.register(MolmoConfig, MolmoProcessor, exist_ok=True)

__all__ = [
    "MolmoConfig",
    "MolmoForConditionalGeneration",
    "MolmoImageProcessor",
    "MolmoModel",
    "MolmoProcessor",
    "MolmoVisionConfig",
]
