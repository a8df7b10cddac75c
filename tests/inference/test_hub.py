"""A model goes into a folder of the Hub's shape and comes back bit for bit."""

import hashlib
import json
import threading
from collections.abc import Generator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import yaml

import clue
from clue.inference import hub
from clue.run import checkpoint
from tests.conftest import TinyRun
from tests.forks import forks

KINDS = ("tiny_run", "tiny_items")


@pytest.fixture(params=KINDS)
def made(request: pytest.FixtureRequest) -> TinyRun:
    return request.getfixturevalue(request.param)


def vectors_of(encoder: clue.Encoder, corpus: clue.Corpus) -> np.ndarray:
    items = encoder.item_inputs(corpus)
    users = encoder.encode_histories(corpus, corpus.items_of(0), items=items)
    return np.concatenate([users, encoder.encode_catalogue(corpus, items=items)])


def test_the_round_trip_is_bitwise(made: TinyRun, tmp_path: Path) -> None:
    corpus, encoder = clue.Corpus.open(made.corpus), clue.load(made.run)
    expected = vectors_of(encoder, corpus)
    folder = encoder.save_pretrained(tmp_path / "model")
    again = clue.load(clue.load(folder).save_pretrained(tmp_path / "again"))
    for copy in (clue.load(folder), again):
        assert copy.fingerprint == encoder.fingerprint
        assert (copy.reads, copy.join, copy.width) == (encoder.reads, encoder.join, encoder.width)
        assert copy.services == encoder.services
        assert np.array_equal(vectors_of(copy, corpus), expected)
    fresh, same = clue.load(folder, seed=3), clue.load(made.run, seed=3)
    assert fresh.fingerprint == same.fingerprint
    assert np.array_equal(vectors_of(fresh, corpus), vectors_of(same, corpus))


def test_the_card_says_what_the_run_s_log_says(made: TinyRun, tmp_path: Path) -> None:
    folder = clue.load(made.run).save_pretrained(tmp_path / "model", license="mit")
    assert {path.name for path in folder.iterdir()} >= {"config.json", "model.safetensors"}
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    matter = yaml.safe_load(front)
    assert (matter["library_name"], matter["license"]) == ("clue", "mit")
    assert "clue" in matter["tags"]
    source = checkpoint.find(made.run)
    lines = [json.loads(line) for line in (made.run / "log.jsonl").read_text().splitlines()]
    (measured,) = [one for one in lines if one["kind"] == "valid" and one["step"] == source.step]
    task = next(key for key in measured if isinstance(measured[key], dict))
    logged = {
        (part, name): value for part, row in measured[task].items() for name, value in row.items()
    }
    (index,) = matter["model-index"]
    stated = {
        (result["dataset"]["config"], metric["type"]): metric["value"]
        for result in index["results"]
        for metric in result["metrics"]
    }
    assert stated == logged and len(stated) > 3
    for (_, name), value in logged.items():
        assert f"| {name} |" in text and f"{value:.4g}" in text


def test_no_path_of_the_owner_goes_out(made: TinyRun, tmp_path: Path) -> None:
    folder = clue.load(made.run).save_pretrained(tmp_path / "model")
    config = (folder / "config.json").read_text()
    assert str(made.run.parent) not in config and not (folder / "checkpoint.json").exists()


def test_what_would_be_another_model_is_refused(tiny_run: TinyRun, tmp_path: Path) -> None:
    encoder = clue.load(tiny_run.run)
    with pytest.raises(ValueError, match="fresh weights"):
        clue.load(tiny_run.run, seed=1).save_pretrained(tmp_path / "fresh")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="holds something else"):
        encoder.save_pretrained(tmp_path / "other")
    folder = encoder.save_pretrained(tmp_path / "model")
    assert encoder.save_pretrained(folder) == folder
    weights = folder / "model.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        clue.load(folder)
    record = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**record, "format": 99}))
    with pytest.raises(ValueError, match="format 99"):
        clue.load(folder)


class Hub(BaseHTTPRequestHandler):
    """The part of the Hub's protocol that a download needs, over a folder."""

    commit = "0" * 40

    def __init__(self, folder: Path, *arguments: object) -> None:
        self.folder = folder
        super().__init__(*arguments)  # pyright: ignore[reportArgumentType]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = self.path.split("?")[0]
        file = self.folder / path.rsplit("/", 1)[-1]
        if path.startswith("/api/models/org/model/tree/"):
            rows = [
                {"type": "file", "path": one.name, "size": one.stat().st_size, "oid": _oid(one)}
                for one in self.folder.iterdir()
            ]
            content = json.dumps(rows).encode()
        elif path.startswith("/api/models/org/model"):
            names = [{"rfilename": one.name} for one in self.folder.iterdir()]
            whole = {"id": "org/model", "sha": self.commit, "siblings": names}
            content = json.dumps(whole).encode()
        elif path.startswith("/org/model/resolve/") and file.is_file():
            content = file.read_bytes()
        else:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", self.commit)
        self.send_header("ETag", f'"{_oid(file) if file.is_file() else "list"}"')
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Keep silent."""


def _oid(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


@pytest.fixture
def server(tiny_run: TinyRun, tmp_path: Path) -> Generator[str]:
    folder = clue.load(tiny_run.run).save_pretrained(tmp_path / "served")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, folder)) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()
        thread.join()


def python(home: Path, *codes: tuple[str, str]) -> list[CompletedProcess[str]]:
    """Run each code with the endpoint behind it, one after the other."""
    lines: list[str] = []
    for code, endpoint in codes:
        # huggingface_hub reads them once, when it is imported
        env = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_TOKEN": "hf_none"}
        env["HF_HUB_DISABLE_XET"] = "1"
        lines.append(f"import os\nos.environ |= {env}\nimport clue\n{code}")
    return forks("import torch; torch.set_num_threads(1)", lines, cwd=home)


def test_a_model_comes_from_the_hub(tiny_run: TinyRun, server: str, tmp_path: Path) -> None:
    done, offline = python(
        tmp_path,
        ('print(clue.load("org/model").fingerprint)', server),
        # and once downloaded, without a network
        ('print(clue.load("org/model").width)', "http://127.0.0.1:1"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == checkpoint.find(tiny_run.run).fingerprint
    assert offline.stdout.strip() == str(clue.load(tiny_run.run).width), offline.stderr


def test_without_a_network_one_line_says_so(tiny_run: TinyRun, tmp_path: Path) -> None:
    code = (
        "try:\n    {}\nexcept OSError as error:\n    print(type(error).__name__, error)\n"
        "else:\n    print('nothing was raised')\n"
    )
    push = f'clue.load({str(tiny_run.run)!r}).push_to_hub("org/model")'
    both = code.format('clue.load("org/model")') + code.format(push)
    (done,) = python(tmp_path, (both, "http://127.0.0.1:1"))
    loaded, pushed = done.stdout.splitlines()
    assert loaded.startswith("FileNotFoundError no model 'org/model'"), done.stderr
    assert pushed.startswith("OSError the Hugging Face Hub did not take"), done.stderr
    assert "hf auth login" in pushed


def test_a_mistyped_path_is_no_name(tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> Path:
        raise AssertionError(name)

    monkeypatch.setattr("clue.inference.source.download", refuse)
    monkeypatch.chdir(tiny_run.run.parent.parent)
    with pytest.raises(FileNotFoundError, match="no checkpoint in"):
        clue.load(f"{tiny_run.run.parent.name}/dmeo")
    with pytest.raises(FileNotFoundError, match="no checkpoint in"):
        clue.load(Path("org/model"))
    with pytest.raises(ValueError, match="OWNER/MODEL"):
        hub.upload(checkpoint.find(tiny_run.run), "model", private=True, license="mit")
