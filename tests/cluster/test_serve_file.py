"""The deployment file that ships is one that Serve takes, and whose arguments are those of the router."""

from importlib import import_module

import pytest
import yaml
from ray.serve.schema import DeploymentSchema, ServeApplicationSchema, ServeDeploySchema, TracingConfig

from actors.router import Router
from configs.load import PACKAGE_ROOT
from configs.schema.serve import Serving

FILE = PACKAGE_ROOT / "cluster/serve.yaml"
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


def test_the_tracing_that_is_commented_out_is_valid():
    text = FILE.read_text()
    start = text.index("# tracing_config:")
    section = "".join(line.removeprefix("# ") + "\n" for line in text[start:].splitlines()[:4])
    config = TracingConfig.model_validate(yaml.safe_load(section)["tracing_config"])
    module, _, function = config.exporter_import_path.partition(":")
    assert config.enabled and callable(getattr(import_module(module), function))
