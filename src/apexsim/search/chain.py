"""Encoder, then decoder: two plan searches chained by the completion times of the best encoder plan (floor 5).

An encoder's request is a prompt with one output, whose time is that of its encoding.  The decoder's requests arrive when
they have been encoded, so no token comes before.  A model of decoders only is a chain of one part.

Where sources differ in length, cross-attention reads their mean, weighted by output.

Ignored: moving the encoder's output to the decoder, and encoder and decoder sharing GPUs: each has a cluster of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from apexsim.cost.account import Account
from apexsim.cost.load import Load
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
from apexsim.workload.trace import Workload

F8 = NDArray[np.float64]
I8 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Question:
    """What both searches share.  engine: name of the rules; batch: most sequences at once; load: of the experts."""

    precision: Precision
    goal: Goal
    engine: str
    batch: int
    load: Load = USUAL
    workers: int = 0
    ray: str | None = None
    everything: bool = False  # each replica of every plan is accounted for, else of the first


@dataclass(frozen=True, slots=True)
class Part:
    """One search.  In the order of its workload: sent, when the client sent each request [s]; prompt, its tokens [R].
    apart: where the time of each replica went, of the first plan or of all."""

    role: str
    study: Study
    sent: F8
    prompt: I8
    apart: tuple[tuple[Account, ...], ...]


def setting_for(model: Model, cluster: Cluster, work: Workload, question: Question) -> Setting:
    """A setting in which no request is longer than the model length."""
    row: EngineRow = engine_of(question.engine, {"max_num_seqs": question.batch}, cluster, work.longest)
    if model.decoder.role == "encoder" and model.decoder.source_length:
        row = replace(row, tokenise_s=0.0)  # positions of sounds and images are no text
    return setting_of(model, cluster, row, work, work.longest, load=question.load)


def chained(model: Model, cluster: Cluster, work: Workload, question: Question, *, encoder_cluster: Cluster | None = None,
            progress: Progress | None = None) -> tuple[Part, ...]:  # fmt: skip
    """The search of each part, encoder first; raises Infeasible when a part fits nowhere."""
    parts: list[Part] = []
    encoder = encoder_part(model)
    sent, source = np.asarray(work.arrive, float), work.prompt
    if encoder is not None:
        length = encoder.decoder.source_length
        source = np.full(work.size, length, np.int64) if length else work.prompt
        coded = replace(work, prompt=source, output=np.ones(work.size, np.int64))
        study = _searched(encoder, encoder_cluster or cluster, coded, question, progress)
        parts.append(Part("encoder", study, sent, work.prompt, _apart(study, question)))
    read = round(float(source @ work.output) / float(work.output.sum()))
    decoder = decoder_part(model, read)
    if decoder is not None:
        waiting, order = (work, np.arange(work.size)) if encoder is None else _encoded(work, parts[0], encoder)
        study = _searched(decoder, cluster, waiting, question, progress)
        parts.append(Part("decoder", study, sent[order], work.prompt[order], _apart(study, question)))
    return tuple(parts)


def _searched(model: Model, cluster: Cluster, work: Workload, question: Question, progress: Progress | None) -> Study:
    space = candidates(model, cluster, question.precision)
    setting = setting_for(model, cluster, work, question)
    return search(setting, space, question.goal, workers=question.workers, ray=question.ray, progress=progress)


def _apart(study: Study, question: Question) -> tuple[tuple[Account, ...], ...]:
    return tuple(apart(study.setting, run) for run in (study.ranked if question.everything else study.ranked[:1]))


def _encoded(work: Workload, part: Part, encoder: Model) -> tuple[Workload, I8]:
    """The requests as the decoder meets them, in the order in which they are encoded; where the encoder reads the prompt
    the decoder starts from one token."""
    first = part.study.ranked[0]
    done = outcome_of(part.study.setting, first).finish
    order = np.argsort(done, kind="stable")
    prompt = work.prompt if encoder.decoder.source_length else np.ones(work.size, np.int64)
    return replace(work, arrive=done, prompt=prompt, mode="open").without_prefixes().only(order), order
