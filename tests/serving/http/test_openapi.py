"""The document says what the service does: whatever fits it, and whatever does not, is answered as it says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings

from pairwise import FULL

from .in_process import FakeSite
from .test_auth import ROUTES


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeSite]:
    with FakeSite(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture(scope="module")
def document(served: FakeSite) -> Any:
    return schemathesis.openapi.from_dict(served.app.openapi())


@pytest.fixture(scope="module")
def described(served: FakeSite) -> dict[str, Any]:
    document: dict[str, Any] = served.ask("GET", "/openapi.json").json()
    return document


LISTED = sorted(route for route in ROUTES if route[1] not in {"/", "/assets/{file}", "/openapi.json"})
MODES = schemathesis.GenerationMode
CAN_BE_WRONG = {"/v1/items", "/v1/bundles/{name}"}  # of those without a body; a user's id hardly can


@pytest.mark.quick_cases(4)
@pytest.mark.parametrize("mode", [MODES.POSITIVE, MODES.NEGATIVE], ids=["fits", "does-not-fit"])
@pytest.mark.parametrize(("method", "path"), LISTED, ids=[" ".join(route) for route in LISTED])
def test_every_answer_is_as_the_document_says(
    document: Any, served: FakeSite, method: str, path: str, mode: schemathesis.GenerationMode
) -> None:
    operation = document[path][method]
    if mode == MODES.NEGATIVE and "requestBody" not in operation.definition.raw and not CAN_BE_WRONG & {path}:
        return

    @given(operation.as_strategy(generation_mode=mode))
    @settings(max_examples=12 if FULL else 4, suppress_health_check=list(HealthCheck))
    def check(case: Any) -> None:
        served.engine.__init__()  # a bundle that was dropped is there again
        sent = case.as_transport_kwargs(base_url="http://localhost")
        options = {name: sent[name] for name in ("json", "params", "headers") if sent.get(name) is not None}
        if sent.get("data") is not None:
            options["content"] = sent["data"]
        answer = served.ask(sent["method"], sent["url"], **options)
        if mode == MODES.POSITIVE and "ahead of the service's clock" in answer.text:
            return  # no document can say what time it is
        if mode == MODES.POSITIVE and "a name is made of" in answer.text:
            return  # the tool takes \p{M} for whole blocks, in which not every point is a mark
        case.validate_response(answer)

    check()


def test_keys_are_described_where_they_are_asked_for(locked: FakeSite, described: dict[str, Any]) -> None:
    document = locked.ask("GET", "/openapi.json").json()
    assert set(document["components"]["securitySchemes"]) == {"bearer", "header"}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation.get("security", []) == ([{"bearer": []}, {"header": []}] if path[:4] == "/v1/" else []), (
                path
            )
    assert "security" not in str(described)


def test_everything_is_described(described: dict[str, Any]) -> None:
    assert described["openapi"].startswith("3.1")
    listed = {(method.upper(), path) for path, operations in described["paths"].items() for method in operations}
    assert listed == set(LISTED)
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], path
            assert operation["description"], path
            for status in ("400",):
                content = operation["responses"][status]["content"]["application/json"]
                assert content["schema"] == {"$ref": "#/components/schemas/ErrorReply"}, (path, method, status)
            if not path.startswith("/v1"):
                continue
            for status in (
                "401",
                "403",
                "422",
                "500",
                "503",
                *(["400", "413", "415"] if "requestBody" in operation else []),
            ):
                content = operation["responses"][status]["content"]["application/json"]
                assert content["schema"] == {"$ref": "#/components/schemas/ErrorReply"}, (path, method, status)


def test_a_body_is_needed_where_something_of_it_is(described: dict[str, Any]) -> None:
    may_be_left_out = {
        path
        for path, required in described["paths"].items()
        for operation in required.values()
        if "requestBody" in operation and not operation["requestBody"].get("required", False)
    }
    assert may_be_left_out == {"/v1/users/{user}/predict", "/v1/bundles/{name}/rollback"}


def test_schemas_have_meanings_and_limits(described: dict[str, Any]) -> None:
    schemas = described["components"]["schemas"]
    assert "HTTPValidationError" not in schemas
    for name in ("Answer", "Explanation", "TaskInfo", "VersionInfo"):
        assert schemas[name]["description"]
        for field, document in schemas[name]["properties"].items():
            assert document["description"], f"{name}.{field}"
    assert (
        "`value` minus the value without event t"
        in schemas["Explanation"]["properties"]["contributions"]["description"]
    )
    fields = {name: schemas[name]["properties"] for name in schemas if "properties" in schemas[name]}
    assert fields["PredictBody"]["requests"]["maxItems"] == 256
    assert fields["RequestBody"]["items"]["maxItems"] == 10_000
    assert fields["RequestBody"]["items"]["items"]["anyOf"][0]["maxLength"] == 256
    assert fields["RequestBody"]["k"]["maximum"] == fields["AskBody"]["k"]["maximum"] == 1_000
    assert fields["ExplainBody"]["items"]["maxItems"] == 200
    assert fields["EventBody"]["user"]["maxLength"] == 256
    assert "maxLength" not in str(fields["EventBody"]["item"]["anyOf"][1])
    user = described["paths"]["/v1/users/{user}"]["get"]["parameters"][0]["schema"]
    assert (user["maxLength"], user["minLength"]) == (256, 1)
