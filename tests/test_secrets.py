"""What is measured is kept whatever happens; keys and control characters go nowhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apexsim.cli.main import main
from apexsim.errors import InputError, cut, shown
from apexsim.replay.wire import Target
from apexsim.report.page import columns, heading, labelled, page
from apexsim.report.plain import dumps
from test_reading import ALIVE
from test_replay import serving

Capture = pytest.CaptureFixture[str]
TRACE = '{"StartTimeOffset": %d, "ContextTokens": 20, "GeneratedTokens": 6}\n'
pytest.importorskip("httpx")


@given(st.text())
@settings(max_examples=300)
def test_nothing_that_a_terminal_obeys_is_shown(text: str) -> None:
    whole = page([heading(text, text), labelled([(text, text)]), columns([(text, "left")], [(text,)])]) + shown(text)
    assert not any((ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0 for c in whole)
    (whole + dumps([text])).encode()  # no half of a pair is left
    assert json.loads(dumps([text])) == [text]


def test_messages_fit_on_a_screen(capsys: Capture) -> None:
    assert main(["fit", "qwen3-8b", "--gpu", "\x1b[2J" + "x" * 100_000, "--gpus", "1"]) == 2
    err = capsys.readouterr().err
    assert len(err) < 2000 and "\x1b" not in err and len(cut("x" * 9999)) < 1300


LOGIN = Target("http://user:hunter2@127.0.0.1:9/v1?token=abc", "m")


def test_a_password_goes_to_the_server_alone() -> None:
    assert LOGIN.shown == "http://127.0.0.1:9/v1?…" and "hunter2" not in LOGIN.address
    assert LOGIN.headers["Authorization"] == "Basic dXNlcjpodW50ZXIy"
    assert LOGIN.hidden("hunter2 dXNlcjpodW50ZXIy user:hunter2") == "*** *** ***"
    for url, key in (("http://a:b@h", "k"), ("http://h", "kéy"), ("http://h", "a\nb"), ("http://h:-1", ""),
                     ("http://h:99999", ""), ("http://", ""), ("ftp://h", ""), ("http://h\x1b[2J", "")):  # fmt: skip
        with pytest.raises(InputError):
            Target(url, "m", key=key)


@pytest.mark.parametrize("url", ["http://user:hunter2@127.0.0.1:9", "http://xn--a", "http://user:hunter2@h:-1"])
def test_refusals_hold_no_secret(url: str, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "t").write_text(TRACE % 0)
    assert main(["replay", str(tmp_path / "t"), "--url", url, "--model", "m"]) == 2
    err = capsys.readouterr().err
    assert "hunter2" not in err and ALIVE.sub("", err).count("\n") == 1


def test_a_key_that_comes_back_and_half_a_letter(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    (tmp_path / "t").write_text("".join(TRACE % (i * 10**7) for i in range(4)))
    said = {1: r'{"choices": [{"text": "\ud83d"}]}', 2: '{"error": {"message": "bad key sk-secret \\u001b[2J"}}'}
    with serving(lambda n: said.get(n, "")) as (url, _):
        main(["replay", str(tmp_path / "t"), "--url", url, "--model", "m", "--json", str(tmp_path / "j"), "--prompts", "text"])
    kept = (tmp_path / "j").read_text(encoding="utf-8")
    out, err = capsys.readouterr()
    assert "sk-secret" not in kept + out + err and "\x1b" not in out + err
    found = json.loads(kept)
    assert len(found["input_lens"]) == 4 and any("\ud83d" in text for text in found["generated_texts"])


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_signals_keep_what_came(name: str, tmp_path: Path) -> None:
    (tmp_path / "t").write_text("".join(TRACE % (i * 10**9) for i in range(60)))
    kept = tmp_path / "j"
    with serving() as (url, server):
        words = [sys.executable, "-m", "apexsim", "replay", str(tmp_path / "t"), "--url", url, "--model", "m", "--json", str(kept)]
        run = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ)
        until = time.monotonic() + 60
        while len(server.bodies) < 4 and time.monotonic() < until:
            time.sleep(0.05)
        run.send_signal(getattr(signal, name))
        err = run.communicate(timeout=60)[1]
    assert run.returncode == 130 and ALIVE.sub("", err).count("\n") == 1, err
    assert sum(not error for error in json.loads(kept.read_text())["errors"]) >= 1
