"""What TensorBoard reads of a study and of a trial, as the bytes of an event file.

Scalars with their steps and times, and the HParams plugin's records of the experiment and of each session. All of it
follows from the state, and what comes later only adds to it. This module must not touch a file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from importlib import import_module
from io import BytesIO
from typing import Any

import orjson

from tune_tasks.errors import ConfigError
from tune_tasks.study import OVER, StudyState, Trial

_PLUGIN, _VERSION = "hparams", "brain.Event:2"
_API, _HPARAMS = "plugins.hparams.api_pb2", "plugins.hparams.plugin_data_pb2"
_EVENT, _SUMMARY = "compat.proto.event_pb2", "compat.proto.summary_pb2"


def of_study(state: StudyState) -> bytes:
    """The file of the study's own folder: which parameters and metrics the HParams table has."""
    api, hparams = _module(_API), _module(_HPARAMS)
    metric = state.spec.metric
    experiment = api.Experiment(
        description=state.spec.name,
        hparam_infos=[_info(api, name, kind) for name, kind in _kinds(state).items()],
        metric_infos=[api.MetricInfo(name=api.MetricName(tag=tag)) for tag in (f"best_{metric}", metric)],
    )
    told = _hparams("experiment", hparams.HParamsPluginData(experiment=experiment))
    return _file([*_opening(0.0), *_summary(0.0, 0, told)])


def of_trial(state: StudyState, trial: Trial) -> bytes:
    """The file of a trial: its parameters, each report with the best value so far, and how it ended."""
    hparams = _module(_HPARAMS)
    start = trial.curves.time(trial.number, 1) if trial.budget else 0.0
    session = hparams.SessionStartInfo(start_time_secs=start, group_name=f"trial {trial.number}")
    kinds = _kinds(state)
    for name, value in trial.params.items():
        _set(session.hparams[name], value, kinds.get(name, "STRING"))
    begun = _hparams("session_start_info", hparams.HParamsPluginData(session_start_info=session))
    return _file([*_opening(start), *_summary(start, 0, begun), *_reports(state, trial), *_end(trial)])


def _reports(state: StudyState, trial: Trial) -> Iterator[bytes]:
    summary = _module(_SUMMARY).Summary
    best = math.inf
    for report in trial.reports:
        best = min(best, state.sign * report.metrics.get(state.spec.metric, math.inf))
        shown = {**report.metrics, **({} if math.isinf(best) else {f"best_{state.spec.metric}": state.sign * best})}
        values = [summary.Value(tag=name, simple_value=value) for name, value in shown.items()]
        yield _event(wall_time=report.time, step=report.step, summary=summary(value=values))


def _end(trial: Trial) -> Iterator[bytes]:
    if trial.state not in OVER:
        return
    api, hparams = _module(_API), _module(_HPARAMS)
    time = trial.curves.time(trial.number, trial.budget) if trial.budget else 0.0
    status = api.Status.Value("STATUS_FAILURE" if trial.state == "failed" else "STATUS_SUCCESS")
    info = hparams.SessionEndInfo(status=status, end_time_secs=time)
    yield from _summary(
        time, trial.budget, _hparams("session_end_info", hparams.HParamsPluginData(session_end_info=info))
    )


def _kinds(state: StudyState) -> dict[str, str]:
    """The type of each parameter in the HParams table; what is neither number nor truth value is text."""
    kinds = {}
    for name, parameter in state.spec.space.root.items():
        values = getattr(parameter, "choices", None) or [getattr(parameter, "value", 0.0)]
        types = {type(value) for value in values}
        kinds[name] = "BOOL" if types == {bool} else "FLOAT64" if types <= {int, float} else "STRING"
    return kinds


def _info(api: Any, name: str, kind: str) -> Any:
    return api.HParamInfo(name=name, type=api.DataType.Value(f"DATA_TYPE_{kind}"))


def _set(target: Any, value: Any, kind: str) -> None:
    if kind == "BOOL":
        target.bool_value = value
    elif kind == "FLOAT64":
        target.number_value = value
    else:
        target.string_value = value if isinstance(value, str) else orjson.dumps(value).decode()


def _hparams(name: str, data: Any) -> Any:
    """A value of the HParams plugin: its record is in the metadata, the value itself is empty."""
    summary = _module(_SUMMARY)
    content = summary.SummaryMetadata.PluginData(
        plugin_name=_PLUGIN, content=data.SerializeToString(deterministic=True)
    )
    return summary.Summary.Value(tag=f"_hparams_/{name}", metadata=summary.SummaryMetadata(plugin_data=content))


def _summary(time: float, step: int, *values: Any) -> Iterator[bytes]:
    yield _event(wall_time=time, step=step, summary=_module(_SUMMARY).Summary(value=values))


def _opening(time: float) -> Iterator[bytes]:
    """How a file begins: its version, and that whatever was read of the run before does not count any more."""
    log = _module(_EVENT).SessionLog
    yield _event(wall_time=time, file_version=_VERSION)
    yield _event(wall_time=time, session_log=log(status=log.SessionStatus.Value("START")))


def _event(**fields: Any) -> bytes:
    data: bytes = _module(_EVENT).Event(**fields).SerializeToString(deterministic=True)
    return data


def _file(messages: Iterable[bytes]) -> bytes:
    """The records of an event file: each with its length, and checksums."""
    file = BytesIO()
    writer = _module("summary.writer.record_writer").RecordWriter(file)
    for message in messages:
        writer.write(message)
    return file.getvalue()


def _module(name: str) -> Any:
    """A module of TensorBoard's, which ships no types."""
    try:
        return import_module(f"tensorboard.{name}")
    except ImportError:
        raise ConfigError(
            "tracking.tensorboard: needs a package that is not installed; install tune-tasks[tensorboard]"
        ) from None
