"""The comparison of optimizers, as small as it goes."""

import json

import pytest

from experiments import kfac_digits


@pytest.mark.long
def test_smoke(tmp_path, capsys):
    config = kfac_digits.Config(smoke=True, out=tmp_path)
    assert kfac_digits.run_experiment(config) == 0
    results = json.loads((tmp_path / "kfac_digits.json").read_text(encoding="utf-8"))
    methods = results["methods"]
    assert list(methods) == ["SGD with momentum", "Adam", "K-FAC", "EKFAC"]
    assert results["config"]["rates"] == [0.01, 0.1]
    for one in methods.values():
        assert one["reached"] == one["runs"] == 1
        assert one["steps"] == one["every_steps"][0] <= 60
        assert one["losses"][-1] <= 0.5 < one["losses"][0] or len(one["losses"]) == 1
        assert one["seconds"] > 0
    assert methods["K-FAC"]["steps"] <= methods["SGD with momentum"]["steps"]
    assert (tmp_path / "kfac_digits.png").read_bytes().startswith(b"\x89PNG")
    assert "EKFAC" in capsys.readouterr().out


def test_batches_are_whole_epochs_in_new_orders():
    config = kfac_digits.Config(batch=4, steps=5)
    first = kfac_digits.batches(config, 10, 0)
    assert first.shape == (5, 4)
    assert len(set(first[:2].ravel())) == len(set(first[2:4].ravel())) == 8
    assert first[:2].tolist() != first[2:4].tolist()
    assert first.tolist() == kfac_digits.batches(config, 10, 0).tolist()


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"rates": ()}, {"rates": (0.0,)}, {"target": 0.0}])
def test_options_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        kfac_digits.Config(**wrong)
