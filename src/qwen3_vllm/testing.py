"""A standard test class for LangChain rerankers; langchain-tests has no such class.

Subclass `RerankerTests` in a test module, say how to make the reranker, and run pytest:

    class TestMyReranker(RerankerTests):
        @property
        def reranker_constructor(self):
            return MyReranker
"""

import copy
import pickle
from abc import abstractmethod
from typing import Any

import pytest
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_tests.base import BaseStandardTests


class RerankerTests(BaseStandardTests):
    """What users of a document compressor that ranks may count on."""

    @property
    @abstractmethod
    def reranker_constructor(self) -> type[BaseDocumentCompressor]:
        """The class to test."""

    @property
    def reranker_constructor_params(self) -> dict[str, Any]:
        """What to make it with; without the number of results."""
        return {}

    @property
    def num_results_arg_name(self) -> str:
        """Option for how many documents to keep."""
        return "top_n"

    @property
    def score_key(self) -> str:
        """Key in a document's metadata that holds the score."""
        return "relevance_score"

    @property
    def secrets(self) -> dict[str, str]:
        """Options that hold a secret, with a value to look for. None by default."""
        return {}

    @property
    def query_example(self) -> str:
        """A query that `documents_example` answers."""
        return "What is the capital of China?"

    @property
    def documents_example(self) -> list[Document]:
        """At least three different documents, with metadata and ids."""
        texts = ("Bananas are yellow.", "The capital of China is Beijing.", "Gravity attracts two bodies.")
        return [
            Document(page_content=text, metadata={"source": {"page": page}}, id=f"id-{page}")
            for page, text in enumerate(texts)
        ]

    def make(self, **options: Any) -> BaseDocumentCompressor:
        """Make the reranker; `options` go over `reranker_constructor_params`."""
        return self.reranker_constructor(**{**self.reranker_constructor_params, **options})

    @pytest.fixture
    def reranker(self) -> BaseDocumentCompressor:
        """A reranker that keeps all of `documents_example`."""
        return self.make(**{self.num_results_arg_name: len(self.documents_example)})

    def test_no_overrides_DO_NOT_OVERRIDE(self) -> None:  # langchain-tests' name
        """What cannot pass is overridden with `@pytest.mark.xfail(reason="...")`, not left out in silence."""
        dropped = []
        for name in (name for name in dir(RerankerTests) if name.startswith("test_")):
            test = getattr(type(self), name)
            marks = getattr(test, "pytestmark", [])
            excused = any(mark.name == "xfail" and mark.kwargs.get("reason") for mark in marks)
            if test is not getattr(RerankerTests, name) and not excused:
                dropped.append(name)
        assert not dropped, f"overridden without a reason: {dropped}"

    def test_no_documents(self, reranker: BaseDocumentCompressor) -> None:
        """No documents give an empty result, without an error."""
        assert list(reranker.compress_documents([], self.query_example)) == []

    async def test_no_documents_async(self, reranker: BaseDocumentCompressor) -> None:
        """Nor in async code."""
        assert list(await reranker.acompress_documents([], self.query_example)) == []

    def test_scores_descend(self, reranker: BaseDocumentCompressor) -> None:
        """Each document carries its score, a plain number, and the best comes first."""
        ranked = reranker.compress_documents(self.documents_example, self.query_example)
        scores = [document.metadata[self.score_key] for document in ranked]
        assert all(type(score) is float for score in scores), f"not plain floats: {scores!r}"
        assert scores == sorted(scores, reverse=True)

    def test_nothing_lost_nothing_made_up(self, reranker: BaseDocumentCompressor) -> None:
        """The documents are those given: text, metadata and id, the score added."""
        ranked = reranker.compress_documents(self.documents_example, self.query_example)
        given = {document.page_content: document for document in self.documents_example}
        assert sorted(document.page_content for document in ranked) == sorted(given)
        for document in ranked:
            original = given[document.page_content]
            assert document.id == original.id, f"id {original.id!r} became {document.id!r}"
            assert document.metadata.items() >= original.metadata.items()

    def test_order_of_input_plays_no_part(self, reranker: BaseDocumentCompressor) -> None:
        """The same documents in another order get the same ranking."""
        documents = self.documents_example
        forth = reranker.compress_documents(documents, self.query_example)
        back = reranker.compress_documents(documents[::-1], self.query_example)
        assert [d.page_content for d in forth] == [d.page_content for d in back]

    def test_documents_given_stay_as_they_are(self, reranker: BaseDocumentCompressor) -> None:
        """Neither documents nor their list change, and what comes back can be changed without harm."""
        documents = self.documents_example
        before = copy.deepcopy(documents)
        ranked = reranker.compress_documents(documents, self.query_example)
        for document in ranked:
            document.metadata["added later"] = True
        assert documents == before

    def test_a_second_time(self, reranker: BaseDocumentCompressor) -> None:
        """Reranking what was reranked before works, with the same result."""
        once = reranker.compress_documents(self.documents_example, self.query_example)
        twice = reranker.compress_documents(list(once), self.query_example)
        assert [d.page_content for d in once] == [d.page_content for d in twice]

    @pytest.mark.parametrize("count", [1, 2])
    def test_number_of_results(self, count: int) -> None:
        """The option for the number of results keeps the best so many."""
        every = self.make(**{self.num_results_arg_name: len(self.documents_example)})
        few = self.make(**{self.num_results_arg_name: count})
        best = every.compress_documents(self.documents_example, self.query_example)[:count]
        kept = few.compress_documents(self.documents_example, self.query_example)
        assert [d.page_content for d in kept] == [d.page_content for d in best]

    def test_more_results_than_documents(self) -> None:
        """Asking for more documents than there are returns all."""
        reranker = self.make(**{self.num_results_arg_name: 100})
        ranked = reranker.compress_documents(self.documents_example, self.query_example)
        assert len(ranked) == len(self.documents_example)

    def test_equal_documents_all_stay(self, reranker: BaseDocumentCompressor) -> None:
        """Documents of one text are not merged: their metadata may differ."""
        twins = [Document(page_content="The same.", metadata={"n": n}) for n in range(3)]
        ranked = reranker.compress_documents(twins, self.query_example)
        assert sorted(document.metadata["n"] for document in ranked) == [0, 1, 2]

    def test_many_documents(self) -> None:
        """A hundred documents, more than some services take at once, are one ranking."""
        documents = [Document(page_content=f"Beijing has {n} districts.") for n in range(100)]
        reranker = self.make(**{self.num_results_arg_name: len(documents)})
        ranked = reranker.compress_documents(documents, self.query_example)
        scores = [document.metadata[self.score_key] for document in ranked]
        assert {d.page_content for d in ranked} == {d.page_content for d in documents}
        assert scores == sorted(scores, reverse=True)

    def test_empty_text(self, reranker: BaseDocumentCompressor) -> None:
        """A document without text is ranked like any other."""
        documents = [Document(page_content=""), *self.documents_example[:2]]
        assert len(reranker.compress_documents(documents, self.query_example)) == 3

    async def test_async_gives_the_same(self, reranker: BaseDocumentCompressor) -> None:
        """`acompress_documents` returns what `compress_documents` returns, with the same scores."""
        now = reranker.compress_documents(self.documents_example, self.query_example)
        later = await reranker.acompress_documents(self.documents_example, self.query_example)
        assert [d.page_content for d in now] == [d.page_content for d in later]
        scores = [d.metadata[self.score_key] for d in now]
        assert [d.metadata[self.score_key] for d in later] == pytest.approx(scores, abs=1e-3)

    def test_pickle_round_trip(self, reranker: BaseDocumentCompressor) -> None:
        """It can be sent to another process."""
        copied = pickle.loads(pickle.dumps(reranker))
        ranked = copied.compress_documents(self.documents_example, self.query_example)
        assert len(ranked) == len(self.documents_example)

    def test_unknown_options_are_refused(self) -> None:
        """A misspelt option is an error, not a default in silence."""
        with pytest.raises((TypeError, ValueError)):
            self.make(no_such_option_exists=1)

    def test_secrets_stay_hidden(self) -> None:
        """No secret in repr, str or dump, which end up in logs."""
        reranker = self.make(**self.secrets)
        self._check_hidden(f"{reranker!r} {reranker} {reranker.model_dump()!r}")

    def test_pickles_hold_no_secret(self) -> None:
        """No secret in a pickle, which ends up on disks and other hosts."""
        reranker = self.make(**self.secrets)
        try:
            pickled = pickle.dumps(reranker)
        except (TypeError, AttributeError, pickle.PicklingError) as error:
            pytest.skip(f"it cannot be pickled: {error}")
        self._check_hidden(repr(pickled))

    def _check_hidden(self, shown: str) -> None:
        leaked = [name for name, value in self.secrets.items() if value in shown]
        assert not leaked, f"shown: {leaked}"
