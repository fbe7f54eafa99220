"""Tokens of an identity provider, with real keys that a real server shows."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import OctKey, RSAKey
from pydantic import ValidationError

from app.api.access.errors import NotAuthenticated, ProviderUnavailable
from app.api.access.oidc import FRESH_S, LONGEST_S, REFETCH_S, Keys, Tokens
from app.identity import Role
from app.settings import Settings
from tests.api.access.callers import Door, door
from tests.api.access.provider import AUDIENCE, ISSUER, Provider, running_provider


@pytest.fixture(scope="module")
def keys() -> dict[str, Any]:
    """Made once: RSA keys take a while."""
    made = Provider()
    for kid, kind in (("first", "RSA"), ("second", "RSA"), ("curve", "EC"), ("stranger", "RSA")):
        made.add_key(kid, kind)
    return made.keys


@pytest.fixture
def provider(keys: dict[str, Any]) -> Iterator[Provider]:
    with running_provider() as made:
        made.keys = {kid: keys[kid] for kid in ("first", "curve")}
        yield made


class Clock:
    """Seconds that pass when a test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(provider: Provider, clock: Clock) -> Tokens:
    return Tokens(provider.settings(), Keys(provider.settings(), clock))


@pytest.fixture
def here(provider: Provider, tmp_path: Path) -> Iterator[Door]:
    with door(tmp_path, oidc=provider.settings()) as made:
        yield made


def test_a_token_opens_what_its_roles_say_and_makes_jobs_of_its_tenant(here: Door, provider: Provider) -> None:
    headers = {"Authorization": f"Bearer {provider.token()}"}
    job = here.submit(headers)["id"]
    assert here.client.get(f"/v1/jobs/{job}", headers=here.key("colleague", tenant="radiology")).status_code == 200
    assert here.client.get(f"/v1/jobs/{job}", headers=here.key("stranger", tenant="other")).status_code == 404
    assert here.client.get("/v1/audit", headers=headers).status_code == 403
    assert here.client.get("/v1/session", headers=headers).json()["name"] == "anna"
    operator = {"Authorization": f"Bearer {provider.token(roles='operate', sub='chief')}"}
    trail = here.client.get(f"/v1/audit?job_id={job}", headers=operator).json()["entries"]
    assert [(row["actor"], row["action"], row["tenant"]) for row in trail] == [("oidc:anna", "job.create", "radiology")]


def test_a_token_of_an_elliptic_curve_opens_too(tokens: Tokens, provider: Provider) -> None:
    assert tokens.identity(provider.token("curve", alg="ES256")).actor == "oidc:anna"


def unsigned(provider: Provider) -> str:
    _, claims, _ = provider.token().split(".")
    none = base64.urlsafe_b64encode(json.dumps({"alg": "none", "kid": "first"}).encode()).decode().rstrip("=")
    return f"{none}.{claims}."


def public_key_as_secret(provider: Provider) -> str:
    pem = provider.keys["first"].as_pem(private=False)
    return provider.token(alg="HS256", key=OctKey.import_key(base64.b64encode(pem)))


def changed_claims(provider: Provider) -> str:
    header, claims, signature = provider.token(roles=["read"]).split(".")
    told = json.loads(base64.urlsafe_b64decode(claims + "=="))
    told["roles"] = ["operate"]
    forged = base64.urlsafe_b64encode(json.dumps(told).encode()).decode().rstrip("=")
    return f"{header}.{forged}.{signature}"


FORGED: dict[str, Callable[[Provider], str]] = {
    "alg none": unsigned,
    "public key as a shared secret": public_key_as_secret,
    "claims changed after signing": changed_claims,
    "no signature": lambda p: p.token().rpartition(".")[0] + ".",
    "algorithm that is not allowed": lambda p: p.token(alg="RS512"),
    "key of another kind": lambda p: p.token("curve", alg="ES256", header={"kid": "first"}),
    "key that it brings itself": lambda p: p.token(
        key=(own := RSAKey.generate_key(2048)), header={"jwk": own.as_dict(private=False)}
    ),
    "unknown key id": lambda p: p.token(header={"kid": "other"}),
    "no key id where there are several keys": lambda p: p.token(header={"kid": None}),
    "expired": lambda p: p.token(exp=int(time.time()) - 60),
    "not yet": lambda p: p.token(nbf=int(time.time()) + 120),
    "no end": lambda p: p.token(exp=None),
    "end that is no number": lambda p: p.token(exp="never"),
    "other audience": lambda p: p.token(aud="billing"),
    "no audience": lambda p: p.token(aud=None),
    "other issuer": lambda p: p.token(iss=f"{ISSUER}/other"),
    "no issuer": lambda p: p.token(iss=None),
    "no subject": lambda p: p.token(sub=None),
    "no tenant": lambda p: p.token(department=None),
    "tenant that is no name": lambda p: p.token(department="A B"),
    "no token": lambda _: "a.b.c",
    "no text": lambda _: "\xff.\xfe.",
}


@pytest.mark.parametrize("how", FORGED)
def test_a_token_that_does_not_fit_opens_nothing(tokens: Tokens, provider: Provider, how: str) -> None:
    assert tokens.identity(provider.token()).tenant == "radiology"
    with pytest.raises(NotAuthenticated) as refused:
        tokens.identity(FORGED[how](provider))
    assert refused.value.code == "token_invalid"


def test_a_forged_token_is_answered_401(here: Door, provider: Provider) -> None:
    answer = here.client.get("/v1/jobs", headers={"Authorization": f"Bearer {unsigned(provider)}"})
    assert (answer.status_code, answer.json()["code"]) == (401, "token_invalid")
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


def test_an_audience_among_several_is_enough(tokens: Tokens, provider: Provider) -> None:
    assert tokens.identity(provider.token(aud=["billing", AUDIENCE])).roles == {Role.SUBMIT, Role.READ}


@pytest.mark.parametrize(
    ("said", "roles"),
    [
        (["radiologist"], {Role.SUBMIT, Role.READ}),
        ("radiologist it", {Role.SUBMIT, Role.READ, Role.OPERATE}),
        (["operate"], set()),
        ([{"name": "it"}, 7], set()),
        ({"it": True}, set()),
        (None, set()),
    ],
)
def test_names_stand_for_roles_as_the_settings_say(provider: Provider, said: Any, roles: set[Role]) -> None:
    settings = provider.settings(role_map={"radiologist": ["submit", "read"], "it": ["operate"]}, tenant_claim="")
    found = Tokens(settings, Keys(settings)).identity(provider.token(roles=said))
    assert (found.roles, found.tenant) == (roles, "default")


def test_a_subject_that_is_no_harmless_name_is_kept_as_a_hash(tokens: Tokens, provider: Provider) -> None:
    actor = tokens.identity(provider.token(sub="Doe, John <x>")).actor
    assert actor.startswith("oidc:sha256-")
    assert len(actor) <= 64


def test_the_provider_is_asked_once_for_many_tokens(tokens: Tokens, provider: Provider, clock: Clock) -> None:
    for _ in range(5):
        tokens.identity(provider.token())
    assert provider.asked == 1
    clock.now += FRESH_S + 1
    tokens.identity(provider.token())
    assert provider.asked == 2


def test_a_new_key_is_fetched_when_it_is_needed_at_most_once_a_minute(
    tokens: Tokens, provider: Provider, clock: Clock, keys: dict[str, Any]
) -> None:
    tokens.identity(provider.token())
    provider.keys["second"] = keys["second"]
    with pytest.raises(NotAuthenticated):
        tokens.identity(provider.token("second"))
    assert provider.asked == 1, "it was asked just now"
    clock.now += REFETCH_S + 1
    assert tokens.identity(provider.token("second")).actor == "oidc:anna"
    for number in range(10):
        with pytest.raises(NotAuthenticated):
            tokens.identity(provider.token(key=keys["stranger"], header={"kid": f"invented-{number}"}))
    assert provider.asked == 2
    old = provider.token("first")
    del provider.keys["first"]
    clock.now += FRESH_S + 1
    with pytest.raises(NotAuthenticated):
        tokens.identity(old)


@pytest.mark.parametrize(
    "trouble", [{"status": 503}, {"answer": b"<html>"}, {"answer": b'{"keys": []}'}, {"answer": b'{"keys": [7]}'}]
)
def test_while_the_provider_is_away_its_keys_go_on_serving_for_a_day(
    tokens: Tokens, provider: Provider, clock: Clock, trouble: dict[str, Any]
) -> None:
    tokens.identity(provider.token())
    for name, value in trouble.items():
        setattr(provider, name, value)
    clock.now += FRESH_S + 1
    assert tokens.identity(provider.token()).actor == "oidc:anna"
    clock.now += LONGEST_S
    with pytest.raises(ProviderUnavailable):
        tokens.identity(provider.token())


def test_with_no_keys_at_all_it_is_503_and_api_keys_go_on(here: Door, provider: Provider) -> None:
    provider.status = 500
    answer = here.client.get("/v1/jobs", headers={"Authorization": f"Bearer {provider.token()}"})
    assert (answer.status_code, answer.json()["code"]) == (503, "identity_provider_unavailable")
    assert answer.headers["retry-after"] == "5"
    assert here.client.get("/v1/jobs", headers=here.key("anna")).status_code == 200


def test_keys_are_not_fetched_by_a_redirect(tokens: Tokens, provider: Provider) -> None:
    provider.status, provider.location = 302, provider.url
    with pytest.raises(ProviderUnavailable):
        tokens.identity(provider.token())
    assert provider.asked == 1


def test_shared_secrets_among_the_keys_are_passed_over(provider: Provider, clock: Clock) -> None:
    secret = OctKey.generate_key(256)
    shown = json.loads(provider.shown())
    shown["keys"].append({**secret.as_dict(private=True), "kid": "shared"})
    provider.answer = json.dumps(shown).encode()
    tokens = Tokens(provider.settings(), Keys(provider.settings(), clock))
    assert tokens.keys.find("shared") == []
    assert len(tokens.keys.find("first")) == 1
    with pytest.raises(NotAuthenticated):
        tokens.identity(provider.token("shared", alg="HS256", key=secret))


@pytest.mark.parametrize(
    "changed",
    [{"algorithms": ["HS256"]}, {"algorithms": ["none"]}, {"jwks_url": "file:///etc/passwd"}, {"secret": "x"}],
)
def test_settings_that_would_weaken_it_are_refused(changed: dict[str, Any]) -> None:
    fields = {"issuer": ISSUER, "audience": AUDIENCE, "jwks_url": "https://x/keys", **changed}
    with pytest.raises(ValidationError):
        Settings.model_validate({"oidc": fields})


def test_it_is_set_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    from app.settings import settings_from_environment  # noqa: PLC0415

    monkeypatch.setenv(
        "LUNGNODULE_OIDC", json.dumps({"issuer": ISSUER, "audience": AUDIENCE, "jwks_url": "https://x/k"})
    )
    monkeypatch.setenv("LUNGNODULE_OIDC__TENANT_CLAIM", "department")
    read = settings_from_environment().oidc
    assert read is not None
    assert (read.issuer, read.tenant_claim, read.algorithms) == (ISSUER, "department", ("RS256", "ES256"))
