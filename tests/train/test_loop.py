"""The training loop: resuming, logging, states on disk, micro-batches, averaged weights."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from shared.training import OPTIMISER, killed_at, same_state, toy_job
from torch import Tensor, nn

from faithdiff.errors import RunError
from faithdiff.train import loop
from faithdiff.train.engine import Trained
from faithdiff.train.loop import train


@pytest.mark.parametrize("kill", [1, 3, 5, 8])
def test_resumed_training_equals_uninterrupted_bit_for_bit(tmp_path: Path, kill: int) -> None:
    whole = toy_job()
    averaged = train(whole)
    state = tmp_path / "state" / "toy.pt"
    with pytest.raises(KeyboardInterrupt):
        train(killed_at(toy_job(state), kill))
    assert state.is_file() == (kill >= 3)
    resumed, steps = toy_job(state), []
    plain = resumed.loss
    resumed.loss = lambda step, micro: (steps.append(step), plain(step, micro))[1]
    again = train(resumed)
    assert steps[0] == kill // 3 * 3
    assert same_state(resumed.model, whole.model) and same_state(again, averaged)
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in resumed.log]
    assert rows == [{k: v for k, v in row.items() if k != "seconds"} for row in whole.log]
    assert [row["step"] for row in rows] == [1, 3, 5, 7, 8]


def test_log_holds_the_mean_loss_since_the_row_before() -> None:
    every, second = toy_job(log_every=1), toy_job()
    train(every)
    train(second)
    single = [row["loss"] for row in every.log]
    means = [sum(single[i : i + 2]) / len(single[i : i + 2]) for i in range(0, 9, 2)]
    assert [row["loss"] for row in second.log] == pytest.approx(means, rel=1e-12)


@pytest.mark.parametrize("corruption", ["identity", "cut", "empty"])
def test_a_state_that_does_not_fit_starts_afresh(
    tmp_path: Path, corruption: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, state = toy_job(), tmp_path / "toy.pt"
    train(whole)
    with pytest.raises(KeyboardInterrupt):
        train(killed_at(toy_job(state, identity="other"), 5))
    if corruption != "identity":
        data = state.read_bytes()
        state.write_bytes(data[: len(data) // 2] if corruption == "cut" else b"")
    afresh = toy_job(state)
    train(afresh)
    assert same_state(afresh.model, whole.model)
    assert "starting afresh" in capsys.readouterr().out


def test_a_loss_that_is_not_finite_names_the_update_and_the_state(tmp_path: Path) -> None:
    state = tmp_path / "toy.pt"
    job = toy_job(state)
    plain = job.loss
    job.loss = lambda step, micro: plain(step, micro) * (math.nan if step == 4 else 1)
    before = copy.deepcopy(job.model)
    with pytest.raises(RunError, match=rf"toy: the loss is nan at update 4; .*{state}") as caught:
        train(job)
    assert "learning rate" in str(caught.value)
    assert state.is_file() and not same_state(before, job.model)
    assert all(p.isfinite().all() for p in job.model.parameters())
    # Mended, it goes on from the kept state and ends where an undisturbed run ends.
    mended, whole = toy_job(state), toy_job()
    train(mended)
    train(whole)
    assert same_state(mended.model, whole.model)


def test_divergence_before_the_first_state_claims_none(tmp_path: Path) -> None:
    job = toy_job(tmp_path / "toy.pt", loss=lambda *_: torch.tensor(math.inf, requires_grad=True))
    with pytest.raises(RunError, match="the loss is inf at update 0") as caught:
        train(job)
    assert "kept" not in str(caught.value)


def test_a_state_that_cannot_be_written_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object, file: Path) -> None:
        file.write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file: No space left on device")

    monkeypatch.setattr(loop.torch, "save", full)
    with pytest.raises(RunError, match=r"toy\.pt: the training state cannot be written"):
        train(toy_job(tmp_path / "toy.pt"))
    assert [file.name for file in tmp_path.iterdir()] == ["toy.csv"]  # its log


def test_micro_batches_add_up_to_the_whole_batch() -> None:
    inputs = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))

    def result(micro_batches: int) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = nn.Linear(3, 1)
        parts = inputs.chunk(micro_batches)
        job = toy_job(model=model, groups=[Trained.whole(model, 0.01)])
        job.micro_batches, job.steps = micro_batches, 4
        job.loss = lambda _, micro: (model(parts[micro]) - 1).square().mean()
        train(job)
        return model

    whole, split = result(1), result(4)
    for one, other in zip(whole.parameters(), split.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_averaged_weights_follow_their_recursion() -> None:
    job = toy_job(optimiser=OPTIMISER.model_copy(update={"warmup": 0}))
    seen: list[Tensor] = []
    plain = job.loss

    def loss(step: int, micro: int) -> Tensor:
        if micro == 0 and step > 0:
            seen.append(job.model[0].weight.detach().clone())
        return plain(step, micro)

    job.loss = loss
    averaged = train(job)
    seen.append(job.model[0].weight.detach().clone())
    expected = seen[0]
    for weight in seen[1:]:
        expected = 0.9 * expected + 0.1 * weight
    assert averaged is not None and len(seen) == job.steps
    assert torch.allclose(averaged[0].weight, expected, atol=1e-6)
    assert train(toy_job(ema_decay=None)) is None
