"""GraphQL by hand, with the key that the public API has."""

import requests
import wandb

with wandb.init(entity="team", project="real") as run:
    run.log({"loss": 1.0})
api = wandb.Api()
url = api.settings["base_url"] + "/graphql"
query = {"query": "query Viewer { viewer { username } }"}
answer = requests.post(url, json=query, auth=("api", api.api_key or ""), timeout=10)
answer.raise_for_status()
