"""A run through many access tokens in little time. The long form is endurance.py."""

from turnover import outlive


def test_a_run_goes_through_five_access_tokens_and_loses_nothing(start_pair, folder):
    outlive(start_pair, folder, enough=lambda run, _: len(run["access_tokens"]) >= 5, within=150)
