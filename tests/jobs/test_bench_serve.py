"""The load generator against a real HTTP server."""

import asyncio
import re

import fastapi
import pytest

from configs.schema.base import ConfigError
from jobs import bench_serve
from tests.actors.serving.test_clients import listening


def router(fails: int = 0):
    """An endpoint that answers as routers do, but for the first requests."""
    app, seen = fastapi.FastAPI(), []

    @app.get("/v1/artefact")
    def about():
        return {"answer": "label"}

    @app.post("/v1/classify")
    def classify(body: dict):
        seen.append(body["inputs"])
        if 1 < len(seen) <= 1 + fails:
            raise fastapi.HTTPException(503)
        return {"results": [{"experts": ["a", "b"], "cost": 3.0}]}

    return app, seen


def test_a_closed_loop_counts_what_comes_back():
    app, seen = router(fails=3)
    with listening(app) as url:
        found, took = asyncio.run(bench_serve.load(url, ["a", "b"], 4, None, 0.5))
    assert took >= 0.5
    assert found.outcomes["503"] == 3
    assert len(found.latencies) == found.outcomes["200"] == len(seen) - 4
    text = bench_serve.table(found, took)
    assert re.search(r"experts +2\.00 a request", text) and re.search(r"cost +3 a request", text)
    assert "errors                3 503 x 3" in text


def test_an_open_loop_sends_at_its_rate():
    app, seen = router()
    with listening(app) as url:
        found, _ = asyncio.run(bench_serve.load(url, ["a"], 1, 40, 0.5))
    assert len(seen) - 1 == found.outcomes["200"] == 20


def test_what_is_wrong_is_said_in_one_line(tmp_path):
    wrong = [
        ({"texts": "nowhere"}, "--texts nowhere: No such file"),
        ({"key_env": "NO_SUCH_KEY"}, "--key-env: the environment variable NO_SUCH_KEY is empty"),
        ({}, "no router answers there"),
    ]
    for changes, words in wrong:
        options = {"concurrency": 1, "rate": None, "seconds": 1, "texts": None, "key_env": None, **changes}
        with pytest.raises(ConfigError, match=re.escape(words)):
            bench_serve.main("http://127.0.0.1:9", **options)
