"""What search and reranking give on a user's own data, and which set-up to take.

Read in this order: `run` (the calls), `data` (in), `set_ups` (what is compared), `work` (what servers do, by
`search`), `measuring` (by `measures`), `results` (data out), `report` (data to look at).
"""

try:
    import ir_measures  # noqa: F401  # not used here: it says early, and how, what is missing
    import pyarrow  # noqa: F401
except ImportError as error:
    raise ImportError(f"evaluation needs {error.name}: pip install 'qwen3-vllm[evaluation]'") from error

from qwen3_vllm.evaluation.data.dataset import Dataset
from qwen3_vllm.evaluation.data.reading import read_dataset
from qwen3_vllm.evaluation.measures.metrics import DEFAULT_METRICS
from qwen3_vllm.evaluation.measures.statistics import Estimate
from qwen3_vllm.evaluation.measures.thresholds import Threshold
from qwen3_vllm.evaluation.measures.verdict import Verdict
from qwen3_vllm.evaluation.results import Comparison, Evaluation, Measured
from qwen3_vllm.evaluation.run import evaluate, write_labelling_sheet
from qwen3_vllm.evaluation.set_ups import SetUp
from qwen3_vllm.evaluation.work import Progress

__all__ = [
    "DEFAULT_METRICS",
    "Comparison",
    "Dataset",
    "Estimate",
    "Evaluation",
    "Measured",
    "Progress",
    "SetUp",
    "Threshold",
    "Verdict",
    "evaluate",
    "read_dataset",
    "write_labelling_sheet",
]
