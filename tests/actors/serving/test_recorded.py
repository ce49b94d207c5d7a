"""A router that learnt from recorded responses sees what live models say as those were seen."""

import asyncio

import numpy as np
import pandas as pd
import pytest

from actors.router import about, specs_of
from actors.routing.pool import Pool
from cluster.storage import Run
from configs.schema.base import ConfigError
from configs.schema.serve import Serving
from tests.actors.routing.conftest import config_of, folder_of, fuse
from tests.actors.serving.conftest import Site
from tests.endpoint import Endpoint, listening, prompt_of
from tests.experts import remote, texts

pytestmark = pytest.mark.ray
NAMES = ("lab/large", "small")
FILMS = [text for text, _ in texts(60)]


def response(name, film):
    """Short or long, and not the same of both."""
    return (
        "Yes." if len(film) % 3 == 0 else f"{name.split('/')[-1]} says that it would rather not see: {film}"
    )


@pytest.fixture(scope="module")
def run(ray_session, tmp_path_factory):
    """A run about 60 films, half of which one model is right about, and half the other."""
    folder = tmp_path_factory.mktemp("recorded")
    items = pd.DataFrame({"item": range(60), "text": FILMS})
    rows = [
        {
            "item": i,
            "expert": name,
            "response": response(name, film),
            "score": float(i % 2 == e),
            "cost_usd": 0.1,
        }
        for e, name in enumerate(NAMES)
        for i, film in enumerate(FILMS)
    ]
    recorded = folder_of(folder / "data", items, pd.DataFrame(rows))
    policy = {"fusers": ["knn"], "neighbours": 5, "sample": 10, "rates": [0.0, 0.02]}
    config = config_of(recorded, answer="expert", fusers=["knn"], features={"dimensions": 5}, policy=policy)
    fuse(config, folder / "run")
    return folder / "run"


def test_it_asks_for_models_by_the_names_that_fit(run):
    serving = Serving(artefact=str(run))
    with pytest.raises(ConfigError, match=r"how to start lab-large, small .*describe them under `experts`"):
        specs_of(serving, about(str(run)))


def test_names_that_are_served_alike_and_blocks_of_unknown_making_are_refused(run):
    serving, manifest = Serving(artefact=str(run)), about(str(run))
    large, small = manifest["experts"]
    with pytest.raises(ConfigError, match="two of its experts would be served under the name 'lab-large'"):
        specs_of(serving, {**manifest, "experts": [large, {**small, "name": "lab-large"}]})
    url = "http://127.0.0.1:9/v1"
    serving = Serving(artefact=str(run), experts=[remote("lab-large", url), remote("small", url)])
    assert [spec.name for spec in specs_of(serving, manifest)] == ["lab-large", "small"]
    with pytest.raises(ConfigError, match="does not say how responses become vectors"):
        specs_of(serving, {**manifest, "experts": [large, {**small, "vector": None}]})


def test_live_responses_become_the_blocks_of_recorded_ones(run):
    with (
        listening(Endpoint(lambda body, number: response("large", prompt_of(body)))) as large,
        listening(Endpoint(lambda body, number: response("small", prompt_of(body)))) as small,
    ):
        experts = [
            remote("lab-large", large.url, prompt="{text}"),
            remote("small", small.url, prompt="{text}"),
        ]
        here = Site(run, {}, experts=experts)
        body = {"messages": [{"role": "user", "content": FILMS[2]}], "mode": "full"}
        found = here("POST", "/v1/chat/completions", json=body)
        assert found.status_code == 200, found.text
        steps = found.json()["amalgam"]["steps"]
        assert [step["expert"] for step in steps] == list(NAMES)
        allowed = here(
            "POST", "/v1/chat/completions", json={**body, "mode": "single", "allow": ["lab/large"]}
        )
        assert allowed.json()["amalgam"]["answered_by"] == "lab/large"
        few = [0, 1, 2, 3]
        seen = asyncio.run(blocks(here, [FILMS[row] for row in few]))
    files = Run(str(run))
    (key,) = [name for name in files.names("steps") if name.startswith("pool-")]
    pool = Pool.read(files.below(f"steps/{key}"))
    for given, stored in zip(seen, (*pool.blocks, pool.inputs), strict=True):
        np.testing.assert_allclose(given[:, 1:], stored[few][:, 1:], atol=1e-5)


async def blocks(here, films):
    """What a policy sees of both models' answers to films, and of the films."""
    outputs, rows = here.decider.outputs(), np.arange(len(films))
    both = [model.answer(films) for model in here.models.values()]
    given = [await outputs.of(expert, rows, films, answers) for expert, answers in enumerate(both)]
    return [*given, await outputs.context(films)]
