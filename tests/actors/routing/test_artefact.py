import json
import shutil

import numpy as np
import pytest

from actors.routing import artefact, collected
from actors.routing.artefact import ArtefactError
from cluster.storage import Storage
from tests.actors.routing.conftest import config_of, fuse, record_services

RATES = [0.0, 0.005, 0.05]


@pytest.fixture(scope="module", params=["knn", "trees", "logistic"])
def published(tmp_path_factory, request):
    """The artefact of a policy of each kind, and its configuration."""
    folder = tmp_path_factory.mktemp(request.param)
    services = record_services(folder / "services")
    config = config_of(services, policy={"rates": RATES, "fusers": [request.param], "neighbours": 9})
    return fuse(config, folder / "run")[1].below("artefact"), config


def requests_of(config, pool=None):
    """Outputs of the items that are judged."""
    pool = pool or collected.read(config)
    return np.concatenate([block[pool.rows("test")] for block in pool.blocks], axis=1)


def test_an_artefact_decides_as_the_policy_that_it_was_made_from(published):
    files, config = published
    loaded = artefact.read(files)
    steps = Storage(files.uri.replace("/artefact", "/steps"))
    (key,) = [name for name in steps.names() if name.startswith("policy-")]
    walks = loaded.policy.sweep(requests_of(config), RATES)
    starts = steps.read_json(f"{key}/starts.json")
    assert {str(rate): order for rate, order in loaded.policy.starts_.items()} == starts
    kept = artefact.load(steps.read_bytes(f"{key}/walks.safetensors"))
    for number, walk in enumerate(walks):
        assert (walk.order == kept[f"order.{number}"]).all()
        assert (walk.answers == kept[f"answers.{number}"]).all()


def test_stored_outputs_are_read_where_they_lie(published):
    files, _ = published
    stored = artefact.read(files).policy.stored_
    for array in (*stored.blocks, stored.values):
        assert not array.flags.owndata and not array.flags.writeable


def test_a_manifest_says_what_is_inside(published):
    files, _ = published
    loaded = artefact.read(files)
    assert loaded.experts == ["dear", "middle", "cheap"]
    assert [expert["price"] for expert in loaded.manifest["experts"]] == [10, 4, 0.5]
    assert loaded.manifest["stored"] == loaded.items.num_rows == 150
    assert loaded.manifest["calibration"][0]["lambda"] == 0
    assert all(len(quantiles) == 3 for quantiles in loaded.manifest["distances"].values())


def test_rates_are_found_for_prices_and_accuracies(published):
    loaded = artefact.read(published[0])
    points = loaded.manifest["calibration"]
    assert loaded.rate_for(cost=1e9) in {p["lambda"] for p in points}
    assert loaded.rate_for(accuracy=0.0) == min(points, key=lambda p: p["cost"])["lambda"]
    with pytest.raises(ArtefactError, match="costs begin at"):
        loaded.rate_for(cost=0.01)
    with pytest.raises(ArtefactError, match="accuracies end at"):
        loaded.rate_for(accuracy=1.01)


def test_a_changed_or_broken_artefact_is_refused(published, tmp_path):
    with pytest.raises(ArtefactError, match="no artefact"):
        artefact.read(Storage(str(tmp_path / "nothing")))
    shutil.copytree(published[0].uri, tmp_path / "copy")
    files = Storage(str(tmp_path / "copy"))
    content = files.read_bytes("stored.safetensors")
    files.write_bytes("stored.safetensors", content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ArtefactError, match=r"stored.safetensors is not the file that was written"):
        artefact.read(files)
    files.fs.delete_file(files.at("stored.safetensors"))
    with pytest.raises(ArtefactError, match="incomplete"):
        artefact.read(files)
    manifest = files.read_json("manifest.json")
    files.write_json("manifest.json", {**manifest, "format": 99, "files": {}})
    with pytest.raises(ArtefactError, match="format 99; this version reads 2"):
        artefact.read(files)


def test_an_expert_is_added_without_touching_what_is_there(services, fused, tmp_path):
    two = {"kind": "recorded", "path": str(services), "names": ["dear", "cheap"]}
    for kind in ("knn", "logistic"):
        config = config_of(services, experts=two, policy={"rates": RATES, "fusers": [kind], "neighbours": 9})
        narrow = artefact.read(fused(config, kind)[1].below("artefact"))
        pool = collected.read(config_of(services))
        wide = artefact.widened(narrow, pool)
        assert wide.experts == ["dear", "cheap", "middle"]
        again = Storage(str(tmp_path / f"wide-{kind}"))
        version = artefact.write(wide, again)
        assert version != narrow.manifest["version"]
        assert artefact.read(again).manifest["version"] == version
        alone = np.array([True, True, False])
        x = requests_of(config)
        x3 = np.concatenate([x, np.zeros((len(x), 3))], axis=1)
        before = narrow.policy.sweep(x, [0.005])[0]
        wide.policy.starts_[0.005] = [*narrow.policy.starts_[0.005], 2]
        after = wide.policy.sweep(x3, [0.005], allowed=alone)[0]
        assert (after.answers == before.answers).all()
        assert (after.spent == before.spent).all()


def test_rows_are_added(services, fused):
    config = config_of(services, split={"share": 0.3}, policy={"rates": RATES, "fusers": ["logistic"]})
    narrow = artefact.read(fused(config)[1].below("artefact"))
    more = collected.read(config_of(services, split={"share": 0.6}))
    wide = artefact.widened(narrow, more)
    assert wide.items.num_rows == len(
        set(narrow.items["item"].to_pylist())
        | set(np.array(more.items["item"].to_pylist())[more.rows("fit")])
    )
    model = narrow.policy.losses_.trained()[(0,)][0]
    assert wide.policy.losses_.trained()[(0,)][0] is model


def test_what_does_not_fit_is_not_added(published, services):
    loaded = artefact.read(published[0])
    fewer = {"kind": "recorded", "path": str(services), "names": ["dear", "middle"]}
    with pytest.raises(ArtefactError, match="the pool lacks expert cheap"):
        artefact.widened(loaded, collected.read(config_of(services, experts=fewer)))
    assert json.dumps(loaded.manifest)
