"""The server keeps what its own OpenAPI document promises, whatever is sent."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

import demur
from served import Served, a_guard, serving

ROUTES = [
    ("/healthz", "GET"),
    ("/readyz", "GET"),
    ("/metrics", "GET"),
    ("/v1/models", "GET"),
    ("/v1/models/{name}", "GET"),
    ("/v1/chat/completions", "POST"),
    ("/v1/completions", "POST"),
    ("/classify", "POST"),
    ("/beta/litellm_basic_guardrail_api", "POST"),
]

FEW = settings(
    max_examples=15,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
    database=None,
    derandomize=True,
)


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    model = demur.load("organism-ar")
    with serving([model], [a_guard(model)], mode="audit") as found:
        yield found


@pytest.fixture(scope="module")
def document(server: Served) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


@pytest.mark.parametrize(("path", "method"), ROUTES)
def test_every_answer_is_one_that_is_documented(
    document: schemathesis.BaseSchema, path: str, method: str
) -> None:
    checks = [
        schemathesis.checks.not_a_server_error,
        status_code_conformance,
        content_type_conformance,
        response_schema_conformance,
    ]

    @FEW
    @given(case=document[path][method].as_strategy())
    def answered(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=checks, timeout=60)

    answered()


def test_the_document_names_every_route(server: Served) -> None:
    found = httpx.get(f"{server.url}/openapi.json").json()
    assert set(found["paths"]) == {path for path, _ in ROUTES}
    fields = found["components"]["schemas"]["ChatRequest"]
    assert fields["additionalProperties"] is False
    assert "422" not in found["paths"]["/v1/chat/completions"]["post"]["responses"]
