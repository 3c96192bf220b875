from __future__ import annotations

from collections.abc import Callable

import optuna
import pytest

from spaces import cnn, mlp
from spaces.config import TrialConfig

TRIALS = 400


def propose(
    suggest: Callable[[optuna.Trial], TrialConfig],
    shape: tuple[int, int, int] | None = None,
    count: int = TRIALS,
) -> list[tuple[TrialConfig, dict[str, object]]]:
    """Configurations that random search would propose, with Optuna's parameters of each."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found = []
    for _ in range(count):
        trial = study.ask()
        if shape is not None:
            trial.set_user_attr("image_shape", shape)
        found.append((suggest(trial), trial.params))
    return found


@pytest.fixture(scope="module")
def perceptrons() -> list[tuple[TrialConfig, dict[str, object]]]:
    return propose(mlp.suggest)


@pytest.fixture(scope="module")
def convolutions() -> list[tuple[TrialConfig, dict[str, object]]]:
    return propose(cnn.suggest, (28, 28, 1))


Proposals = list[tuple[TrialConfig, dict[str, object]]]


@pytest.fixture(params=["mlp", "cnn"])
def either(
    request: pytest.FixtureRequest, perceptrons: Proposals, convolutions: Proposals
) -> Proposals:
    return perceptrons if request.param == "mlp" else convolutions


def test_mlp_uses_the_whole_of_its_depths_and_units(perceptrons: Proposals) -> None:
    configs = [config for config, _ in perceptrons]
    units = [u for config in configs for u in config.hidden]
    assert {len(config.hidden) for config in configs} == {1, 2, 3, 4, 5}
    assert 16 <= min(units) < 20
    assert 800 < max(units) <= 1024
    assert not any(config.filters for config in configs)


def test_mlp_samples_units_on_a_logarithmic_scale(perceptrons: Proposals) -> None:
    units = [u for config, _ in perceptrons for u in config.hidden]
    below_the_geometric_mean = sum(u < 128 for u in units) / len(units)
    assert 0.4 < below_the_geometric_mean < 0.6


def test_mlp_uses_the_whole_of_its_input_dropout(perceptrons: Proposals) -> None:
    values = [config.input_dropout for config, _ in perceptrons]
    assert 0.0 <= min(values) < 0.02
    assert 0.28 < max(values) <= 0.3


def test_every_space_uses_the_whole_of_its_dropout_and_batch_sizes(either: Proposals) -> None:
    dropouts = [config.dropout for config, _ in either]
    assert 0.0 <= min(dropouts) < 0.02
    assert 0.48 < max(dropouts) <= 0.5
    assert {config.batch_size for config, _ in either} == {32, 64, 128, 256}


def test_adaptive_optimizers_get_their_range_and_no_settings_of_sgd(either: Proposals) -> None:
    adaptive = [(c, p) for c, p in either if c.optimizer != "sgd"]
    rates = [config.learning_rate for config, _ in adaptive]
    assert {config.optimizer for config, _ in adaptive} == {"adam", "rmsprop"}
    assert 1e-4 <= min(rates) < 2e-4
    assert 5e-3 < max(rates) <= 1e-2
    assert {(config.momentum, config.decay) for config, _ in adaptive} == {(0.0, 0.0)}
    assert all("sgd_learning_rate" not in params for _, params in adaptive)


def test_sgd_gets_its_own_larger_range_with_momentum_and_decay(either: Proposals) -> None:
    sgd = [(c, p) for c, p in either if c.optimizer == "sgd"]
    assert len(sgd) > TRIALS / 5
    rates = [config.learning_rate for config, _ in sgd]
    momenta = [config.momentum for config, _ in sgd]
    decays = [config.decay for config, _ in sgd]
    assert 1e-3 <= min(rates) < 3e-3
    assert 0.1 < max(rates) <= 0.3
    assert 0.0 <= min(momenta) < 0.1
    assert 0.9 < max(momenta) <= 0.99
    assert 1e-6 <= min(decays) < 3e-6
    assert 3e-4 < max(decays) <= 1e-3
    assert all("learning_rate" not in params for _, params in sgd)
    assert all(params["sgd_learning_rate"] == config.learning_rate for config, params in sgd)


def test_cnn_uses_the_whole_of_its_ranges(convolutions: Proposals) -> None:
    configs = [config for config, _ in convolutions]
    filters = [f for config in configs for f in config.filters]
    units = [config.hidden[0] for config in configs]
    assert 8 <= min(filters) < 10
    assert 55 < max(filters) <= 64
    assert 32 <= min(units) < 40
    assert 400 < max(units) <= 512
    assert {len(config.hidden) for config in configs} == {1}
    assert {config.kernel_size for config in configs} == {3, 5}
    assert {config.pool_size for config in configs} == {2}
    assert {config.padding for config in configs} == {"same"}


@pytest.mark.parametrize(
    ("shape", "depth"),
    [
        ((1, 1, 1), 1),
        ((2, 2, 1), 1),
        ((3, 3, 1), 1),
        ((4, 4, 1), 2),
        ((8, 8, 1), 3),
        ((15, 15, 3), 3),
        ((16, 16, 1), 4),
        ((28, 28, 1), 4),
        ((224, 224, 3), 4),
        ((8, 224, 3), 3),
        ((224, 4, 3), 2),
    ],
)
def test_cnn_goes_as_deep_as_the_smaller_side_allows_and_no_deeper(
    shape: tuple[int, int, int], depth: int
) -> None:
    assert cnn.max_conv_depth(shape) == depth
    depths = {len(config.filters) for config, _ in propose(cnn.suggest, shape, 60)}
    assert depths == set(range(1, depth + 1))


@pytest.mark.parametrize("side", range(2, 40))
def test_cnn_pooling_never_leaves_an_image_without_pixels(side: int) -> None:
    assert side // cnn.POOL_SIZE ** cnn.max_conv_depth((side, side, 1)) >= 1


def test_cnn_takes_28_by_28_where_nobody_told_it_the_shape() -> None:
    assert {len(config.filters) for config, _ in propose(cnn.suggest, None, 60)} == {1, 2, 3, 4}


def test_mlp_baseline_is_what_one_writes_first() -> None:
    assert mlp.baseline() == TrialConfig(
        hidden=(128,), batch_size=32, optimizer="adam", learning_rate=0.001, dropout=0.0
    )


def test_cnn_baseline_is_one_convolution_and_one_dense_layer() -> None:
    assert cnn.baseline() == TrialConfig(
        filters=(32,), hidden=(128,), batch_size=32, optimizer="adam", learning_rate=0.001
    )


def test_baselines_keep_the_ids_under_which_past_studies_recorded_them() -> None:
    assert mlp.baseline().config_id == "44136fa355b3"
    assert cnn.baseline().config_id == "5b93b730e300"
