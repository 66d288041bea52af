"""Traces sent to a small real server: timing, lengths, what breaks, and the comparison with a prediction."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("httpx")

from apexsim.cli import main
from apexsim.errors import InputError
from apexsim.replay.compare import compare
from apexsim.replay.prompts import HIGHEST, LOWEST, WORDS, Prompts
from apexsim.replay.record import ReplayRun, Sent, measured, read_run, run_json
from apexsim.replay.run import Patience, replay
from apexsim.replay.wire import Target, receive
from apexsim.report.replaypage import _notes
from apexsim.workload.stream import read_trace
from apexsim.workload.trace import Workload, chains_of

FIRST, GAP = 0.05, 0.01  # s of the server's first token and between tokens
PLAN = ["--plan", "TP1", "--gpu", "l4", "--gpus", "1"]


class Server:
    """An HTTP server on 127.0.0.1 that streams completions with steady timing.

    behave(n) names what becomes of request number n: "" serves; refuse, stall, halt (mid-stream), cut, error or short;
    ping sends comments and no events; what begins with "HTTP" or "{" is sent as it is, whole or as an event.
    """

    def __init__(self, behave: Callable[[int], str] = lambda n: "") -> None:
        self.behave, self.bodies, self.paths = behave, [], []  # type: ignore[var-annotated]
        self.flying = self.most = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):  # one round for each request of a connection
                size = next(int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-length"))
                body = json.loads(await reader.readexactly(size))
                number = len(self.bodies)
                self.bodies.append(body)
                self.paths.append(head.split()[1].decode())
                self.flying += 1
                self.most = max(self.most, self.flying)
                await self.answer(writer, body, self.behave(number))
                self.flying -= 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def answer(self, writer: asyncio.StreamWriter, body: dict[str, Any], how: str) -> None:
        if how == "refuse":
            said = b'{"error": {"message": "too many requests"}}'
            writer.write(b"HTTP/1.1 429 Busy\r\nContent-Length: %d\r\n\r\n" % len(said) + said)
            return
        if how.startswith("HTTP"):
            writer.write(how.encode())
            raise ConnectionError
        if how == "stall":
            await asyncio.sleep(5)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        chat, count = "messages" in body, body["max_tokens"] - 2 * (how == "short")
        if chat:
            send(writer, {"choices": [{"delta": {"role": "assistant", "content": ""}, "finish_reason": None}]})
        for _ in range(100 * (how == "ping")):
            frame(writer, b": ping\n\n")
            await asyncio.sleep(0.05)
        if how.startswith(("{", "[")):
            frame(writer, b"data: " + how.encode() + b"\n\n")
        for i in range(count if how != "more" else 40 * count):
            await asyncio.sleep(FIRST if i == 0 else GAP * (how != "more"))
            ended = "length" if i == count - 1 else None
            piece = {"delta": {"content": "a"}} if chat else {"text": "a"}
            send(writer, {"choices": [piece | {"finish_reason": ended}]})
            await writer.drain()
            if how == "halt" and i == 1:
                await asyncio.sleep(5)
            if how == "cut" and i == 1:
                raise ConnectionError
            if how == "error" and i == 1:
                send(writer, {"error": {"message": "out of memory"}})
                break
        prompt = body.get("prompt")
        tokens = len(prompt) if isinstance(prompt, list) else 7
        send(writer, {"choices": [], "usage": {"prompt_tokens": tokens, "completion_tokens": count}})
        frame(writer, b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")
        await writer.drain()


def send(writer: asyncio.StreamWriter, event: dict[str, Any]) -> None:
    frame(writer, b"data: " + json.dumps(event).encode() + b"\n\n")


def frame(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n" % len(data) + data + b"\r\n")


@contextmanager
def serving(behave: Callable[[int], str] = lambda n: "") -> Iterator[tuple[str, Server]]:
    """A running server and its address."""
    server, loop, ready = Server(behave), asyncio.new_event_loop(), threading.Event()
    ports: list[int] = []

    async def serve() -> None:
        listening = await asyncio.start_server(server.handle, "127.0.0.1", 0)
        ports.append(listening.sockets[0].getsockname()[1])
        ready.set()

    async def end() -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def work() -> None:
        loop.run_until_complete(serve())
        loop.run_forever()
        loop.run_until_complete(end())
        loop.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    ready.wait(5)
    yield f"http://127.0.0.1:{ports[0]}", server
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)


def stream(size: int = 8, gap: float = 0.03, prompt: int = 20, output: int = 6, **more: Any) -> Workload:
    full = [np.full(size, n, dtype=np.int64) for n in (prompt, output)]
    return Workload("toy", np.arange(size) * gap, full[0], full[1], **more)


def sent(url: str, work: Workload, api: str = "completions", **patience: Any) -> ReplayRun:
    kind = "ids" if api == "completions" else "text"
    return replay(work, Target(url, "toy", api), Prompts(work, kind), Patience(**{"tries": 0, **patience}))


# ---- what is sent ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/chat/completions"])
def test_the_address_may_be_the_root_or_the_interface(url: str) -> None:
    assert Target(url, "m", "chat").address == "http://h:1/v1/chat/completions"


def test_prompts_have_the_length_of_the_trace_and_are_reproducible() -> None:
    work = stream(prompt=37)
    ids = Prompts(work, seed=3).of(1)
    assert len(ids) == 37 and all(LOWEST <= int(i) < HIGHEST for i in ids) and ids == Prompts(work, seed=3).of(1)
    assert ids != Prompts(work, seed=3).of(2) and len(str(Prompts(work, "text").of(1)).split()) == 37
    assert set(str(Prompts(work, "text").of(1)).split()) <= set(WORDS)


def test_common_prefixes_of_the_trace_are_common_prefixes_of_the_prompts() -> None:
    work = stream(2, prompt=20, prefix=chains_of(((5, 6, 7), (5, 6, 9))), block=8)
    a, b = (Prompts(work).of(i) for i in (0, 1))
    assert len(a) == len(b) == 20 and a[:16] == b[:16] and a[16:] != b[16:]
    a, b = (Prompts(work, unique=True).of(i) for i in (0, 1))
    assert a[:8] != b[:8]


def test_requests_ask_for_exactly_the_tokens_of_the_trace() -> None:
    with serving() as (url, server):
        sent(url, stream(3))
    assert [len(body["prompt"]) for body in server.bodies] == [20] * 3 and server.paths[0] == "/v1/completions"
    assert all(b["max_tokens"] == 6 and b["ignore_eos"] and b["stream"] for b in server.bodies)


# ---- what is measured -----------------------------------------------------------------------------------------------


def test_open_loop_sends_at_the_arrivals_and_times_every_token() -> None:
    with serving() as (url, server):
        run = sent(url, stream(8))
    found = measured(run)
    starts = np.array([s.start for s in run.sent])
    assert (found.completed, found.failed, found.output_tokens, found.uneven) == (8, 0, 48, 0)
    assert np.all(starts >= np.arange(8) * 0.03 - 1e-3) and found.late.median < 0.02 and server.most > 1
    assert FIRST <= found.ttft.median < FIRST + 0.03 and GAP <= found.tpot.median < GAP + 0.01
    assert [len(s.gaps) for s in run.sent] == [5] * 8
    assert found.e2el.mean == pytest.approx(found.ttft.mean + 5 * found.tpot.mean)


def test_closed_loop_keeps_the_users_busy() -> None:
    with serving() as (url, server):
        run = sent(url, stream(8, mode="closed", concurrency=3))
    assert server.most == 3 and measured(run).mean_concurrency > 2 and not run.failures


def test_chat_counts_no_token_for_the_role() -> None:
    with serving() as (url, server):
        run = sent(url, stream(2), "chat")
    assert [s.steps for s in run.sent] == [6, 6] and run.sent[0].input_len == 7
    assert measured(run).prompt_off == pytest.approx(7 / 20 - 1) and "messages" in server.bodies[0]
    assert run.sent[0].first - run.sent[0].start >= FIRST


def test_an_empty_end_is_a_token_only_where_one_is_owed() -> None:
    for owed, steps in ((2, 2), (1, 1)):
        one = Sent(4, owed, start=0.0)
        receive(one, '{"choices": [{"text": "a", "finish_reason": null}]}', 1.0)
        receive(one, '{"choices": [{"text": "", "finish_reason": "length"}]}', 2.0)
        assert (one.steps, one.ended) == (steps, True)


def test_warm_up_is_sent_and_left_out() -> None:
    with serving() as (url, server):
        run = sent(url, stream(5, warmup=2), tries=1)
    assert (measured(run).completed, len(server.bodies)) == (3, 6)


# ---- what breaks ----------------------------------------------------------------------------------------------------

FAULTS = {"refuse": "HTTP 429: too many requests", "stall": "stalled", "halt": "stalled", "cut": "broken off",
          "error": "error in the stream: out of memory", "ping": "stalled", "more": "77 chunks came for 6 tokens",
          "HTTP/1.1 500 X\r\n\r\n": "HTTP 500: no reason given", "HTTP/1.1 301 X\r\nLocation: /x\r\n\r\n": "HTTP 301: /x",
          "HTTP/1.1 200 OK\r\n\r\n<html>": "no stream of events: <html>", "HTTP/1.1 200 OK\r\n\r\n": "broken off",
          "HTTP/1.1 20": "broken off", "HTTP/1.1 200 OK\r\n\r\ndata: [DONE]\n\n": "no output",
          "[" * 100_000: "broken event in the stream", '{"choices": "abc"}': "event of another form",
          '{"choices": [{"text": 5}]}': "event of another form", '{"usage": [1]}': "event of another form",
          '{"usage": {"completion_tokens": -5}}': "event of another form",
          '{"usage": {"completion_tokens": Infinity}}': "event of another form"}  # fmt: skip


@pytest.mark.parametrize("fault,said", FAULTS.items(), ids=[fault[:40] for fault in FAULTS])
def test_a_fault_is_marked_and_the_rest_is_kept(fault: str, said: str) -> None:
    with serving(lambda n: fault if n == 2 else "") as (url, _):
        run = sent(url, stream(5), quiet=0.3)
    errors = [s.error for s in run.sent]
    assert errors[2].startswith(said) and not any(errors[:2] + errors[3:]) and measured(run).completed == 4
    whole = run_json(run)
    assert whole["partial"] and whole["failed"] == 1 and whole["errors"][2] == errors[2]
    if fault[0] not in "{[":  # whose events are kept too
        assert (len(whole["itls"][2]) > 0) == (fault in ("halt", "cut", "error", "more"))


def test_failures_in_a_row_stop_the_run() -> None:
    with serving(lambda n: "refuse" if n >= 4 else "") as (url, server):
        run = sent(url, stream(30, gap=0.05), failures=3)
    assert run.stopped.startswith("3 requests in a row failed") and len(server.bodies) < 15
    assert measured(run).completed == 4 and any(s.error.startswith("not sent") for s in run.sent)


def test_where_nothing_finished_the_cause_is_said() -> None:
    """A server that dies early leaves more requests unsent than failed."""
    with serving(lambda n: "cut") as (url, _):
        run = sent(url, stream(30, gap=0.01), failures=3)
    with pytest.raises(InputError, match=r"no request finished \(3 requests in a row failed, the last with: broken off"):
        measured(run)


@pytest.mark.parametrize(("share", "why"), [(0.9, "this client is too slow"), (0.1, "its machine was busy")])
def test_late_requests_have_a_reason(share: float, why: str) -> None:
    late = ReplayRun((Sent(4, 2, 0.0, 0.5, 0.6, 0.7, [0.1], steps=2, done=True),), "open", about={"client_cpu_share": share})
    assert any("went out late" in note and why in note for note in _notes(late, measured(late), None))


def test_a_short_output_is_noticed() -> None:
    with serving(lambda n: "short" if n == 1 else "") as (url, _):
        assert measured(sent(url, stream(3))).uneven == 1


def test_an_interruption_keeps_what_came_back() -> None:
    async def session() -> ReplayRun:
        from apexsim.replay.run import Session, _httpx

        work = stream(40, gap=0.02)
        state = Session(work, Target(url, "toy"), Prompts(work), Patience(tries=0), lambda *_: None)
        task = asyncio.create_task(state.run(_httpx()))
        await asyncio.sleep(0.3)
        task.cancel()
        await task
        return ReplayRun(tuple(state.sent), "open", stopped=state.stopped)

    with serving() as (url, _):
        run = asyncio.run(session())
    kinds = {s.error.split(":")[0] for s in run.sent}
    assert run.stopped == "interrupted" and kinds == {"", "cut off", "not sent"} and 3 < len(run.good) < 20


def test_nobody_there_is_said_at_once() -> None:
    with pytest.raises(InputError, match="does not serve: refused"):
        sent("http://127.0.0.1:9", stream(3), tries=1)


# ---- the file -------------------------------------------------------------------------------------------------------


def test_the_file_is_read_again_and_is_a_trace(tmp_path: Path) -> None:
    with serving(lambda n: "refuse" if n == 1 else "") as (url, _):
        run = sent(url, stream(6, warmup=1))
    path = tmp_path / "run.json"
    path.write_text(json.dumps(run_json(run)), encoding="utf-8")
    again = read_run(path)
    was, now = measured(run), measured(again)
    assert (now.completed, again.warmup, again.mode) == (was.completed, 1, "open") and again.failures == run.failures
    assert now.ttft.mean == pytest.approx(was.ttft.mean) and now.tpot.p99 == pytest.approx(was.tpot.p99)
    assert read_trace(path).size == 5


def test_a_file_of_the_engines_own_benchmark(tmp_path: Path) -> None:
    """As vllm bench serve writes it: no latencies in older versions, starts on an arbitrary clock."""
    whole = {"model_id": "m", "request_rate": 2.0, "max_concurrency": None, "input_lens": [10, 12], "output_lens": [3, 0],
             "ttfts": [0.1, 0.0], "itls": [[0.01, 0.02], []], "start_times": [9000.0, 9000.5], "errors": ["", "gone"]}  # fmt: skip
    path = tmp_path / "vllm.json"
    path.write_text(json.dumps(whole), encoding="utf-8")
    run = read_run(path)
    found = measured(run)
    assert (run.mode, found.completed, found.failed) == ("open", 1, 1) and run.sent[0].start == 0.0
    assert found.e2el.mean == pytest.approx(0.13) and found.tpot.mean == pytest.approx(0.015)
    path.write_text('{"mean_ttft_ms": 3}', encoding="utf-8")
    with pytest.raises(InputError, match="--save-detailed"):
        read_run(path)


# ---- the comparison -------------------------------------------------------------------------------------------------


BROKEN = [
    ({"input_lens": [10]}, "'output_lens' has 2 entries, 'input_lens' 1"),
    ({"input_lens": [-1, 20]}, "input_lens[0] is '-1', expected a number from 0"),
    ({"input_lens": [0, 20]}, "input_lens[0] is 0"),
    ({"output_lens": [5, float("inf")]}, "output_lens[1] is 'inf'"),
    ({"ttfts": [0.1, float("nan")]}, "ttfts[1] is 'nan'"),
    ({"itls": [[0.1], ["x"]]}, "itls[1] is 'x'"),
    ({"start_times": [None, 0.0]}, "start_times[0] is missing"),
    ({"start_times": "x"}, "has no start_times"),
    ({"max_concurrency": "many"}, "max_concurrency is 'many'"),
    ({"mode": "wild"}, "unknown mode 'wild'"),
]


@pytest.mark.parametrize("change,told", BROKEN, ids=[told for _, told in BROKEN])
def test_a_result_file_with_impossible_numbers_is_refused(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    whole = {"input_lens": [10, 20], "output_lens": [5, 6], "ttfts": [0.1, 0.2], "itls": [[0.1] * 4, [0.1] * 5],
             "start_times": [0.0, 1.0], "errors": ["", ""], "request_rate": 1.0}  # fmt: skip
    path = tmp_path / "r.json"
    path.write_text(json.dumps(whole))
    assert len(read_run(path).good) == 2
    path.write_text(json.dumps(whole | change))
    with pytest.raises(InputError) as error:
        read_run(path)
    assert told in error.value.line()


def test_a_run_that_behaves_as_predicted_has_no_error() -> None:
    """The prediction, written down as if it had been measured, is its own prediction."""
    question = {"gpu": "l4", "gpus": 1}
    work = stream(12, gap=0.2, prompt=300, output=40)
    blank = [Sent(300, 40, t, t, t + 1.0, t + 2.0, [1.0], steps=40) for t in work.arrive.tolist()]
    outcome = compare(ReplayRun(tuple(blank), "open"), "llama-3.1-8b", "TP1", question).study.ranked[0].outcome
    told = [replace(s, start=a, first=b, last=c) for s, a, b, c in zip(blank, outcome.sent, outcome.first, outcome.finish)]
    found = compare(ReplayRun(tuple(told), "open", warmup=2), "llama-3.1-8b", "TP1", question)
    rows = {(r.metric, r.stat): r for r in found.rows}
    assert all(abs(rows[m, s].error) < 1e-9 for m in ("ttft", "tpot", "e2el") for s in ("mean", "p99"))
    assert abs(rows["output_throughput", ""].error) < 1e-9 and found.off("e2el") < 1e-9 and len(found.send) == 10


def test_a_closed_loop_is_predicted_as_one() -> None:
    with serving(lambda n: "refuse" if n == 3 else "") as (url, _):
        run = sent(url, stream(9, prompt=300, mode="closed", concurrency=3, warmup=2))
    found = compare(run, "llama-3.1-8b", "TP1", {"gpu": "l4", "gpus": 1})
    work = found.study.setting.workload
    assert (work.mode, work.concurrency, work.size, work.warmup) == ("closed", 3, 8, 2) and len(found.send) == 6
    assert {row.metric: row for row in found.rows}["mean_concurrency"].predicted > 1.8


def test_the_command_measures_compares_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    trace, out, picture = (tmp_path / name for name in ("t.csv", "run.json", "run.png"))
    lines = ["arrival_s,isl,osl", *(f"{0.02 * i},30,5" for i in range(10))]
    trace.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with serving() as (url, server):
        words = [
            "replay",
            str(trace),
            "--url",
            url,
            "--model",
            "llama-3.1-8b",
            *PLAN,
            "--json",
            str(out),
            "--plot",
            str(picture),
        ]
        assert main(words) == 0
    shown = capsys.readouterr().out
    assert "predicted for TP1" in shown and "E2E" in shown and len(server.bodies) == 11
    whole = json.loads(out.read_text(encoding="utf-8"))
    assert whole["completed"] == 10 and whole["comparison"]["plan"] == "TP1" and not whole["partial"]
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert main(["replay", "--compare", str(out), "--model", "llama-3.1-8b", *PLAN, "--json", "-"]) == 0
    rows = json.loads(capsys.readouterr().out)["comparison"]["rows"]
    assert rows == whole["comparison"]["rows"]


def test_a_stopped_run_is_saved_shown_and_told_by_the_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace, out = tmp_path / "t.csv", tmp_path / "run.json"
    trace.write_text("arrival_s,isl,osl\n" + "".join(f"{0.02 * i},30,5\n" for i in range(20)), encoding="utf-8")
    with serving(lambda n: "refuse" if n > 5 else "") as (url, _):
        code = main(["replay", str(trace), "--url", url, "--model", "m", "--json", str(out), "--max-failures", "2"])
    shown, said = capsys.readouterr()
    assert code == 2 and "PARTIAL" in shown and said.count("\n") == 1 and "stopped early" in said
    whole = json.loads(out.read_text(encoding="utf-8"))
    assert whole["partial"] and whole["completed"] == 5 and whole["stopped"]


BAD = [
    ([], "give a trace to send"),
    (["x.csv", "--compare", "y.json"], "give a trace to send"),
    (["--compare", "y.json"], "--plan"),
    (["x.csv"], "--url"),
    (["x.csv", "--url", "localhost:8000"], "http://localhost:8000"),
    (["x.csv", "--url", "http://localhost:1", "--api", "chats"], "did you mean chat"),
    (["x.csv", "--url", "http://localhost:1", "--extra-body", "{"], "--extra-body"),
    (["x.csv", "--url", "http://localhost:1", "--plan", "TP1"], "--gpu"),
    (["--compare", "missing.json", *PLAN], "missing.json"),
]


@pytest.mark.parametrize("words,hint", BAD, ids=[hint for _, hint in BAD])
def test_bad_input_is_one_line(words: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", *words, "--model", "m"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and hint in err
