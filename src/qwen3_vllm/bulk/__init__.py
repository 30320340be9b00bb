"""Files in, vectors out: embed any number of documents with bounded memory, and resume after any end.

Read in this order: `pipeline` (documents to vectors, several requests ahead), `_core/text_files`, `scan` and
`rows` (what the inputs hold), `folder`, `tables` and `manifest` (what lies on disk), `run` (puts them
together), `ray_engine`, and `output` (what was written, read back).
"""

try:
    import pyarrow  # noqa: F401  # not used here: it says early, and how, what is missing
except ImportError as error:
    raise ImportError("bulk embedding needs pyarrow: pip install 'qwen3-vllm[bulk]'") from error

from qwen3_vllm.bulk.pipeline import embed_stream
from qwen3_vllm.bulk.progress import Progress, Summary
from qwen3_vllm.bulk.run import embed_files

__all__ = ["Progress", "Summary", "embed_files", "embed_stream"]
