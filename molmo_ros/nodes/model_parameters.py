"""Which model answers, and where it runs, as data. When one of these changes, the model is loaded anew."""

from __future__ import annotations

from molmo_ros.nodes.parameter_table import Parameter
from molmo_ros.pointing.formats import AUTO, FORMATS

MODEL_PARAMETERS: tuple[Parameter, ...] = (
    Parameter(
        "backend",
        "local",
        "Where the model runs. local: in this process. remote: behind an OpenAI-compatible endpoint.",
        choices=("local", "remote"),
        change="inactive",
    ),
    Parameter(
        "model",
        "",
        "local: folder of a checkpoint or, with allow_downloads, its name on the Hugging Face hub "
        "(docs/models.md). Empty: the small bundled model, which knows the simulated tabletop. "
        "remote: the model's name at the endpoint.",
        change="inactive",
    ),
    Parameter(
        "allow_downloads",
        False,
        "Whether a model that is not on this machine may be fetched from the Hugging Face hub.",
        change="inactive",
    ),
    Parameter(
        "point_format",
        AUTO,
        "How the model was trained to point; it cannot be told from the numbers. auto: for Molmo and Molmo2, "
        "which have but one way.",
        choices=(AUTO, *FORMATS),
        change="inactive",
    ),
    Parameter(
        "device",
        "auto",
        "Where the model runs, as torch names it: cpu, cuda, cuda:1. auto: a GPU if there is one.",
        change="inactive",
    ),
    Parameter(
        "dtype",
        "auto",
        "Number format of the model's arithmetic. auto: bfloat16 on a GPU, float32 elsewhere.",
        choices=("auto", "float32", "bfloat16", "float16"),
        change="inactive",
    ),
    Parameter(
        "quantization",
        "none",
        "Weights of the language model on a CPU: int8 takes a quarter, int4 about a seventh of the memory of float32.",
        choices=("none", "int8", "int4"),
        change="inactive",
    ),
    Parameter(
        "max_crops",
        0,
        "Most crops that Molmo cuts a picture into; fewer are faster and see less. 0: as the model was trained.",
        range=(0, 64),
        change="inactive",
    ),
    Parameter(
        "remote_url",
        "",
        "Address of the endpoint, up to and with /v1. Other machines are spoken to by https only.",
        change="inactive",
    ),
    Parameter(
        "remote_key_variable",
        "",
        "Environment variable that holds the endpoint's key. The key itself is no parameter, as anybody may read "
        "those.",
        change="inactive",
    ),
    Parameter(
        "remote_key_file",
        "",
        "File that holds the endpoint's key, readable by this user alone.",
        change="inactive",
    ),
    Parameter(
        "remote_timeout_s",
        30.0,
        "Time for one question to the endpoint, with all its tries.",
        "s",
        (0.1, 3600.0),
        change="inactive",
    ),
    Parameter(
        "remote_tries",
        3,
        "How often a busy endpoint is asked, with growing pauses.",
        "",
        (1, 20),
        change="inactive",
    ),
)
