"""How fast and in how much memory a checkpoint loads, and how long a picture takes to prepare.

    tools/run python benchmarks/loading.py [--quick] [--check] [--json FILE]

Makes a sharded float32 checkpoint of 1 GB (random weights, layout of Molmo-7B-D) in a temporary folder. Loading
is compared, in one run and with a warm page cache, with reading every byte of the same files by safetensors;
both sides sum everything afterwards. Memory is measured in processes of their own: the highest RssAnon + RssFile
over what the imports take.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch
from figures import Figure, parser, report
from PIL import Image
from safetensors import safe_open

from molmo_ros.molmo import MolmoConfig, MolmoForConditionalGeneration, MolmoImageProcessor
from molmo_ros.molmo.image_processing import ImageMarks

LOADING_GOAL, MEMORY_GOAL, PICTURE_GOAL_MS = 1.5, 1.15, 60.0
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def write_checkpoint(folder: Path, megabytes: int) -> None:
    """Random weights of about this size in several shards."""
    layers = max(1, round(megabytes / 63))
    config = MolmoConfig(
        vocab_size=8000, embedding_size=8000, hidden_size=1024, intermediate_size=8192, num_hidden_layers=layers,
        num_attention_heads=16, num_key_value_heads=4,
        vision_backbone={
            "image_default_input_size": [336, 336], "image_emb_dim": 256, "image_mlp_dim": 1024,
            "image_num_layers": 4, "image_num_heads": 4, "image_head_dim": 64,
        },
        vit_layers=[-2, -3],
    )  # fmt: skip
    MolmoForConditionalGeneration(config).save_pretrained(folder, max_shard_size=f"{megabytes // 5}MB")


def read_all(folder: Path) -> float:
    """Seconds to read and sum every tensor of the files."""
    started = time.perf_counter()
    total = 0.0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            total += sum(file.get_tensor(name).sum().item() for name in file.keys())  # noqa: SIM118
    return time.perf_counter() - started


def load_all(folder: Path) -> float:
    """Seconds to load the model and sum every parameter."""
    started = time.perf_counter()
    model = MolmoForConditionalGeneration.from_pretrained(folder)
    sum(parameter.sum().item() for parameter in model.parameters())
    return time.perf_counter() - started


class Watermark:
    """The highest RssAnon + RssFile of this process while the context is open, in bytes."""

    def __enter__(self) -> Watermark:
        self.highest, self._open = self.now(), True
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._open = False
        self._thread.join()

    def _watch(self) -> None:
        while self._open:
            self.highest = max(self.highest, self.now())
            time.sleep(0.002)

    @staticmethod
    def now() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return sum(int(x.split()[1]) * 1024 for x in lines if x.startswith(("RssAnon", "RssFile")))


def memory_of_loading(folder: Path, dtype: str) -> float:
    """Highest memory over the import baseline, in bytes; to be run in a fresh process."""
    baseline = Watermark.now()
    with Watermark() as watermark:
        model = MolmoForConditionalGeneration.from_pretrained(folder, dtype=DTYPES[dtype])
        sum(parameter.sum().item() for parameter in model.parameters())
    return float(watermark.highest - baseline)


def memory_in_a_fresh_process(folder: Path, dtype: str) -> float:
    command = [sys.executable, __file__, "--memory-of", str(folder), "--as", dtype]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def picture_ms(repeats: int) -> float:
    """Median milliseconds to prepare a picture of 1280 x 720 at the released settings on one core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    processor, marks = MolmoImageProcessor(), ImageMarks(1, 2, 3, 4)
    picture, times = Image.effect_noise((1280, 720), 50).convert("RGB"), []
    for _ in range(repeats):
        started = time.perf_counter()
        processor.process(picture, marks)
        times.append(1000 * (time.perf_counter() - started))
    torch.set_num_threads(threads)
    return sorted(times)[len(times) // 2]


def measure(megabytes: int, repeats: int) -> list[Figure]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_checkpoint(folder, megabytes)
        stored = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        os.sync()  # else the disk is still being written while both sides are timed
        read_all(folder), load_all(folder)  # both warm
        # In turns, so that a machine which slows down for a while does so for both.
        rounds = [(read_all(folder), load_all(folder)) for _ in range(4 * repeats)]
        read_s, load_s = (min(side) for side in zip(*rounds, strict=True))
        figures = [Figure(f"loading / reading {stored / 1e9:.2f} GB", load_s / read_s, "x", LOADING_GOAL)]
        for dtype in DTYPES:
            held = memory_in_a_fresh_process(folder, dtype)
            figures.append(
                Figure(f"memory of loading as {dtype} / weights on disk", held / stored, "x", MEMORY_GOAL)
            )
    figures.append(
        Figure("preparing a picture of 1280 x 720", picture_ms(5 * repeats), "ms", PICTURE_GOAL_MS)
    )
    return figures


def main() -> int:
    options = parser(__doc__, "200 MB instead of 1 GB")
    options.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    options.add_argument("--as", dest="dtype", choices=DTYPES, help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.memory_of:
        sys.stdout.write(f"{memory_of_loading(arguments.memory_of, arguments.dtype)}\n")
        return 0
    figures = measure(*((200, 3) if arguments.quick else (1000, 3)))
    return report(figures, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
