"""The steps of the demo, with commands that answer from a script: what is run, what is told, what is refused."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from persona_cli.demo import steps
from persona_cli.demo.learned import page
from persona_cli.errors import CannotWrite, MissingInput, Refused
from persona_cli.workspace import home as homes

PROFILE = {
    "events": 41,
    "sessions": 7,
    "stage": "individual",
    "categories": [{"category": "hiring"}, {"category": "sales"}],
    "top_items": [{"title": "Interview guides explained", "item_id": "article-001"}],
}
INTERVAL = {"value": 0.2, "low": 0.1, "high": 0.3}
EVALUATED = {
    "k": [10, 20],
    "users": 1000,
    "models": [
        {"model": "popular", "metrics": {"ndcg@10": INTERVAL | {"value": 0.1}}, "lift": {"ndcg@10": None}},
        {
            "model": "layered",
            "base": "ease",
            "metrics": {"ndcg@10": INTERVAL},
            "lift": {"ndcg@10": INTERVAL},
            "chosen": ["individual"],
            "chosen_with_later_data": True,
        },
    ],
}
ANSWERS: dict[str, Any] = {
    "ingest": {"accepted": 99, "read": 100, "rejected": 1, "duplicates": 0, "users": 20, "seconds": 0.1},
    "train": {
        "models": [
            {"model": "popular", "seconds": 0.1, "validation": {"metric": "ndcg@20", "value": 0.1}},
            {"model": "knn", "seconds": 0.2, "validation": {"metric": "ndcg@20", "value": 0.2}},
            {"model": "ease", "seconds": 0.3, "validation": None},
        ],
        "latest": "layered/1",
    },
    "evaluate": EVALUATED,
    "profile": PROFILE,
}


class Script:
    """Stands for the command line: notes the words and answers what a command would print."""

    def __init__(self) -> None:
        self.ran: list[list[str]] = []

    def __call__(self, words: Sequence[str]) -> Any:
        self.ran.append(list(words))
        if words[0] == "recommend":
            lines = [
                {"user_id": "u0001", "stage": "individual", "items": [{"item_id": "article-001"}]},
                {"user_id": "u0002", "stage": "individual", "holdout": True, "items": [{"item_id": "article-002"}]},
            ]
            Path(words[words.index("--out") + 1]).write_text("".join(json.dumps(line) + "\n" for line in lines))
        if words[0] == "sql":
            return [{"events": 99, "users": 20}] if "FROM events" in words[1] else [{"reason": "not UTF-8", "lines": 1}]
        return ANSWERS.get(words[0])


def run(folder: Path) -> tuple[dict[str, Any], list[list[str]], list[str]]:
    script, told = Script(), []
    found = steps.demo(folder, script, told.append)
    return found, script.ran, told


def test_the_steps_are_the_main_job_and_each_is_shown_as_it_is_run(tmp_path: Path) -> None:
    folder = tmp_path / "a demo"
    found, ran, told = run(folder)
    verbs = ["init", "ingest", "ingest", "ingest", "ingest", "train", "evaluate", "recommend", "profile", "sql", "sql"]
    assert [words[0] for words in ran] == verbs
    assert all(words[words.index("-w") + 1] == str(folder) for words in ran[1:])
    shown = [shlex.split(line.removeprefix("$ persona ")) for line in told if line.startswith("$")]
    for words, typed in zip(ran[:9], shown, strict=True):
        if words[0] == "recommend":
            assert typed == ["recommend", "-w", str(folder), ">", str(tmp_path / "a demo-recommendations.jsonl")]
        else:
            assert typed == [word for word in words if word != "--json"]
    kinds = [words[words.index("--kind") + 1] if "--kind" in words else "events" for words in ran[1:5]]
    assert kinds == ["items", "users", "accounts", "events"]
    assert (found["events"], found["lists"], found["rejected"]) == (99, 2, {"not UTF-8": 1})


def test_what_is_told_has_the_numbers(tmp_path: Path) -> None:
    found, _, told = run(tmp_path / "demo")
    text = "\n".join(told)
    assert "99 of 100 lines taken, 1 rejected, 20 users; 0.1 s" in text
    assert "NDCG@20 on a validation cut: knn 0.200, popular 0.100; serving layered/1" in text
    assert "NDCG@10 0.200 against 0.100 of the popular list: +20 % (95 %: +10 % to +30 %), 1,000 users" in text
    assert "41 events in 7 sessions, stage individual, likes hiring and sales" in text
    learned = "\n".join(page(found))
    assert "99 events of 20 users" in learned
    assert "1 lines rejected: 1 × not UTF-8" in learned
    assert "layered/1 around ease: NDCG@10 0.200, +20 % (95 %: +10 % to +30 %) over popular" in learned
    assert "chosen on the same months: individual model" in learned
    assert found["example"]["user_id"] == "u0001"
    assert len(found["next"]) == 3 and all(command in learned for command in found["next"])


def test_sample_data_below_the_present_folder_is_named_from_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(steps.sample_data().parent)
    assert run(tmp_path / "demo")[1][1][1] == str(Path("sample_data", "items.jsonl"))
    monkeypatch.chdir(tmp_path)
    assert run(tmp_path / "demo")[1][1][1] == str(steps.sample_data() / "items.jsonl")


def test_a_demo_can_be_run_again(tmp_path: Path) -> None:
    run(tmp_path / "demo")
    assert len(run(tmp_path / "demo")[1]) == 11
    (tmp_path / "empty").mkdir()
    run(tmp_path / "empty")


def test_a_folder_with_something_else_in_it_is_refused(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "letter.txt").write_text("x")
    mine = homes.create(tmp_path / "mine").root
    script = Script()
    for folder, words in ((full, "not empty"), (mine, "a workspace of yours")):
        before = sorted(path.name for path in folder.iterdir())
        with pytest.raises(Refused, match=words):
            steps.demo(folder, script, lambda line: None)
        assert sorted(path.name for path in folder.iterdir()) == before
    with pytest.raises(CannotWrite, match="is a file"):
        steps.demo(full / "letter.txt", script, lambda line: None)
    assert script.ran == []


def test_without_sample_data_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "__file__", str(tmp_path / "persona_cli" / "demo" / "steps.py"))
    with pytest.raises(MissingInput, match="not installed"):
        run(tmp_path / "demo")
    assert not (tmp_path / "demo").exists()
    packaged = tmp_path / "persona_cli" / "sample_data"
    packaged.mkdir(parents=True)
    (packaged / "events.jsonl.gz").write_bytes(b"")
    assert steps.sample_data() == packaged
