"""The rows of docs/works-with.md: a program of somebody who uses W&B, and what it needs."""

import dataclasses

MODES = {"files": [], "proxy": ["--proxy"]}


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    # For `sh -ec`, in an empty folder; $PROGRAMS is the folder of the programs.
    command: str
    # The pinned packages that the page names; all of them are installed.
    packages: tuple = ()
    # Whose Python: the packages are in tests/peers/requirements/VENV.txt.
    venv: str = "works-with"
    runs: int = 1
    # Whether its runs have rows, all of which must arrive.
    logs: bool = True
    note: str = ""
    # What it says when it does not work, and is known not to. Any other failure is not an answer.
    refusal: str = ""
    seconds: int = 180


def program(name, arguments=""):
    return f"python $PROGRAMS/{name}.py {arguments}".strip()


CLIENTS = "python $PROGRAMS/.."
WANTS_A_KEY = "set WANDB_API_KEY first"
NO_KEY = "there is no key to find; the proxy gives one"

LIGHT = [
    Row("Hydra, multirun", program("hydra_multirun", "--multirun +lr=0.1,0.2"), ("hydra-core",), runs=2),
    Row("LightGBM, `wandb_callback`", program("lightgbm_callback"), ("lightgbm",)),
    Row("Optuna, `WeightsAndBiasesCallback`", program("optuna_callback"), ("optuna",), runs=2),
    Row("XGBoost, `WandbCallback`", program("xgboost_callback"), ("xgboost-cpu",)),
    Row("joblib workers", program("joblib_workers"), ("joblib",), runs=2),
    Row("`multiprocessing`: fork", program("multiprocessing_workers", "fork"), runs=2),
    Row("`multiprocessing`: forkserver", program("multiprocessing_workers", "forkserver"), runs=2),
    Row("`multiprocessing`: spawn", program("multiprocessing_workers", "spawn"), runs=2),
    Row(
        "a notebook, run by nbconvert",
        "cp $PROGRAMS/notebook.ipynb . && jupyter nbconvert --to notebook --execute --inplace notebook.ipynb",
        ("nbconvert",),
    ),
    Row("`wandb sync` of an offline run", f"WANDB_MODE=offline {program('plain_run')}; wandb sync wandb/offline-run-*"),
    Row("`wandb login`, `wandb status`", "wandb login && wandb status", runs=0),
    Row("artifacts: log, then fetch by `Api()`", f"{CLIENTS}/artifact_up_and_down.py row", logs=False),
    Row("sweeps: `wandb.sweep`, `wandb.agent`", f"{CLIENTS}/sweep.py", runs=2),
    Row("code that asks `wandb.api.api_key`", program("reads_a_key", "api"), note=NO_KEY, refusal=WANTS_A_KEY),
    Row("code that reads `WANDB_API_KEY`", program("reads_a_key", "environment"), note=NO_KEY, refusal=WANTS_A_KEY),
    Row("`requests` with `Api().api_key`", program("asks_with_requests"), note=NO_KEY, refusal="401 Client Error"),
    Row(
        "code that sets a key of its own",
        program("has_a_key"),
        note="remove the key from the program or its `.env`",
        refusal="Both WANDB_API_KEY and WANDB_IDENTITY_TOKEN_FILE are set|this program sets its own WANDB_API_KEY",
    ),
    Row(
        "a launcher that empties the environment of its children",
        program("clean_environment"),
        note="let it pass the variables that `wandb-cred env` prints, or put `exec` in front of the child",
        refusal="No API key configured",
    ),
]

TORCH = "works-with-torch"


def on_torch(name, command, package, runs=1):
    return Row(name, command, (package,), TORCH, runs=runs, seconds=300)


HEAVY = [
    # wandb's integration of Keras imports TensorFlow, whatever the backend, and that and torch in one process are two LLVMs.
    Row("Keras, `WandbMetricsLogger`", program("keras_callback"), ("keras", "tensorflow_cpu"), "works-with-keras", seconds=300),
    on_torch("Accelerate, `log_with=\"wandb\"`", program("accelerate_tracker"), "accelerate"),
    on_torch("Lightning, `WandbLogger`", program("lightning_logger", "1"), "lightning"),
    on_torch("Lightning, DDP on two processes", program("lightning_logger", "2"), "lightning"),
    on_torch("Sentence Transformers, `report_to`", program("sentence_transformers_trainer"), "sentence-transformers"),
    on_torch("Stable-Baselines3, `WandbCallback`", program("stable_baselines_callback"), "stable_baselines3"),
    on_torch("torchrun, a run in each worker", "torchrun --nproc-per-node 2 $PROGRAMS/torchrun_workers.py", "torch", 2),
    on_torch("Transformers, `report_to=\"wandb\"`", program("transformers_trainer"), "transformers"),
    on_torch("TRL, `SFTTrainer`", program("trl_trainer"), "trl"),
    on_torch("Ultralytics, `settings.update({\"wandb\": True})`", program("ultralytics_train"), "ultralytics"),
]
