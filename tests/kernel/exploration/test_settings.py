import pytest

from aiida_alpot.kernel import defaults
from aiida_alpot.kernel.exploration import ExploreSettings, HealthSettings
from aiida_alpot.kernel.settings import SettingsError, parse_settings, settings_to_dict


def test_defaults_are_those_of_the_paper():
    settings = ExploreSettings()
    assert settings.temperatures == (0.0, 250.0, 500.0, 750.0, 1000.0)
    assert settings.pressures == (-0.5, 0.0, 0.5)
    assert settings.n_steps * settings.timestep == defaults.MD_TIME
    assert settings.sample_every * settings.timestep == defaults.MD_SAMPLE_TIME
    assert settings.n_starting_frames == defaults.STARTING_FRAMES
    assert settings.ensemble == "auto"
    assert settings.driver == "random"


def test_settings_survive_a_round_trip_through_a_mapping():
    settings = ExploreSettings(error_break={"force": 0.5}, driver=2, health=HealthSettings(max_isolation=None))
    assert parse_settings(ExploreSettings, settings_to_dict(settings), "explore") == settings


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"temperatures": [300.0, -1.0]}, "temperatures"),
        ({"temperatures": []}, "temperatures"),
        ({"temperatures": [300.0, 300.0]}, "temperatures"),
        ({"pressures": []}, "pressures"),
        ({"timestep": 0.0}, "timestep"),
        ({"friction": -0.1}, "friction"),
        ({"n_steps": 0}, "n_steps"),
        ({"walkers": 0}, "walkers"),
        ({"check_every": 0}, "check_every"),
        ({"barostat_time": 0.0}, "barostat_time"),
        ({"ensemble": "nve"}, "ensemble"),
        ({"barostat": "flexible"}, "barostat"),
        ({"driver": "last"}, "driver"),
        ({"driver": -1}, "driver"),
        ({"device": "gpu"}, "device.*'gpu'"),
        ({"error_break": {"forces": 0.1}}, "forces"),
        ({"error_break": {"force": 0.0}}, "error_break"),
        ({"health": {"min_pair_ratio": 1.5}}, "min_pair_ratio"),
        ({"health": {"max_volume_ratio": 0.5}}, "max_volume_ratio"),
        ({"health": {"max_force": 0.0}}, "max_force"),
        ({"health": {"max_isolation": 0.5}}, "max_isolation"),
        ({"temperature": [300.0]}, "temperatures"),
    ],
)
def test_a_bad_value_is_refused_naming_the_field(values, named):
    with pytest.raises(SettingsError, match=named):
        parse_settings(ExploreSettings, values, "explore")


@pytest.mark.parametrize(
    "values", [{"ensemble": "nve"}, {"barostat": "x"}, {"driver": "last"}, {"pressures": (float("nan"),)}]
)
def test_a_bad_value_is_refused_without_the_parser(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        ExploreSettings(**values)
