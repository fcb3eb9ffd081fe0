"""A run that outlives five whole lives of its access tokens, about half an hour: run it by scripts/endurance."""

from turnover import TOKEN_LIFE, outlive

LIVES = 5


def test_a_run_outlives_five_access_token_lifetimes_and_loses_nothing(start_pair, folder):
    whole = LIVES * TOKEN_LIFE + 30
    run = outlive(start_pair, folder, enough=lambda _, seconds: seconds >= whole, within=whole)
    assert len(run["access_tokens"]) > LIVES
