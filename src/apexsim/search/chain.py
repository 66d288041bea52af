"""Pools that requests pass one after the other: encoder, then decoder (floor 5).

Each pool has a plan search of its own; what its best plan finishes arrives at the next pool.  An encoder's request is a
prompt with one output, whose time is that of its encoding.  The decoder's requests arrive when they have been encoded, so
no token comes before.  A model of decoders only is a chain of one part.

Where sources differ in length, cross-attention reads their mean, weighted by output.

Ignored: moving the encoder's output to the decoder, and encoder and decoder sharing GPUs: each has a cluster of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from apexsim.cost.account import Account
from apexsim.cost.load import ExpertLoad
from apexsim.cost.price import USUAL
from apexsim.engines import EngineRow
from apexsim.hardware import Cluster
from apexsim.model.model import Model
from apexsim.model.parts import decoder_part, encoder_part
from apexsim.plan.choose import engine_of
from apexsim.plan.plan import Precision
from apexsim.plan.space import candidates
from apexsim.search.assess import apart, outcome_of
from apexsim.search.goal import Goal
from apexsim.search.search import Progress, search
from apexsim.search.setting import Setting, setting_of
from apexsim.search.study import Study
from apexsim.workload.trace import NO_FLOATS, NO_INTS, Workload

F8 = NDArray[np.float64]
I8 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ChainQuestion:
    """What both searches share.  engine: name of the rules; batch: most sequences at once; load: of the experts."""

    precision: Precision
    goal: Goal
    engine: str
    batch: int
    load: ExpertLoad = USUAL
    workers: int = 0
    ray: str | None = None
    everything: bool = False  # each replica of every plan is accounted for, else of the first


@dataclass(frozen=True, slots=True)
class ChainPart:
    """One search.  In the order of its workload: sent, when the client sent each request [s]; prompt, its tokens [R].
    apart: where the time of each replica went, of the first plan or of all."""

    role: str
    study: Study
    sent: F8
    prompt: I8
    apart: tuple[tuple[Account, ...], ...]


def setting_for(model: Model, cluster: Cluster, work: Workload, question: ChainQuestion) -> Setting:
    """A setting in which no request is longer than the model length."""
    row: EngineRow = engine_of(question.engine, {"max_num_seqs": question.batch}, cluster, work.longest)
    if model.decoder.role == "encoder" and model.decoder.source_length:
        row = replace(row, tokenise_s=0.0)  # positions of sounds and images are no text
    return setting_of(model, cluster, row, work, work.longest, load=question.load)


@dataclass(frozen=True, slots=True)
class ChainPool:
    """Replicas that do one part of every request.  prompt, output: [R] tokens that requests ask of them."""

    role: str
    model: Model
    cluster: Cluster
    prompt: I8
    output: I8


def pools_of(model: Model, cluster: Cluster, work: Workload, encoder_cluster: Cluster | None = None) -> tuple[ChainPool, ...]:
    """The pools that requests pass one after the other; the decoder of an encoder that reads prompts starts from one token."""
    encoder, one = encoder_part(model), np.ones(work.size, np.int64)
    length = 0 if encoder is None else encoder.decoder.source_length
    read = np.full(work.size, length, np.int64) if length else work.prompt
    decoder = decoder_part(model, round(float(read @ work.output) / float(work.output.sum())))
    pools = [] if encoder is None else [ChainPool("encoder", encoder, encoder_cluster or cluster, read, one)]
    if decoder is not None:
        pools.append(ChainPool("decoder", decoder, cluster, one if encoder is not None and not length else work.prompt, work.output))
    return tuple(pools)


def chained(
    model: Model,
    cluster: Cluster,
    work: Workload,
    question: ChainQuestion,
    *,
    encoder_cluster: Cluster | None = None,
    progress: Progress | None = None,
) -> tuple[ChainPart, ...]:
    """The search of each pool in turn; raises Infeasible when a part fits nowhere."""
    parts: list[ChainPart] = []
    coming, order = work, np.arange(work.size)
    for pool in pools_of(model, cluster, work, encoder_cluster):
        if parts:
            coming, order = _handed_over(coming, order, parts[-1].study)
        coming = replace(coming, prompt=pool.prompt[order], output=pool.output[order])
        study = _searched(pool.model, pool.cluster, coming, question, progress)
        parts.append(ChainPart(pool.role, study, work.arrive[order], work.prompt[order], _apart(study, question)))
    return tuple(parts)


def _handed_over(work: Workload, order: I8, study: Study) -> tuple[Workload, I8]:
    """What a pool has finished arrives at the next one: the requests in that order, and where each stood at first."""
    done = outcome_of(study.setting, study.ranked[0]).finish
    sorted_ = np.argsort(done, kind="stable")
    return replace(work, arrive=done, mode="open", after=NO_INTS, delay=NO_FLOATS).without_prefixes().only(sorted_), order[sorted_]


def _searched(model: Model, cluster: Cluster, work: Workload, question: ChainQuestion, progress: Progress | None) -> Study:
    space = candidates(model, cluster, question.precision)
    setting = setting_for(model, cluster, work, question)
    return search(setting, space, question.goal, workers=question.workers, ray=question.ray, progress=progress)


def _apart(study: Study, question: ChainQuestion) -> tuple[tuple[Account, ...], ...]:
    return tuple(apart(study.setting, run) for run in (study.ranked if question.everything else study.ranked[:1]))
