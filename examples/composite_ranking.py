"""Rank by relevance mixed with freshness and clicks.

Serve:  qwen3-vllm serve reranker
Run:    python examples/composite_ranking.py
Prints: the articles by relevance alone, then by the mix; each with P(yes), age and click rate.
"""

from langchain_core.documents import Document

from qwen3_vllm.langchain import Qwen3VLLMReranker

QUESTION = "How do I reset my router?"
HALF_LIFE_DAYS = 180
SHOWN = ("relevance_score", "age_days", "click_rate")
ARTICLES = [
    ("Hold the reset button for ten seconds until the light blinks.", 900, 0.05),
    ("Since firmware 7 the app resets the router: Settings, System, Reset.", 20, 0.60),
    ("A reset erases your Wi-Fi name and password; write them down first.", 60, 0.20),
    ("Our offices are closed on public holidays.", 1, 0.45),
]
documents = [Document(text, metadata={"age_days": age, "click_rate": rate}) for text, age, rate in ARTICLES]


def mix(relevance_score: float, document: Document) -> float:
    """Weigh relevance most: what is fresh and popular but beside the point must not win."""
    freshness = 0.5 ** (document.metadata["age_days"] / HALF_LIFE_DAYS)
    return relevance_score * (0.5 + 0.3 * freshness + 0.2 * document.metadata["click_rate"])


for title, reranker in {
    "By relevance": Qwen3VLLMReranker(top_n=None),
    "By the mix": Qwen3VLLMReranker(top_n=None, combine=mix),
}.items():
    print(title)
    for document in reranker.compress_documents(documents, QUESTION):
        relevance, age, rate = (document.metadata[name] for name in SHOWN)
        print(f"  {relevance:.4f}  {age:4d} days  {rate:.2f}  {document.page_content}")
