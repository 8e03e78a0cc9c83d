"""`train`: from a recipe to a finished run folder."""

from __future__ import annotations

import logging
import os
import warnings
from dataclasses import replace
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist

from segatlas.config import to_yaml
from segatlas.errors import SegAtlasError, TrainingError, UsageError
from segatlas.files import whole_file
from segatlas.recipe import Config, scores_of
from segatlas.tasks import TASKS
from segatlas.training.auto_batch import settled_batch
from segatlas.training.beginning import Beginning
from segatlas.training.building import TrainingComponents, with_preprocessing
from segatlas.training.checkpoints import RunCheckpoints, WholeCheckpoints, put
from segatlas.training.chosen import with_length, with_transforms
from segatlas.training.course import course_of
from segatlas.training.ema import Ema
from segatlas.training.environment import describe_environment
from segatlas.training.faults import SMALLER, is_out_of_memory
from segatlas.training.inputs import as_taken
from segatlas.training.logbook import LOGGER, Logbook, close_log, hold_log, open_log
from segatlas.training.machine import Machine, check_images, choose_machine
from segatlas.training.plan import Plan
from segatlas.training.progress import Intervals, ProgressReporter
from segatlas.training.resume import Start, other_data, resumed, stand_at, without_lost_start
from segatlas.training.run import Run, RunFolder, find_run, make_run_folder
from segatlas.training.run_lock import RunLock
from segatlas.training.samples import SampleSheets
from segatlas.training.schedule import warmup_steps
from segatlas.training.teacher import with_lasting_name
from segatlas.training.trackers import needed_extras, open_trackers

for _name in ("lightning.pytorch", "lightning.fabric"):
    logging.getLogger(_name).setLevel(logging.WARNING)  # their notices on hardware and products are not ours

RUN_FOLDER_VARIABLE = "SEGATLAS_RUN_FOLDER"
"""How the processes that Lightning starts for `--devices` learn the run folder that the first one has made."""

PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def train(
    config: Config | str | Path,
    *,
    resume: str | Path | None = None,
    quiet: bool = False,
) -> Run:
    """Train a recipe and return the finished run.

    Args:
        config: a Config, a shipped recipe's name or a YAML file.
        resume: run folder or checkpoint to continue; its own config.yaml is the usual `config` then.
        quiet: warnings alone on the terminal; log.txt has all the same.

    Returns:
        The run: `dir`, `best` (model folder), `metrics`, `report`.

    Raises:
        ConfigError, DataError, WeightsError: before anything was written.
        UsageError: another training is at work in the run folder.
        TrainingError: the loss became NaN, the disk is full, a loader process died; checkpoints are kept. A new run
            that ends before its first step leaves no folder.
    """
    if not isinstance(config, Config):
        config = Config.load(config)
    needed_extras(config)
    _set_threads(config)
    held, lock = hold_log(), RunLock()
    launched, beginning = False, Beginning(config, new=resume is None)
    try:
        machine = choose_machine(config)
        launched = _join_processes(machine)
        given = os.environ.get(RUN_FOLDER_VARIABLE)
        config, told = with_transforms(config, resume=resume, given=given)
        config, tried = settled_batch(config, machine, resume=resume, given=given)
        parts = course_of(config).build(without_lost_start(config, resume))
        config, also = with_length(config, len(parts.train), machine.world, resume=resume, given=given)
        config = with_lasting_name(as_taken(config, parts.card.preprocessing, parts.encoder_weights))
        plan = Plan.of(config.train, len(parts.train), machine.world)
        for line in (*told, *tried, *also):
            LOGGER.info("%s", line)
        for notice in (*machine.notices, *check_images(config, plan)):
            LOGGER.warning("%s", notice)
        folder = _agree_on_folder(config, resume, machine, lock)
        if is_first_process():
            beginning.in_folder(folder)
        start = resumed(_checkpoint_of(resume, folder), config, parts, plan, folder) if resume else Start(plan=plan)
        if start.preprocessing is not None:
            parts = with_preprocessing(parts, start.preprocessing, config)
        return _fit(config, machine, parts, folder, start, held, beginning, quiet=quiet)
    except BaseException:
        beginning.undo(lock)
        raise
    finally:
        lock.release()
        close_log()
        if is_first_process():
            os.environ.pop(RUN_FOLDER_VARIABLE, None)
        if launched:
            dist.destroy_process_group()


def _fit(
    config: Config,
    machine: Machine,
    parts: TrainingComponents,
    folder: RunFolder,
    start: Start,
    held: MemoryHandler,
    beginning: Beginning,
    *,
    quiet: bool,
) -> Run:
    first = is_first_process()
    if first:
        folder.sweep()
    handlers = open_log(folder.log, held, quiet=quiet) if first else []
    plan, step, again = start.plan, start.step, start.checkpoint is not None
    scores, course = scores_of(config), course_of(config)
    logbook = None
    if first:
        trackers = open_trackers(config, folder, step=step if again else None, warn=LOGGER.warning)
        logbook = Logbook(folder, scores=scores, trackers=trackers, resumed=again)
    module = course.module(parts.net, parts.criterion, parts.card, config, plan=plan, step=step)
    data = course.data(config, parts.train, parts.val, parts.pipeline, plan=plan, start=step * plan.accumulate)
    trainer, checkpoints, reporter = _trainer(
        config, machine, folder, logbook, parts, plan, beginning, quiet=quiet or not first
    )
    give_back, finished = checkpoints.catch_interrupts(), False
    try:
        if first:
            _write_head(config, parts, folder, start)
        if logbook is not None:
            logbook.begin(config)
        if start.checkpoint is not None and logbook is not None:
            logbook.rewind(step)
            if start.checkpoint.resolve() != folder.last.resolve():  # else a second resume would jump ahead again
                put(start.checkpoint, folder.last)
        if start.finished:
            LOGGER.warning("nothing left to train: %s", start.finished)
            checkpoints.load_state_dict(start.judged)
        else:
            _quiet_warnings()
            stand_at(trainer, start)
            trainer.fit(module, datamodule=data, ckpt_path=start.checkpoint, weights_only=True)
        give_back()  # no step is to come after which the evaluation could stop
        if not first:
            return Run(dir=folder.root, best=course.kept(folder))
        if checkpoints.kept_start:
            LOGGER.warning(
                "no validation was better than the start, %s: the run keeps it unchanged (model.start_from=%s)",
                checkpoints.start_text,
                config.model.start_from,
            )
        report = course.finish(config, folder, parts.val)
        ranked = next(iter(scores))
        metrics = {ranked: report.scores.summary()[ranked]} if report is not None else {}
        finished = True
        return Run(dir=folder.root, best=course.kept(folder), metrics=metrics | checkpoints.best_scores, report=report)
    except RuntimeError as error:
        raise _explain(error, folder) from error
    finally:
        give_back()
        data.close()
        reporter.close()
        if logbook is not None:
            logbook.close(finished=finished)
        close_log(handlers)


def _trainer(
    config: Config,
    machine: Machine,
    folder: RunFolder,
    logbook: Logbook | None,
    parts: TrainingComponents,
    plan: Plan,
    beginning: Beginning,
    *,
    quiet: bool,
) -> tuple[pl.Trainer, RunCheckpoints, ProgressReporter]:
    settings = config.train
    world = machine.world
    checkpoints = RunCheckpoints(folder, settings)
    intervals = Intervals.of(config.log.every, plan.steps)
    reporter = ProgressReporter(
        logbook,
        scores=scores_of(config),
        intervals=intervals,
        images_per_step=plan.samples_per_step,
        quiet=quiet,
        watched=settings.metric,
        time_limit=settings.time_limit,
    )
    callbacks: list[Any] = [Ema(settings.ema)] if settings.ema else []
    callbacks += [beginning, reporter, checkpoints]
    if config.log.samples and course_of(config).sheets:
        callbacks.insert(0, SampleSheets(folder, parts.val, config.log.samples, TASKS[config.task], logbook))
    trainer = pl.Trainer(
        accelerator=machine.accelerator,
        devices=world // machine.nodes,
        num_nodes=machine.nodes,
        strategy="ddp" if world > 1 else "auto",
        precision=PRECISION[settings.precision],  # type: ignore[arg-type]
        max_epochs=-1,
        max_steps=plan.steps,
        accumulate_grad_batches=plan.accumulate,
        gradient_clip_val=settings.clip,
        val_check_interval=plan.steps_between_validations(settings) * plan.accumulate,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=-1 if parts.starts_trained and not beginning.over else 0,  # on all of val; not on a resume
        use_distributed_sampler=False,
        deterministic="warn" if settings.deterministic else False,
        callbacks=callbacks,
        plugins=[WholeCheckpoints()],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=True,
        default_root_dir=folder.root,
    )
    # Filling fresh memory to make reads of uninitialised values repeatable costs time and we have none of them.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return trainer, checkpoints, reporter


# ---- several processes
def is_first_process() -> bool:
    """Return whether this process is the one that speaks and writes."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) == 0


def _join_processes(machine: Machine) -> bool:
    """Under torchrun, open the process group now: all processes must agree on one run folder before they train."""
    if machine.world < 2 or "RANK" not in os.environ or dist.is_initialized():
        return False  # alone, or a process that Lightning started: it is told its run folder
    dist.init_process_group("cpu:gloo,cuda:nccl" if machine.device.type == "cuda" else "gloo")
    return True


def _agree_on_folder(config: Config, resume: str | Path | None, machine: Machine, lock: RunLock) -> RunFolder:
    """Return the run folder that the first process has made or found, and whose lock it has taken.

    Raises its error in all processes.
    """
    given = os.environ.get(RUN_FOLDER_VARIABLE)
    if given:
        return RunFolder(root=Path(given))
    found: list[Any] = [_take_folder(config, resume, lock) if is_first_process() else None]
    if dist.is_initialized():
        dist.broadcast_object_list(found)
    if isinstance(found[0], SegAtlasError):
        raise found[0]
    folder: RunFolder = found[0]
    if machine.world > 1 and not dist.is_initialized():
        os.environ[RUN_FOLDER_VARIABLE] = str(folder.root)
    return folder


def _take_folder(config: Config, resume: str | Path | None, lock: RunLock) -> RunFolder | SegAtlasError:
    """Return the folder of a new run, or the one to resume, or why that cannot be."""
    try:
        if resume is None:
            return make_run_folder(config, lock)
        folder = find_run(resume)
        lock.take(folder.root)
    except SegAtlasError as error:
        return error
    except OSError as error:
        return SegAtlasError(f"cannot write the run folder: {error}")
    return folder


# ---- start and end
def _set_threads(config: Config) -> None:
    if config.train.threads:
        torch.set_num_threads(config.train.threads)


def _write_head(config: Config, parts: TrainingComponents, folder: RunFolder, start: Start) -> None:
    import json

    texts = {}
    if start.checkpoint is None:
        for path in (folder.last, folder.best):  # of an earlier run, where run.exist_ok lets this one replace it
            path.unlink(missing_ok=True)
        texts = {folder.environment: json.dumps(describe_environment(config, parts), indent=1)}
    if start.checkpoint is None or start.recipe is not None:
        texts[folder.config] = to_yaml(start.recipe or config)
    for path, text in texts.items():
        with whole_file(path, error=TrainingError) as temporary:
            temporary.write_text(text, encoding="utf-8")
    LOGGER.info("run folder: %s", folder.root)
    LOGGER.info(
        "%s: %d train and %d %s images, %d classes",
        parts.train.name, len(parts.train), len(parts.val), parts.val.split, len(parts.train.classes),
    )  # fmt: skip
    facts = parts.facts
    if start.checkpoint is not None:
        facts = replace(facts, weights=f"those of the checkpoint, step {start.step} of {start.plan.steps}")
    for line in facts.lines():
        LOGGER.info("%s", line)
    warmup, stated = warmup_steps(config.train.schedule, start.plan.steps), config.train.schedule.warmup
    if stated != "auto" and warmup < stated:
        text = "warm-up: %d step%s, a third of the run's %d, in place of train.schedule.warmup = %d"
        LOGGER.info(text, warmup, "" if warmup == 1 else "s", start.plan.steps, stated)
    if start.checkpoint is not None:
        LOGGER.info("resuming from %s at step %d of %d", start.checkpoint, start.step, start.plan.steps)
        for line in start.told:
            LOGGER.info("%s", line)
        for line in other_data(folder, parts):
            LOGGER.warning("data: %s", line)


def _checkpoint_of(resume: str | Path, folder: RunFolder) -> Path:
    path = Path(resume)
    if path.suffix == ".ckpt":
        return path
    if not folder.last.exists():
        raise UsageError(f"nothing to resume: {folder.root} holds no checkpoint yet")
    return folder.last


def _quiet_warnings() -> None:
    """Silence what the trainer warns about and we have answered.

    Our resume is exact, its own imports are dated, and a teacher is in eval mode on purpose.
    """
    warnings.filterwarnings("ignore", "You're resuming from a checkpoint that ended before the epoch")
    warnings.filterwarnings("ignore", r"Found \d+ module\(s\) in eval mode at the start of training")
    warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated")


def _explain(error: RuntimeError, folder: RunFolder) -> SegAtlasError:
    text = str(error)
    kept = f"continue with --resume {folder.root}" if folder.last.exists() else "no checkpoint had been written yet"
    if "DataLoader worker" in text and ("killed" in text or "exited unexpectedly" in text):
        return TrainingError(
            f"a loader process was killed by the system, usually for lack of memory; {kept}. "
            "data.workers=0 reads in the main process"
        )
    if is_out_of_memory(error):
        return TrainingError(f"out of memory: {text.splitlines()[0]}; {kept}. {SMALLER}")
    raise error
