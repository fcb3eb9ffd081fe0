"""multiprocessing_workers.py METHOD: two workers, a run each."""

import multiprocessing
import sys

import wandb


def train(number):
    with wandb.init(entity="team", project="real") as run:
        run.log({"number": number})


if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    workers = [context.Process(target=train, args=(number,)) for number in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    sys.exit(any(worker.exitcode for worker in workers))
