"""The artefact: everything that a router needs to decide, in one folder that does not change.

    manifest.json         experts with prices and widths, classes, settings, starts, calibration, digests
    items.parquet         the stored items
    stored.safetensors    outputs, values and qualities of the experts for them
    tables.safetensors    losses of nearest-neighbour fusers on subsets
    subsets.safetensors   trained fusers on subsets, with their out-of-fold scores

Its version is the digest of its files. A wider one takes over what does not concern the new experts or items.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from safetensors.numpy import load, save

from actors.routing import fitting, rehearsing
from actors.routing.pool import INPUTS, PROJECTIONS, Pool, projection_arrays
from cluster.mapped import mapped
from cluster.storage import Run, Step, Storage, StorageError, bytes_digest, digest
from configs.schema.foe import Policy
from fusion.routing import fusers
from fusion.routing.averaging import Averaging
from fusion.routing.policy import FrugalPolicy, FrugalRouter
from fusion.routing.projection import Projection
from fusion.routing.stored import Subset

FORMAT = 2
MANIFEST, ITEMS, STORED, TABLES, SUBSETS = (
    "manifest.json",
    "items.parquet",
    "stored.safetensors",
    "tables.safetensors",
    "subsets.safetensors",
)
Arrays = dict[str, NDArray[Any]]
DTYPES = {"BOOL": "?", "F32": "f4", "F64": "f8", "U8": "u1", "I32": "i4", "I64": "i8"}
"""Numbers that artefacts hold, by their names in safetensors."""


class ArtefactError(Exception):
    """An artefact that cannot be used; the message is one line."""


@dataclass(frozen=True)
class Artefact:
    """A policy with all that it was learnt from, and its manifest."""

    policy: FrugalPolicy | FrugalRouter | Averaging
    manifest: dict[str, Any]
    items: pa.Table
    projections: Mapping[str, Projection] = field(default_factory=dict)
    """What makes blocks of vectors of responses, by expert, and of the items' own (`inputs`)."""

    @property
    def experts(self) -> list[str]:
        """Names of the experts, in the order of the blocks."""
        return [expert["name"] for expert in self.manifest["experts"]]

    def rate_for(self, *, cost: float | None = None, accuracy: float | None = None) -> float:
        """The rate (lambda) that is most accurate within a mean cost, or the cheapest that is as accurate, in
        rehearsals; ArtefactError when there is none."""
        points = self.manifest["calibration"]
        if cost is not None:
            fits = [point for point in points if point["cost"] <= cost]
            best = max(fits, key=lambda point: (point["accuracy"], -point["cost"]), default=None)
        else:
            fits = [point for point in points if point["accuracy"] >= (accuracy or 0)]
            best = min(fits, key=lambda point: (point["cost"], -point["accuracy"]), default=None)
        if best is None:
            cheapest, dearest = min(p["cost"] for p in points), max(p["accuracy"] for p in points)
            raise ArtefactError(
                f"no rate does that: costs begin at {cheapest:g}, accuracies end at {dearest:g}"
            )
        return float(best["lambda"])


def publish(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """Write the artefact of the chosen policy below `artefact/` of the run. `params` as of the policy,
    with judgement (step), methods (name: step), rehearsals (policy: steps), parts (kind: steps), features,
    served (live experts, by name) and name."""
    judged = run.read_json(f"steps/{params['judgement']}/manifest.json")
    kind: fusers.Kind = judged["policy"].removeprefix("frugal_")
    walked = run.below(f"steps/{params['methods'][judged['policy']]}")
    pool = fitting.policy_pool(run, params)
    rows = fitting.stored_rows(pool, params["max_stored"], params["seed"])
    policy = fitting.policy_of(run, params, kind)
    fitting.load_parts(run, policy, kind, params["parts"][kind])
    policy.starts_ = {float(rate): order for rate, order in walked.read_json("starts.json").items()}
    source = run.below(f"steps/{params['pool']}")
    vectors = source.read_json("manifest.json").get("vectors", {})
    about = {
        **described(pool, params, kind),
        "calibration": judged["calibration"],
        "distances": rehearsing.joined(run, params["rehearsals"][judged["policy"]])[1],
        "contexts": len(policy.stored_.blocks) - len(pool.blocks),
        "rate": judged["methods"][judged["policy"]]["lambda"],
        "served": [params["served"][name] for name in pool.about.experts if name in params["served"]],
    }
    for expert in about["experts"]:
        expert["vector"] = vectors.get(expert["name"])
    made = load(source.read_bytes(PROJECTIONS)) if source.exists(PROJECTIONS) else {}
    kept = {name: array for name, array in made.items() if _owner(name) in (*pool.about.experts, INPUTS)}
    artefact = Artefact(policy, about, pool.items.take(rows), _projections(kept))
    version = write(artefact, run.below("artefact"))
    return {"version": version, "kind": kind}


def described(pool: Pool, params: Mapping[str, Any], kind: fusers.Kind) -> dict[str, Any]:
    """What a manifest says of a pool and a kind of policy. `params`: name, features, policy, neighbours,
    sample, seed."""
    prices = pool.expected_prices.tolist()
    return {
        "name": params["name"],
        "kind": kind,
        "answer": pool.about.answer,
        "classes": list(pool.about.classes),
        "unit": pool.about.unit,
        "settings": {name: params[name] for name in ("policy", "neighbours", "sample", "seed")},
        "features": params["features"],
        "experts": [
            {"name": name, "price": price, "width": block.shape[1], "vector": None}
            for name, price, block in zip(pool.about.experts, prices, pool.blocks, strict=True)
        ],
    }


def write(artefact: Artefact, files: Storage) -> str:
    """Publish an artefact, its manifest last; returns its version."""
    policy, kind = artefact.policy, artefact.manifest["kind"]
    stored = {f"block.{i}": block for i, block in enumerate(policy.stored_.blocks)}
    contents = {STORED: _packed({**stored, "values": policy.stored_.values})}
    if kind == "knn":
        contents[TABLES] = _packed({_name(s): table for s, table in policy.losses_.complete().items()})
    else:
        contents[SUBSETS] = _packed(_trained(policy))
    if artefact.projections:
        contents[PROJECTIONS] = _packed(projection_arrays(artefact.projections))
    files.write_table(ITEMS, artefact.items)
    for name, content in contents.items():
        files.write_bytes(name, content)
    digests = {name: bytes_digest(content) for name, content in sorted(contents.items())}
    digests[ITEMS] = bytes_digest(files.read_bytes(ITEMS))
    body = {
        **artefact.manifest,
        "format": FORMAT,
        "schema": schema_hash(artefact.manifest),
        "classes_": [int(label) for label in getattr(policy, "classes_", [])],
        "starts": [{"lambda": rate, "order": order} for rate, order in sorted(policy.starts_.items())],
        "stored": len(policy.stored_),
        "files": digests,
    }
    body.pop("version", None)
    version = digest(body, 16)
    files.write_json(MANIFEST, {"version": version, **body})
    return version


def read(files: Storage) -> Artefact:
    """Read an artefact and check that it is whole; ArtefactError in one line."""
    if not files.exists(MANIFEST):
        raise ArtefactError(f"{files.uri}: no artefact (it has no {MANIFEST})")
    try:
        manifest = files.read_json(MANIFEST)
        contents = {name: mapped(files, name, known) for name, known in manifest["files"].items()}
    except (StorageError, KeyError) as error:
        raise ArtefactError(f"{files.uri}: incomplete: {error}") from None
    if manifest.get("format") != FORMAT:
        raise ArtefactError(f"{files.uri}: format {manifest.get('format')}; this version reads {FORMAT}")
    for name, content in contents.items():
        if bytes_digest(content) != manifest["files"][name]:
            raise ArtefactError(f"{files.uri}: {name} is not the file that was written: its digest differs")
    stored = arrays_in(contents[STORED])
    blocks = [stored[f"block.{i}"] for i in range(len(manifest["experts"]) + manifest["contexts"])]
    policy = _made(manifest, blocks).attach(blocks, stored["values"], manifest["classes_"])
    if manifest["kind"] == "knn":
        for name, table in arrays_in(contents[TABLES]).items():
            policy.losses_.add(_subset(name), table)
    else:
        _train_again(policy, manifest["kind"], arrays_in(contents[SUBSETS]))
    policy.starts_ = {entry["lambda"]: entry["order"] for entry in manifest["starts"]}
    made = arrays_in(contents[PROJECTIONS]) if PROJECTIONS in contents else {}
    return Artefact(policy, manifest, files.read_table(ITEMS), _projections(made))


def schema_hash(manifest: Mapping[str, Any]) -> str:
    """What a running pool of experts must agree with: names, widths of the outputs, classes."""
    experts = [[expert["name"], expert["width"]] for expert in manifest["experts"]]
    return digest([manifest["answer"], experts, manifest["classes"]])


def widened(artefact: Artefact, pool: Pool) -> Artefact:
    """The artefact with the experts and the items of a pool that it lacks.

    Tables and models of subsets without a new expert are kept; with new items, tables are computed anew when
    they are needed, and models keep what they learnt. ArtefactError when the pool lacks what is there.
    """
    old, policy = artefact.manifest, artefact.policy
    names = [*artefact.experts, *(name for name in pool.about.experts if name not in artefact.experts)]
    lacking = [name for name in artefact.experts if name not in pool.about.experts]
    if lacking:
        raise ArtefactError(f"the pool lacks expert {lacking[0]} of the artefact")
    if (old["answer"], old["classes"]) != (pool.about.answer, list(pool.about.classes)):
        raise ArtefactError("the pool gives other answers than the artefact: its labels or kind differ")
    place = {item: row for row, item in enumerate(pool.items["item"].to_pylist())}
    stored = artefact.items["item"].to_pylist()
    absent = [item for item in stored if item not in place]
    if absent:
        raise ArtefactError(f"the pool lacks item {absent[0]} and {len(absent) - 1} more of the artefact")
    known = set(stored)
    added = [row for row in pool.rows("fit") if pool.items["item"][int(row)].as_py() not in known]
    rows = np.array([*(place[item] for item in stored), *added], np.intp)
    columns = [pool.about.experts.index(name) for name in names]
    manifest = {
        **{name: value for name, value in old.items() if name not in {"version", "schema", "files"}},
        "experts": [
            {
                "name": name,
                "price": float(pool.expected_prices[column]),
                "width": pool.blocks[column].shape[1],
            }
            for name, column in zip(names, columns, strict=True)
        ],
    }
    values = pool.values if old["answer"] == "label" else pool.values[:, columns]
    blocks = [pool.blocks[column][rows] for column in columns]
    wider = _made(manifest, blocks).attach(blocks, values[rows], old["classes_"])
    if old["answer"] == "label" or len(names) == len(artefact.experts):
        _take_over(wider, policy, new_items=bool(added))
    wider.find_starts([entry["lambda"] for entry in old["starts"]])
    return Artefact(wider, manifest, pool.items.take(rows), artefact.projections)


def _take_over(wider: Any, policy: Any, *, new_items: bool) -> None:  # noqa: ANN401
    if wider.fuser is None:
        if not new_items:
            for subset, table in policy.losses_.complete().items():
                wider.losses_.add(subset, table)
        return
    for subset, (model, left_out) in policy.losses_.trained().items():
        fresh = np.concatenate([block[len(left_out) :] for block in _of(wider, subset)], axis=1)
        more = wider.losses_.predict(model, fresh) if len(fresh) else left_out[:0]
        wider.losses_.add(subset, model, np.concatenate([left_out, more]))


def _of(policy: Any, subset: Subset) -> Sequence[NDArray[np.float64]]:  # noqa: ANN401
    return [policy.stored_.blocks[expert] for expert in subset]


def arrays_in(content: pa.Buffer) -> Arrays:
    """The arrays of a file of safetensors, where they lie: not to be written to."""
    try:
        size = int.from_bytes(content[:8].to_pybytes(), "little")
        header = json.loads(content[8 : 8 + size].to_pybytes())
        header.pop("__metadata__", None)
        return {
            name: np.frombuffer(
                content[8 + size + about["data_offsets"][0] : 8 + size + about["data_offsets"][1]],
                DTYPES[about["dtype"]],
            ).reshape(about["shape"])
            for name, about in header.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtefactError(f"not a file of safetensors that this version writes: {error}") from None


def _made(manifest: Mapping[str, Any], blocks: Sequence[NDArray[Any]]) -> Any:  # noqa: ANN401
    """The policy of a manifest, not fitted yet."""
    settings = manifest["settings"]
    return fitting.frugal(
        manifest["kind"],
        blocks,
        [expert["price"] for expert in manifest["experts"]],
        Policy.model_validate(settings["policy"]),
        chooses=manifest["answer"] == "expert",
        neighbours=settings["neighbours"],
        sample=settings["sample"],
        seed=settings["seed"],
    )


def _trained(policy: Any) -> Arrays:  # noqa: ANN401
    found: Arrays = {}
    for subset, (model, left_out) in policy.losses_.trained().items():
        arrays = {**fusers.to_arrays(model), "left_out": left_out}
        found |= {f"{_name(subset)}/{name}": array for name, array in arrays.items()}
    return found


def _train_again(policy: Any, kind: fusers.Kind, arrays: Arrays) -> None:  # noqa: ANN401
    parts: dict[Subset, Arrays] = {}
    for name, array in arrays.items():
        subset, _, part = name.partition("/")
        parts.setdefault(_subset(subset), {})[part] = array
    for subset, of in parts.items():
        left_out = of.pop("left_out")
        policy.losses_.add(subset, fitting.restored(policy, kind, subset, of), left_out)


def _owner(name: str) -> str:
    return name.rpartition(".")[0]


def _projections(arrays: Arrays) -> dict[str, Projection]:
    """The projections again, by whose vectors they are made for."""
    parts: dict[str, Arrays] = {}
    for name, array in arrays.items():
        parts.setdefault(_owner(name), {})[name.rpartition(".")[2]] = array
    return {owner: Projection.from_arrays(of) for owner, of in parts.items()}


def _name(subset: Subset) -> str:
    return ",".join(map(str, subset))


def _subset(name: str) -> Subset:
    return tuple(map(int, name.split(",")))


def _packed(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    return save({name: np.ascontiguousarray(array) for name, array in sorted(arrays.items())})
