"""OpenAI's own client, and requests made up from the OpenAPI document, against a real HTTP server."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import hypothesis
import openai
import pytest
import schemathesis
import uvicorn

from actors.experts.base import load_expert
from configs.schema.expert import ExpertSpec
from tests.experts import LABELS, remote, texts

pytestmark = pytest.mark.ray
FILM = texts(1)[0][0]


@contextlib.contextmanager
def listening(app) -> Iterator[str]:
    """A server for an application."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def client(site, monkeypatch) -> Iterator[tuple[openai.OpenAI, str]]:
    """The client, with a key."""
    monkeypatch.setenv("KEYS", "secret")
    with listening(site(access={"keys_env": "KEYS"}).app) as url:
        yield openai.OpenAI(base_url=f"{url}/v1", api_key="secret", max_retries=0), url


def test_chats_models_and_errors_are_what_the_client_expects(client):
    (openai_client, url), messages = client, [{"role": "user", "content": FILM}]
    assert [model.id for model in openai_client.models.list()] == ["amalgam"]
    chat = openai_client.chat.completions.create(model="amalgam-0.02", messages=messages, temperature=0)
    assert chat.choices[0].message.content in {"negative", "positive"}
    assert chat.choices[0].finish_reason == "stop" and chat.usage.total_tokens > 0
    assert chat.amalgam["steps"][0]["expert"] == "cheap"
    full = openai_client.chat.completions.create(
        model="amalgam", messages=messages, extra_body={"mode": "full"}
    )
    assert [step["expert"] for step in full.amalgam["steps"]] == ["cheap", "dear"]
    with pytest.raises(openai.NotFoundError, match="model: no 'gpt-4'; allowed: amalgam, amalgam-LAMBDA"):
        openai_client.chat.completions.create(model="gpt-4", messages=messages)
    with pytest.raises(openai.UnprocessableEntityError, match="none of them is the user's"):
        openai_client.chat.completions.create(
            model="amalgam", messages=[{"role": "system", "content": "Be kind."}]
        )
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0).models.list()


def test_it_can_be_an_expert_of_another_router(client):
    _, url = client
    engine = {"key_env": "KEYS", "model": "amalgam-0.02"}
    spec = ExpertSpec.model_validate(remote("far", f"{url}/v1", engine, prompt="{text}", judge="label"))
    expert = load_expert(spec, LABELS, 0)
    films = [film for film, _ in texts(5)]
    answers = expert.answer(films)
    expert.close()
    assert [answer.error for answer in answers] == [None] * 5 and answers[0].prompt_tokens > 0
    again = client[0].chat.completions.create(
        model="amalgam-0.02", messages=[{"role": "user", "content": films[0]}]
    )
    assert answers[0].text == again.choices[0].message.content and answers[0].text in LABELS


def test_a_stream_says_the_same(client):
    messages = [{"role": "user", "content": [{"type": "text", "text": FILM}]}]
    said = client[0].chat.completions.create(model="amalgam", messages=messages).choices[0].message.content
    chunks = list(client[0].chat.completions.create(model="amalgam", messages=messages, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == said
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.total_tokens > 0


def test_no_request_is_a_fault_of_the_server(site):
    app = site().app
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)

    @hypothesis.settings(max_examples=40, deadline=None, derandomize=True, database=None)
    @hypothesis.given(case=schema.as_strategy())
    def answered(case):
        response = case.call()
        assert response.status_code < 500, response.text
        if response.status_code >= 400:
            assert set(response.json()["error"]) == {"message", "type", "code", "param"}

    answered()
