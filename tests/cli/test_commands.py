"""The list of commands, which is shown before any of them is imported."""

import pytest

from qwen3_vllm import __version__, cli


@pytest.mark.parametrize("name", cli.SUMMARIES)
def test_the_list_shows_the_first_sentence_of_a_command(name: str) -> None:
    first, _, _ = cli.load(name).help.partition("\n\n")

    assert cli.SUMMARIES[name] == " ".join(first.split())


def test_completion_reaches_the_options_of_a_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_QWEN3_VLLM_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "qwen3-vllm embed --text-f")
    monkeypatch.setenv("COMP_CWORD", "2")

    with pytest.raises(SystemExit):
        cli.app(prog_name="qwen3-vllm")

    assert capsys.readouterr().out.split() == ["--text-field"]


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.app(["--version"])

    assert (ended.value.code, capsys.readouterr().out) == (0, f"qwen3-vllm {__version__}\n")
