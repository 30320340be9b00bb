"""LangChain's MultiQueryRetriever, with the reranker outside it.

Serve:  qwen3-vllm serve both
Run:    python examples/multi_query.py                                       (no LLM: rewrites that are given)
        OPENAI_BASE_URL=http://127.0.0.1:8002/v1 OPENAI_API_KEY=EMPTY RAG_MODEL=Qwen/Qwen3-8B \
        python examples/multi_query.py                                       (any OpenAI-compatible LLM)
Prints: how many passages the rewrites found together, and the three best of them with P(yes).

MultiQueryRetriever drops passages that it has already, metadata and all. A reranker inside it would give one
passage another score for each rewrite, so it would stay as often as it is found. Outside, each passage is
ranked once, against the question that was asked.
"""

import json
import os
from pathlib import Path

from langchain_classic.retrievers.multi_query import MultiQueryRetriever
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore

from qwen3_vllm.langchain import Qwen3VLLMEmbeddings, Qwen3VLLMReranker, Qwen3VLLMRetriever

QUESTION = "How do I keep food from sticking to an iron skillet?"
REWRITES = ["How do I season a cast-iron pan?", "Why does food stick to an iron pan?", QUESTION]

lines = (Path(__file__).parents[1] / "demo" / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
store = InMemoryVectorStore(Qwen3VLLMEmbeddings())
store.add_documents([Document(row["text"], id=row["id"]) for row in map(json.loads, lines)])
candidates = store.as_retriever(search_kwargs={"k": 10})

if os.environ.get("RAG_MODEL"):
    from langchain_openai import ChatOpenAI  # pip install langchain-openai

    several = MultiQueryRetriever.from_llm(candidates, ChatOpenAI(model=os.environ["RAG_MODEL"]))
else:
    several = MultiQueryRetriever(retriever=candidates, llm_chain=RunnableLambda(lambda question: REWRITES))

print(f"{len(several.invoke(QUESTION))} passages found")
retriever = Qwen3VLLMRetriever(retriever=several, reranker=Qwen3VLLMReranker(), k=3)
for passage in retriever.invoke(QUESTION):
    print(f"{passage.metadata['relevance_score']:.4f}  {passage.page_content}")
