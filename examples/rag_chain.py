"""A LangChain RAG chain: retrieve, rerank, answer from what was found.

Serve:  qwen3-vllm serve both
Run:    python examples/rag_chain.py                                          (no LLM: shows its prompt)
        OPENAI_BASE_URL=http://127.0.0.1:8002/v1 OPENAI_API_KEY=EMPTY RAG_MODEL=Qwen/Qwen3-8B \
        python examples/rag_chain.py                                          (any OpenAI-compatible LLM)
Prints: the answer, or the prompt that an LLM would have got.
"""

import json
import os
from pathlib import Path

from langchain_core.documents import Document
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore

from qwen3_vllm.langchain import Qwen3VLLMEmbeddings, Qwen3VLLMReranker, Qwen3VLLMRetriever

lines = (Path(__file__).parents[1] / "demo" / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
store = InMemoryVectorStore(Qwen3VLLMEmbeddings())
store.add_documents([Document(row["text"], metadata={"id": row["id"]}) for row in map(json.loads, lines)])
retriever = Qwen3VLLMRetriever(
    retriever=store.as_retriever(search_kwargs={"k": 20}), reranker=Qwen3VLLMReranker(), k=3
)

prompt = ChatPromptTemplate.from_template(
    "Answer from these passages and cite their ids, or say that none answers.\n\n{passages}\n\n{question}"
)
llm = RunnableLambda(lambda value: value.to_string())
if os.environ.get("RAG_MODEL"):
    from langchain_openai import ChatOpenAI  # pip install langchain-openai

    llm = ChatOpenAI(model=os.environ["RAG_MODEL"])
quote = RunnableLambda(lambda found: "\n".join(f"[{p.metadata['id']}] {p.page_content}" for p in found))
chain = {"passages": retriever | quote, "question": RunnablePassthrough()} | prompt | llm | StrOutputParser()
print(chain.invoke("为什么我们看不到月亮的背面？"))
