"""What the issue form for checkpoints tells one to run lists what its answer needs."""

import json
import os
from pathlib import Path

import pytest
from docs_commands import FORMS, REPOSITORY, blocks, text_of

torch = pytest.importorskip("torch")

(FORM,) = (path for path in FORMS if path.name == "checkpoint.yml")
OF_PYTORCH, OF_OPENAI = blocks(text_of(FORM), "python")


def listed(block: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    exec(compile(block, str(FORM), "exec"), {})
    return capsys.readouterr().out.splitlines()


def test_keys_in_dictionaries_and_lists_are_listed_with_shapes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    weights = {"conv.weight": torch.zeros(4, 3, 1, 1), "step": torch.tensor(7)}
    state = {"state": {0: {"exp_avg": torch.zeros(4)}}, "param_groups": [{"lr": 1e-3}]}
    torch.save({"graph": {"module": weights}, "optimizer": state, "epoch": 3}, "glow.pt")
    assert listed(OF_PYTORCH, capsys) == [
        "file['graph']['module']['conv.weight'] Tensor (4, 3, 1, 1) torch.float32",
        "file['graph']['module']['step'] Tensor () torch.int64",
        "file['optimizer']['state'][0]['exp_avg'] Tensor (4,) torch.float32",
        "file['optimizer']['param_groups'][0]['lr'] float",
        "file['epoch'] int",
    ]


def test_code_in_a_file_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hostile:
        def __reduce__(self) -> tuple:
            return os.mkdir, ("run",)

    monkeypatch.chdir(tmp_path)
    torch.save({"graph": Hostile()}, "glow.pt")
    with pytest.raises(Exception, match="Weights only load failed"):
        exec(compile(OF_PYTORCH, str(FORM), "exec"), {})
    assert not (tmp_path / "run").exists()


def test_variables_of_openai_s_file_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = REPOSITORY / "tests" / "data" / "openai" / "a_1x1_affine_8bit_L3"
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "abl-1x1-aff.tar").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    shapes = json.loads((folder / "variables.json").read_text())["model"]
    lines = listed(OF_OPENAI, capsys)
    assert {f"{name} {tuple(shape)} float32" for name, shape in shapes.items()} <= set(lines)
