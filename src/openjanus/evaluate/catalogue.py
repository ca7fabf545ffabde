"""The benchmarks there are, by name: the one table."""

from openjanus.errors import ConfigError
from openjanus.evaluate.benchmark import Benchmark, Settings
from openjanus.evaluate.generation.dpg import DPG
from openjanus.evaluate.generation.fid_sets import COCO30K, MJHQ30K
from openjanus.evaluate.generation.geneval import GenEval
from openjanus.evaluate.shapes import Shapes
from openjanus.evaluate.understanding.gqa import GQA
from openjanus.evaluate.understanding.mmbench import MMBench
from openjanus.evaluate.understanding.mme import MME
from openjanus.evaluate.understanding.mmmu import MMMU
from openjanus.evaluate.understanding.mmvet import MMVet
from openjanus.evaluate.understanding.pope import POPE
from openjanus.evaluate.understanding.seed import SEED
from openjanus.evaluate.understanding.vqa import ChartQA, TextVQA, VQAv2

BENCHMARKS: dict[str, type[Benchmark]] = {
    one.name: one
    for one in (Shapes, POPE, MME, MMBench, SEED, GQA, MMMU, MMVet, VQAv2, TextVQA, ChartQA, GenEval, DPG, COCO30K, MJHQ30K)
}


def benchmark_of(name: str, settings: Settings) -> Benchmark:
    """The benchmark of a name; ConfigError lists those there are."""
    if name not in BENCHMARKS:
        raise ConfigError(f"there is no benchmark {name!r}; there is {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name](settings)
