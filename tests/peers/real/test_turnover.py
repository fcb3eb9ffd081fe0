"""A run through many access tokens in little time. The long form is endurance.py."""

from turnover import outlive


def test_a_run_goes_through_five_access_tokens_and_loses_nothing(start_pair, folder):
    # The SDK's own setting for how often it sends, and so looks at its token: 15 s without it.
    often = {"WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "2"}
    outlive(start_pair, folder, lambda run, _: len(run["access_tokens"]) >= 5, within=150, settings=often)
